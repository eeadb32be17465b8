//! Requests without a pause, to see that none of them fails.

use std::time::Instant;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::harness::{Yard, soon};

/// How many have to succeed after something before it counts as survived.
const MORE: usize = 30;

/// Clients that call one agent again and again.
pub struct Load {
    stop: watch::Sender<bool>,
    good: watch::Sender<usize>,
    clients: JoinSet<Vec<Failure>>,
}

/// A request that failed.
#[derive(Debug)]
pub struct Failure {
    /// When it began.
    pub began: Instant,
    /// What the client saw.
    pub what: String,
}

impl Load {
    /// Starts so many clients: every other one takes a new connection for each request, and every
    /// third asks for events.
    pub fn start(yard: &Yard, agent: &str, clients: usize) -> Load {
        let url = format!("{}/agents/{agent}/invoke", yard.url);
        let (stop, good) = (watch::Sender::new(false), watch::Sender::new(0));
        let mut all = JoinSet::new();
        for n in 0..clients {
            let keep = if n % 2 == 0 { usize::MAX } else { 0 };
            let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(keep);
            let client = client.build().unwrap();
            let caller = Caller { client, url: url.clone(), events: n % 3 == 2 };
            all.spawn(caller.run(stop.subscribe(), good.clone()));
        }
        Load { stop, good, clients: all }
    }

    /// Waits until a good number of further requests have succeeded.
    pub async fn goes_on(&self) {
        let mut good = self.good.subscribe();
        let enough = *good.borrow_and_update() + MORE;
        soon("requests go on to succeed", good.wait_for(|good| *good >= enough)).await.unwrap();
    }

    /// Ends it; gives what failed.
    pub async fn end(self) -> Vec<Failure> {
        self.stop.send_replace(true);
        soon("the clients end", self.clients.join_all()).await.into_iter().flatten().collect()
    }

    /// Ends it; nothing may have failed.
    pub async fn unharmed(self) {
        let failures = self.end().await;
        assert!(failures.is_empty(), "{} failed, as {:?}", failures.len(), failures[0]);
    }
}

struct Caller {
    client: reqwest::Client,
    url: String,
    events: bool,
}

impl Caller {
    async fn run(self, stop: watch::Receiver<bool>, good: watch::Sender<usize>) -> Vec<Failure> {
        let mut failures = Vec::new();
        while !*stop.borrow() {
            let began = Instant::now();
            match self.call().await {
                Ok(()) => good.send_modify(|good| *good += 1),
                Err(what) => failures.push(Failure { began, what }),
            }
        }
        failures
    }

    /// One call; the error is what went wrong, for people.
    async fn call(&self) -> Result<(), String> {
        let body = json!({"input": "What is a replica?", "stream": self.events});
        let reply = self.client.post(&self.url).json(&body).send().await;
        let mut reply = reply.map_err(|error| format!("{error:?}"))?;
        let status = reply.status();
        let mut text = Vec::new();
        let end = loop {
            match reply.chunk().await {
                Ok(Some(piece)) => text.extend_from_slice(&piece),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        let text = String::from_utf8_lossy(&text);
        end.map_err(|error| format!("{status} {text}, then {error:?}"))?;
        let is_final = |event: &str| event.starts_with("event: final\ndata: {");
        let whole = match self.events {
            true => text.trim_end().rsplit("\n\n").next().is_some_and(is_final),
            false => {
                serde_json::from_str(&text).is_ok_and(|reply: Value| reply["output"].is_string())
            }
        };
        if status == 200 && whole { Ok(()) } else { Err(format!("{status} {text}")) }
    }
}
