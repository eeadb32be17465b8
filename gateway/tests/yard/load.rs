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
    /// Starts so many clients: every other one takes a new connection for each request.
    pub fn start(yard: &Yard, agent: &str, clients: usize) -> Load {
        let url = format!("{}/agents/{agent}/invoke", yard.url);
        let (stop, good) = (watch::Sender::new(false), watch::Sender::new(0));
        let mut all = JoinSet::new();
        for n in 0..clients {
            let keep = if n % 2 == 0 { usize::MAX } else { 0 };
            let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(keep);
            let client = client.build().unwrap();
            all.spawn(call(client, url.clone(), stop.subscribe(), good.clone()));
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

async fn call(
    client: reqwest::Client,
    url: String,
    stop: watch::Receiver<bool>,
    good: watch::Sender<usize>,
) -> Vec<Failure> {
    let mut failures = Vec::new();
    while !*stop.borrow() {
        let began = Instant::now();
        match once(&client, &url).await {
            Ok(()) => good.send_modify(|good| *good += 1),
            Err(what) => failures.push(Failure { began, what }),
        }
    }
    failures
}

/// One call; the error is what went wrong, for people.
async fn once(client: &reqwest::Client, url: &str) -> Result<(), String> {
    let reply = client.post(url).json(&json!({"input": "What is a replica?"})).send().await;
    let reply = reply.map_err(|error| format!("{error:?}"))?;
    let status = reply.status();
    let body = reply.text().await.map_err(|error| format!("{status}, then {error:?}"))?;
    let whole = serde_json::from_str::<Value>(&body).is_ok_and(|body| body["output"].is_string());
    if status == 200 && whole { Ok(()) } else { Err(format!("{status} {body}")) }
}
