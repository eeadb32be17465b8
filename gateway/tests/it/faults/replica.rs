//! A replica that is a process of its own: this test binary once more. What it has begun it says on
//! its stdout, which outlives it.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

use crate::agent::{Agent, Call};
use crate::wire::eventually;

/// Where the process listens.
const ADDRESS: &str = "SWITCHYARD_TEST_REPLICA";
/// How long one works on a request.
const WORK: Duration = Duration::from_millis(5);
/// From the last answer to the end: who comes meanwhile is told.
const LAST_CALL: Duration = Duration::from_millis(250);
/// Events of a stream, and the pause between two.
const EVENTS: u64 = 40;
const PAUSE: Duration = Duration::from_millis(10);

/// A process that answers; killed when dropped.
pub struct Replica {
    /// Where it listens.
    pub addr: SocketAddr,
    child: Child,
    said: Arc<Mutex<Said>>,
}

#[derive(Default)]
struct Said {
    listening: Option<SocketAddr>,
    begun: HashSet<String>,
    over: bool,
}

impl Replica {
    /// Starts one on a port of its own.
    pub async fn start() -> Replica {
        Replica::start_at(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// Starts one there.
    pub async fn start_at(addr: SocketAddr) -> Replica {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "faults::replica::serves", "--nocapture"])
            .env(ADDRESS, addr.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the test's own binary starts");
        let (said, stdout) = (Arc::new(Mutex::new(Said::default())), child.stdout.take().unwrap());
        let kept = Arc::clone(&said);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                kept.lock().unwrap().hear(&line);
            }
            kept.lock().unwrap().over = true;
        });
        let mut replica = Replica { addr, child, said };
        eventually("the replica listens", || async {
            replica.said.lock().unwrap().listening.is_some()
        })
        .await;
        replica.addr = replica.said.lock().unwrap().listening.unwrap();
        replica
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).expect("the replica runs");
    }

    /// `kill -9`; gives the ids of all that it had begun.
    pub async fn kill(&self) -> HashSet<String> {
        self.signal(Signal::KILL);
        self.over().await;
        std::mem::take(&mut self.said.lock().unwrap().begun)
    }

    /// Restarts it as a supervisor would: SIGTERM, its end, and the next one on the same port.
    pub async fn restart(mut self) -> Replica {
        self.signal(Signal::TERM);
        self.over().await;
        assert!(self.child.wait().unwrap().success(), "the replica ends well");
        Replica::start_at(self.addr).await
    }

    /// How many requests it has begun.
    pub fn count(&self) -> usize {
        self.said.lock().unwrap().begun.len()
    }

    async fn over(&self) {
        eventually("the replica ends", || async { self.said.lock().unwrap().over }).await;
    }
}

impl Said {
    fn hear(&mut self, line: &str) {
        if let Some(id) = line.strip_prefix("begun ") {
            self.begun.insert(id.to_owned());
        } else if let Some(addr) = line.strip_prefix("listening ") {
            self.listening = addr.parse().ok();
        }
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "it is the replica of other tests, which start it"]
fn serves() {
    let Ok(addr) = std::env::var(ADDRESS) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(serve(addr.parse().unwrap()));
    std::process::exit(0);
}

#[derive(Default)]
struct State {
    draining: AtomicBool,
    in_flight: AtomicUsize,
}

async fn serve(addr: SocketAddr) {
    let mut terminated = signal(SignalKind::terminate()).unwrap();
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(addr).unwrap();
    let state = Arc::new(State::default());
    let shared = Arc::clone(&state);
    let listener = socket.listen(1024).unwrap();
    let agent = Agent::with_on(listener, move |call| answer(call, Arc::clone(&shared)));
    println!("\nlistening {}", agent.addr);
    terminated.recv().await;
    state.draining.store(true, Ordering::SeqCst);
    while state.in_flight.load(Ordering::SeqCst) > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(LAST_CALL).await;
}

async fn answer(mut call: Call, state: Arc<State>) {
    if state.draining.load(Ordering::SeqCst) {
        return call.not_begun().await;
    }
    state.in_flight.fetch_add(1, Ordering::SeqCst);
    let id = call.header("x-request-id").unwrap_or_default().to_owned();
    println!("begun {id}");
    let body = String::from_utf8(call.body().await).unwrap();
    match call.target().strip_prefix("/stream/").map(|seed| seed.parse().unwrap()) {
        Some(seed) => stream(call, seed).await,
        None => {
            tokio::time::sleep(WORK).await;
            call.json(&body).await;
        }
    }
    state.in_flight.fetch_sub(1, Ordering::SeqCst);
}

/// Events that depend on nothing but the seed.
async fn stream(mut call: Call, seed: u64) {
    call.begin_sse().await;
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..EVENTS {
        let mut data = String::new();
        for _ in 0..random.usize(1..60) {
            write!(data, "{:x}", random.u64(..)).unwrap();
        }
        call.event(&data).await;
        tokio::time::sleep(PAUSE).await;
    }
    call.end().await;
}
