//! What those who ask notice of edits of a large table.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinSet, spawn_blocking};

use super::Yard;
use super::latency::Side;
use super::process::{rename, until_it_answers};
use crate::report::Row;
use benches::client::{Ask, Client, Http};
use benches::gateway::{Gateway, one, table};

const TYPES: usize = 10_000;
/// Between two requests of the open loop: 500 a second.
const TICK: Duration = Duration::from_millis(2);
/// Between two edits.
const EDIT: Duration = Duration::from_millis(500);

/// Small POSTs at a steady rate: while nobody edits, and while the table gets one type after the
/// other.
pub(super) async fn under_load(yard: &Yard) -> io::Result<Vec<Row>> {
    let text = table(yard.agent.address, TYPES, "access_log = false\n", "");
    let gateway = Gateway::start(&yard.binary, &text).await?;
    let side = Side::new(gateway.address, &Ask::post("/agents/qa/json", "{}"));
    let requests = yard.rounds(4000, 500);
    steadily(&side, requests).await?;
    let calm = side.took();
    let mut edits = Edits { text, file: gateway.file.clone(), agent: yard.agent.address, made: 0 };
    tokio::select! {
        steady = steadily(&side, requests) => steady?,
        edited = edits.make() => edited?,
    }
    let edited = side.took();
    edits.in_force(gateway.address).await?;
    Ok(vec![
        Row::new("small POST at 500/s, 10,000 types", "µs", calm),
        Row::new("the same, the table edited twice a second", "µs", edited),
    ])
}

async fn steadily(side: &Arc<Side>, requests: usize) -> io::Result<()> {
    let mut ticks = tokio::time::interval(TICK);
    let mut tasks = JoinSet::new();
    for _ in 0..requests {
        ticks.tick().await;
        tasks.spawn(Arc::clone(side).one());
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

struct Edits {
    text: String,
    file: PathBuf,
    agent: SocketAddr,
    made: usize,
}

impl Edits {
    /// Makes one after the other until dropped; never ends well.
    async fn make(&mut self) -> io::Result<()> {
        let mut ticks = tokio::time::interval(EDIT);
        loop {
            ticks.tick().await;
            self.made += 1;
            self.text += &one(self.agent, &format!("new{}", self.made), "");
            // On another thread: this one measures.
            let (file, text) = (self.file.clone(), self.text.clone());
            spawn_blocking(move || rename(&file, &text)).await??;
        }
    }

    /// Waits until the last one is in force.
    async fn in_force(&self, gateway: SocketAddr) -> io::Result<()> {
        rename(&self.file, &self.text)?;
        let mut client = Client::connect(Http::One, gateway).await?;
        let name = format!("new{}", self.made);
        until_it_answers(&mut client, &name, std::time::Instant::now()).await?;
        Ok(())
    }
}
