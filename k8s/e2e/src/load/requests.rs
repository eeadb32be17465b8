//! Requests at a rate, whether or not those before them have been answered.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Limited};
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::Load;
use super::exchange::{ANSWER_MAX, ANSWER_TIMEOUT, Fault, ask, connection};
use super::report::What;
use crate::agent::{Order, Said};
use crate::wire::Connection;

/// Most that are open at once: ten seconds of 200 a second. Beyond it they are failures, not a longer line.
const OPEN_MAX: usize = 2_000;
/// Kept connections, each used in turn, so that none lies idle for long.
const KEPT_MAX: usize = 16;

#[derive(Deserialize)]
struct Whole {
    output: Said,
}

type Kept = Arc<Mutex<VecDeque<Connection>>>;

/// Sends until told to stop, then waits for what is open.
pub(super) async fn run(load: Arc<Load>) {
    if load.settings.rate == 0 {
        return;
    }
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / load.settings.rate);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let places = Arc::new(Semaphore::new(OPEN_MAX));
    let kept = Kept::default();
    let mut open = JoinSet::new();
    for number in 0.. {
        ticks.tick().await;
        if load.stopped() {
            break;
        }
        while open.try_join_next().is_some() {}
        load.tally().sent(What::Request);
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            load.tally().failed(What::Request, Fault::new("held back", "too many are open"));
            continue;
        };
        let (load, kept) = (Arc::clone(&load), Arc::clone(&kept));
        open.spawn(async move {
            let begun = Instant::now();
            let answered = tokio::time::timeout(ANSWER_TIMEOUT, one(&load, &kept, number)).await;
            let answered =
                answered.unwrap_or_else(|_| Err(Fault::new("timeout", "not whole in 60 s")));
            let time_ms = u32::try_from(begun.elapsed().as_millis()).unwrap_or(u32::MAX);
            let mut tally = load.tally();
            match answered {
                Ok(said) => {
                    tally.heard(&said);
                    tally.good(What::Request, time_ms);
                }
                Err(fault) => tally.failed(What::Request, fault),
            }
            drop(place);
        });
    }
    while open.join_next().await.is_some() {}
}

fn whole(body: &[u8]) -> Result<Said, Fault> {
    let whole: Result<Whole, _> = serde_json::from_slice(body);
    whole.map(|whole| whole.output).map_err(|error| Fault::new("wrong bytes", error))
}

/// `pod=NAME …`, where a pod of a Deployment is called `TYPE-HASH-RANDOM`.
fn plain(body: &[u8], number: u64) -> Result<Said, Fault> {
    let text = String::from_utf8_lossy(body);
    let pod = text.strip_prefix("pod=").and_then(|rest| rest.split(' ').next());
    let kind = pod.and_then(|pod| pod.rsplitn(3, '-').last());
    let (Some(pod), Some(kind)) = (pod, kind) else { return Err(Fault::new("wrong bytes", text)) };
    Ok(Said { number, pod: pod.to_owned(), kind: kind.to_owned(), ..Said::default() })
}

async fn one(load: &Load, kept: &Kept, number: u64) -> Result<Said, Fault> {
    let keeps = number.is_multiple_of(2);
    let lock = || kept.lock().unwrap_or_else(PoisonError::into_inner);
    let used = if keeps { lock().pop_front() } else { None };
    let (mut connection, is_new) = connection(load, used).await?;
    let order = Order { number, hold_ms: load.settings.hold_ms, ..Order::default() };
    let agent = load.agent(number);
    let answer = ask(load, &mut connection, is_new, (agent, &order)).await?;
    let body = Limited::new(answer.into_body(), ANSWER_MAX).collect().await;
    let body = body.map_err(|error| Fault::new("truncated", error))?.to_bytes();
    let said = if load.settings.plain { plain(&body, number) } else { whole(&body) }?;
    if said.number != number || said.kind != agent {
        return Err(Fault::new("another's answer", format!("{said:?}")));
    }
    if keeps && !connection.is_closed() {
        let mut kept = lock();
        if kept.len() < KEPT_MAX {
            kept.push_back(connection);
        }
    }
    Ok(said)
}
