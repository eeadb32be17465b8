//! A supervisor under test: tables go in, replicas and log lines come out, and everything is
//! waited for, up to a generous ceiling.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use config::{Agent, Deployment, Scale, ScaleDown, ScaleUp, SecretRef, Table};
use switchyard::gateway::{ManagedAgent, Replica};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::processes;
use crate::cli::up::console::Console;
use crate::cli::up::supervise;
use crate::cli::up::yard::{Phase, Yard};

/// How long anything is waited for: far more than it takes.
const CEILING: Duration = Duration::from_secs(30);

pub(super) struct Rig {
    tables: watch::Sender<Arc<Table>>,
    listing: watch::Receiver<Arc<BTreeMap<String, ManagedAgent>>>,
    phase: watch::Sender<Phase>,
    log: Log,
    task: Option<JoinHandle<()>>,
}

/// All output so far.
#[derive(Clone)]
struct Log(watch::Sender<String>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send_modify(|text| text.push_str(&String::from_utf8_lossy(bytes)));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Rig {
    pub(super) fn start(agents: &[Agent]) -> Rig {
        Rig::with(agents, |yard| yard)
    }

    pub(super) fn with(agents: &[Agent], change: impl FnOnce(Yard) -> Yard) -> Rig {
        let log = Log(watch::Sender::new(String::new()));
        let (console, _) = Console::start(log.clone(), log.clone(), false).unwrap();
        let (listing, listed) = watch::channel(Arc::default());
        let (phase, seen) = watch::channel(Phase::Run);
        let yard = Yard::new(console, seen, listing, "0.0.0.0:8080".parse().unwrap(), CEILING);
        let (tables, table) = watch::channel(Arc::new(table(agents)));
        let task = tokio::spawn(supervise::run(Arc::new(change(yard)), table));
        Rig { tables, listing: listed, phase, log, task: Some(task) }
    }

    pub(super) fn edit(&self, agents: &[Agent]) {
        self.tables.send_replace(Arc::new(table(agents)));
    }

    pub(super) fn phase(&self, phase: Phase) {
        Phase::advance(&self.phase, phase);
    }

    /// Ends it in order and waits for the last replica.
    pub(super) async fn end(mut self) {
        self.phase(Phase::Drain);
        self.ended().await;
    }

    pub(super) async fn ended(&mut self) {
        let task = self.task.take().unwrap();
        timeout(CEILING, task).await.unwrap_or_else(|_| panic!("no end: {}", self.text())).unwrap();
    }

    /// Waits until the log says this.
    pub(super) async fn line(&mut self, text: &str) {
        let mut log = self.log.0.subscribe();
        let said = timeout(CEILING, log.wait_for(|all| all.contains(text))).await.is_ok();
        assert!(said, "no {text:?} in:\n{}", self.text());
    }

    pub(super) fn said(&self, text: &str) -> bool {
        self.text().contains(text)
    }

    fn text(&self) -> String {
        self.log.0.borrow().clone()
    }

    /// Waits until the list is as asked.
    pub(super) async fn until(&mut self, is: impl Fn(&Rig) -> bool) {
        let wait = async {
            while !is(self) {
                // Memory changes without the list changing.
                let _ = timeout(Duration::from_millis(50), self.listing.changed()).await;
            }
        };
        assert!(timeout(CEILING, wait).await.is_ok(), "never:\n{}", self.text());
    }

    /// Waits until so many replicas of an agent are listed.
    pub(super) async fn replicas(&mut self, agent: &str, count: usize) -> Vec<Replica> {
        self.until(|rig| rig.listed(agent).len() == count && rig.knows(agent)).await;
        self.listed(agent)
    }

    pub(super) fn knows(&self, agent: &str) -> bool {
        self.listing.borrow().contains_key(agent)
    }

    pub(super) fn listed(&self, agent: &str) -> Vec<Replica> {
        self.listing.borrow().get(agent).map_or(Vec::new(), |agent| agent.replicas.clone())
    }

    pub(super) fn desired(&self, agent: &str) -> u32 {
        self.listing.borrow()[agent].desired
    }

    /// What the first replica is said to use, when it is known.
    pub(super) fn memory(&self, agent: &str) -> Option<u64> {
        let bytes = self.listed(agent).first()?.memory_bytes.load(Ordering::Relaxed);
        (bytes > 0).then_some(bytes)
    }

    /// Follows the list from now on: the fewest replicas that an agent ever had.
    pub(super) fn fewest(&self, agent: &str) -> watch::Receiver<usize> {
        let (mut listing, agent) = (self.listing.clone(), agent.to_owned());
        let (fewest, seen) = watch::channel(usize::MAX);
        tokio::spawn(async move {
            loop {
                let now = listing.borrow_and_update()[&agent].replicas.len();
                fewest.send_modify(|fewest| *fewest = now.min(*fewest));
                if listing.changed().await.is_err() {
                    return;
                }
            }
        });
        seen
    }

    /// The body of a reply.
    pub(super) async fn get(&self, replica: &Replica, path: &str) -> String {
        self.open(replica, path).await.await.unwrap()
    }

    pub(super) async fn pid(&self, replica: &Replica) -> i32 {
        self.get(replica, "/pid").await.parse().unwrap()
    }

    /// Sends a request; the body of its reply comes later.
    pub(super) async fn open(&self, replica: &Replica, path: &str) -> JoinHandle<String> {
        let mut stream = self.send(replica, path).await;
        tokio::spawn(async move {
            let mut reply = String::new();
            timeout(CEILING, stream.read_to_string(&mut reply)).await.unwrap().unwrap();
            reply.split_once("\r\n\r\n").unwrap().1.to_owned()
        })
    }

    async fn send(&self, replica: &Replica, path: &str) -> TcpStream {
        let mut stream = TcpStream::connect(replica.endpoint.to_string()).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: tiny\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    /// Sends a request that isn't answered.
    pub(super) async fn hit(&self, replica: &Replica, path: &str) {
        let reply = self.send(replica, path).await;
        drop(reply);
    }

    /// Nothing listens there any more.
    pub(super) async fn refused(&self, replica: &Replica) {
        let wait = async {
            while TcpStream::connect(replica.endpoint.to_string()).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        assert!(timeout(CEILING, wait).await.is_ok(), "{} still listens", replica.endpoint);
    }
}

/// Waits until a process is gone.
pub(super) async fn gone(pid: i32) {
    let stat = format!("/proc/{pid}/stat");
    // A zombie is gone, too, though its parent hasn't noticed.
    let alive = || std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z "));
    let wait = async {
        while alive() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(timeout(CEILING, wait).await.is_ok(), "process {pid} is still there");
}

/// A table of these agents, the rest at its defaults.
pub(super) fn table(agents: &[Agent]) -> Table {
    let mut table =
        config::parse("[agents.a]\nendpoints = [\"http://127.0.0.1:1\"]\n", "test").unwrap().table;
    table.agents = agents.iter().map(|agent| (agent.name.clone(), agent.clone())).collect();
    table
}

/// An agent that is run with this command, the rest at its defaults.
pub(in crate::cli::up) fn agent(name: &str, command: &[&str]) -> Agent {
    let command = command.iter().map(|word| (*word).to_owned()).collect();
    let deployment = Some(Box::new(Deployment { command, ..Deployment::default() }));
    let text = format!("[agents.{name}]\nendpoints = [\"http://127.0.0.1:1\"]\ntimeout = \"2s\"\n");
    let mut table = config::parse(&text, "test").unwrap().table;
    Agent { deployment, ..table.agents.remove(name).unwrap() }
}

/// The tiny agent.
pub(super) fn tiny(name: &str) -> Agent {
    let words = processes::only("tiny_agent");
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    with_env(agent(name, &words), processes::AGENT, "1")
}

pub(super) fn with_env(mut agent: Agent, name: &str, value: &str) -> Agent {
    let deployment = agent.deployment.as_mut().unwrap();
    deployment.env.insert(name.to_owned(), value.to_owned());
    agent
}

pub(super) fn with_secret(mut agent: Agent, variable: &str) -> Agent {
    let secret = SecretRef { name: "vault".to_owned(), key: "k".to_owned() };
    agent.deployment.as_mut().unwrap().secrets.insert(variable.to_owned(), secret);
    agent
}

pub(super) fn limited(mut agent: Agent, bytes: u64) -> Agent {
    agent.deployment.as_mut().unwrap().limits.memory = Some(bytes);
    agent
}

pub(super) fn scaled(mut agent: Agent, replicas: u32) -> Agent {
    let none = Duration::ZERO;
    agent.scale = Some(Box::new(Scale {
        min: replicas,
        max: replicas.max(1),
        cpu: None,
        load: None,
        idle: None,
        up: ScaleUp { window: none, pods: 1, period: none },
        down: ScaleDown { window: none },
    }));
    agent
}
