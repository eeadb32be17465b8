//! What the gateway adds to the time until something arrives.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::Yard;
use crate::report::{Row, Samples};
use benches::agent::now_ns;
use benches::client::{Ask, BOTH, Client, Http};
use benches::load::exchange;
use benches::wire::Wire;

/// Events of one stream; the first is a row of its own.
const EVENTS: u64 = 11;
/// Between two events, in milliseconds: long enough that none waits for the one before.
const GAP_MS: u64 = 2;
/// Between two requests of the open loop: half of them through the gateway.
const TICK: Duration = Duration::from_millis(4);

/// An agent writes an event → the client has it.
pub(super) async fn events(yard: &Yard) -> io::Result<Vec<Row>> {
    let gateway = yard.gateway("").await?;
    let mut rows = Vec::new();
    for http in BOTH {
        let mut through = Client::connect(http, gateway.address).await?;
        let mut direct = Client::connect(Http::One, yard.agent.address).await?;
        let (mut first, mut later) = (Samples::default(), Samples::default());
        let (mut direct_first, mut direct_later) = (Samples::default(), Samples::default());
        for round in 0..yard.rounds(100, 10) + 1 {
            let mut one = stream(&mut direct, "").await?;
            let mut two = stream(&mut through, "/agents/qa").await?;
            // The first round opens the connections.
            if round > 0 {
                direct_first.add(one.remove(0));
                one.into_iter().for_each(|us| direct_later.add(us));
                first.add(two.remove(0));
                two.into_iter().for_each(|us| later.add(us));
            }
        }
        let name = http.name();
        rows.push(Row::new(format!("first event, {name}"), "µs", first).beside(direct_first));
        rows.push(
            Row::new(format!("each further event, {name}"), "µs", later).beside(direct_later),
        );
    }
    Ok(rows)
}

/// How long each event of a stream was on its way, in microseconds.
async fn stream(client: &mut Client, mount: &str) -> io::Result<Vec<f64>> {
    let ask = Ask::get(format!("{mount}/stream?n={EVENTS}&gap={GAP_MS}"));
    let mut reply = client.ask(&ask).await?;
    let (mut text, mut took) = (String::new(), Vec::new());
    while let Some(piece) = client.piece(&mut reply).await? {
        let now = now_ns();
        text.push_str(&String::from_utf8_lossy(&piece));
        while let Some((event, rest)) = text.split_once("\n\n") {
            let written = event.strip_prefix("data: ").and_then(|ns| ns.parse::<u64>().ok());
            let written = written.ok_or_else(|| io::Error::other("an event of nobody's"))?;
            took.push(now.saturating_sub(written) as f64 / 1000.0);
            text = rest.to_owned();
        }
    }
    match took.len() as u64 {
        EVENTS => Ok(took),
        n => Err(io::Error::other(format!("{n} events of {EVENTS}"))),
    }
}

/// A small POST at a steady rate, whether or not the one before is answered.
pub(super) async fn small_post(yard: &Yard) -> io::Result<Vec<Row>> {
    let gateway = yard.gateway("").await?;
    let body = r#"{"input":"six by nine","session_id":"bench"}"#;
    let through = Side::new(gateway.address, &Ask::post("/agents/qa/json", body));
    let direct = Side::new(yard.agent.address, &Ask::post("/json", body));
    let mut ticks = tokio::time::interval(TICK);
    let mut tasks = JoinSet::new();
    for n in 0..2 * yard.rounds(800, 100) {
        ticks.tick().await;
        let side = if n % 2 == 0 { &direct } else { &through };
        tasks.spawn(Arc::clone(side).one());
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(vec![Row::new("small POST, open loop", "µs", through.took()).beside(direct.took())])
}

/// One side's idle connections and what was measured over them.
pub(super) struct Side {
    address: SocketAddr,
    request: Vec<u8>,
    idle: Mutex<Vec<Wire>>,
    took: Mutex<Samples>,
}

impl Side {
    pub(super) fn new(address: SocketAddr, ask: &Ask) -> Arc<Self> {
        let (idle, took) = (Mutex::default(), Mutex::default());
        Arc::new(Self { address, request: ask.bytes(), idle, took })
    }

    pub(super) async fn one(self: Arc<Self>) -> io::Result<()> {
        let idle = lock(&self.idle).pop();
        let mut wire = match idle {
            Some(wire) => wire,
            None => {
                // A new connection is not what is measured.
                let mut wire = Wire::connect(self.address).await?;
                exchange(&mut wire, &self.request).await?;
                wire
            }
        };
        let begun = Instant::now();
        exchange(&mut wire, &self.request).await?;
        lock(&self.took).add(begun.elapsed().as_secs_f64() * 1e6);
        lock(&self.idle).push(wire);
        Ok(())
    }

    pub(super) fn took(&self) -> Samples {
        std::mem::take(&mut lock(&self.took))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
