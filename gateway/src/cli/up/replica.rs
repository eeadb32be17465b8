//! One replica through all its lives: started, ready, dead and started again, until it is told
//! to go.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use config::Endpoint;
use switchyard::gateway;
use tokio::sync::{mpsc, watch};
use tokio::time;

use super::backoff::Backoff;
use super::child::Running;
use super::console::Stream;
use super::spec::Spec;
use super::{Phase, Yard, probe};
use crate::cli::units;

/// Between two looks at a replica's memory.
const SAMPLE: Duration = Duration::from_secs(1);

/// Between leaving the gateway's list and SIGTERM: the gateway's workers take the list over one by
/// one, and a request may be on its way.
const LEAVE_PAUSE: Duration = Duration::from_millis(200);

/// How long a replica that didn't get ready in time may take to end.
const SLOW_GRACE: Duration = Duration::from_secs(5);

/// What a replica tells its crew.
pub(super) enum Event {
    /// It takes requests here.
    Ready(u32, gateway::Replica),
    /// It takes none any more.
    Down(u32),
    /// It has ended for good.
    Gone(u32),
}

/// One replica's task.
pub(super) struct Life {
    pub(super) yard: Arc<Yard>,
    pub(super) spec: Arc<Spec>,
    pub(super) id: u32,
    pub(super) events: mpsc::Sender<Event>,
    /// Becomes how long it may take to finish what it has begun, when it is to go.
    pub(super) stop: watch::Receiver<Option<Duration>>,
}

/// How one life ended.
enum End {
    /// It was told to go.
    Stopped,
    /// By itself, or it never began.
    Failed(String),
}

impl Life {
    /// Lives until it is told to go.
    pub(super) async fn run(self) {
        let name = self.name();
        let stream = self.yard.console.stream(&name);
        let mut backoff = Backoff::default();
        let mut said = String::new();
        loop {
            let began = Instant::now();
            let End::Failed(why) = self.live(&stream).await else { break };
            let pause = backoff.after(began.elapsed());
            // A program that isn't there is named once, not every ten seconds.
            if why != said {
                self.say(&format!("{why}; starting it again in {}", units::time(pause)));
            }
            said = if why.starts_with(CANNOT) { why } else { String::new() };
            tokio::select! {
                () = time::sleep(pause) => {}
                _ = self.told_to_go() => break,
            }
        }
        self.tell(Event::Gone(self.id)).await;
    }

    fn name(&self) -> String {
        format!("{}-{}", self.spec.agent, self.id)
    }

    fn say(&self, text: &str) {
        self.yard.console.say(&format!("{} {text}", self.name()));
    }

    async fn tell(&self, event: Event) {
        // A crew outlives its replicas, but for the end of the process.
        let _ = self.events.send(event).await;
    }

    /// Waits for the order to go; gives the time to finish in.
    async fn told_to_go(&self) -> Duration {
        let mut stop = self.stop.clone();
        stop.wait_for(Option::is_some).await.ok().and_then(|grace| *grace).unwrap_or_default()
    }

    async fn live(&self, stream: &Stream) -> End {
        let began = Instant::now();
        let mut process = match Running::start(&self.yard, &self.spec, &self.name(), stream) {
            Ok(process) => process,
            Err(error) => return End::Failed(error.to_string()),
        };
        let (slow, port) = (self.yard.start_timeout, process.port());
        tokio::select! {
            biased;
            ended = process.ended() => {
                let how = told(process.bury(ended).await);
                return End::Failed(format!("{how} before it was ready"));
            }
            grace = self.told_to_go() => return self.stop(process, grace).await,
            () = probe::until_ready(&self.spec, port) => {}
            () = time::sleep(slow) => {
                let (exit, _) = process.stop(SLOW_GRACE, self.yard.phase.clone()).await;
                let (path, slow, how) = (&self.spec.ready_path, units::time(slow), told(exit));
                let why = format!("didn't answer GET {path} with 200 within {slow}; told to end, it {how}");
                return End::Failed(why);
            }
        }
        self.serve(process, began).await
    }

    /// From ready to the end of this life.
    async fn serve(&self, mut process: Running, began: Instant) -> End {
        let endpoint = Endpoint { host: "127.0.0.1".to_owned(), port: process.port() };
        self.say(&format!("is ready on {endpoint} after {}", units::time(began.elapsed())));
        let memory_bytes = Arc::new(AtomicU64::new(0));
        let replica = gateway::Replica { endpoint, memory_bytes: Arc::clone(&memory_bytes) };
        self.tell(Event::Ready(self.id, replica)).await;
        let mut samples = time::interval(SAMPLE);
        samples.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                ended = process.ended() => {
                    self.tell(Event::Down(self.id)).await;
                    let how = told(process.bury(ended).await);
                    return End::Failed(format!("{how} after {}", units::time(began.elapsed())));
                }
                grace = self.told_to_go() => {
                    self.pause_before_stop().await;
                    return self.stop(process, grace).await;
                }
                _ = samples.tick() => {
                    memory_bytes.store(process.memory().unwrap_or(0), Ordering::Relaxed);
                }
            }
        }
    }

    /// Not at the end of the yard: the gateway has ended before.
    async fn pause_before_stop(&self) {
        let mut phase = self.yard.phase.clone();
        let ending = phase.wait_for(|phase| *phase != Phase::Run);
        // Whichever comes first.
        let _ = time::timeout(LEAVE_PAUSE, ending).await;
    }

    async fn stop(&self, process: Running, grace: Duration) -> End {
        let (exit, killed) = process.stop(grace, self.yard.phase.clone()).await;
        match killed {
            false => self.say(&format!("stopped: it {}", told(exit))),
            true if *self.yard.phase.borrow() == Phase::Kill => self.say("was killed"),
            true => self
                .say(&format!("was killed: it hadn't ended {} after SIGTERM", units::time(grace))),
        }
        End::Stopped
    }
}

/// How messages about a process that didn't begin begin.
const CANNOT: &str = "can't";

fn told(exit: std::io::Result<super::child::Exit>) -> String {
    exit.map_or_else(|error| format!("was lost: {error}"), |exit| exit.to_string())
}
