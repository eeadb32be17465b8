//! The gateway as a process: its start, edits of its table, its end.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use super::Yard;
use crate::report::{Row, Samples};
use benches::client::{Ask, BOTH, Client, Http};
use benches::gateway::{Gateway, one, table};

/// When an edit is given up on.
const NEVER: Duration = Duration::from_secs(5);
/// Between two looks at whether a new type answers.
const LOOK: Duration = Duration::from_millis(1);

/// A table with one type more is written → that type answers.
pub(super) async fn edit(yard: &Yard) -> io::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for types in [10, 1000] {
        let mut text = table(yard.agent.address, types, "", "");
        let gateway = Gateway::start(&yard.binary, &text).await?;
        let mut client = Client::connect(Http::One, gateway.address).await?;
        let (mut renames, mut writes) = (Samples::default(), Samples::default());
        for round in 0..2 * yard.rounds(10, 2) {
            let name = format!("new{round}");
            text += &one(yard.agent.address, &name, "");
            let renamed = round % 2 == 0;
            let begun = Instant::now();
            match renamed {
                true => rename(&gateway.file, &text)?,
                false => std::fs::write(&gateway.file, &text)?,
            }
            let took = until_it_answers(&mut client, &name, begun).await?;
            if renamed { renames.add(ms(took)) } else { writes.add(ms(took)) }
        }
        rows.push(Row::new(format!("edit in force: rename, {types} types"), "ms", renames));
        rows.push(Row::new(format!("edit in force: write in place, {types} types"), "ms", writes));
    }
    Ok(rows)
}

pub(super) fn rename(file: &Path, text: &str) -> io::Result<()> {
    let beside = file.with_extension("new");
    std::fs::write(&beside, text)?;
    std::fs::rename(beside, file)
}

pub(super) async fn until_it_answers(
    client: &mut Client,
    name: &str,
    begun: Instant,
) -> io::Result<Duration> {
    let ask = Ask::post(format!("/agents/{name}/json"), "{}");
    loop {
        let asked = begun.elapsed();
        let sent = client.send(&ask).await?;
        let reply = client.reply(sent).await?;
        let status = reply.status;
        client.whole(reply).await?;
        match status {
            200 => return Ok(asked),
            404 if asked < NEVER => tokio::time::sleep(LOOK).await,
            404 => return Err(io::Error::other(format!("{name} never came into force"))),
            status => return Err(io::Error::other(format!("{name} answered {status}"))),
        }
    }
}

/// SIGTERM amid a stream: from the stream's last byte until the process has ended.
pub(super) async fn drain(yard: &Yard) -> io::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for http in BOTH {
        let mut samples = Samples::default();
        for _ in 0..yard.rounds(10, 2) {
            let mut gateway = yard.gateway("").await?;
            let mut client = Client::connect(http, gateway.address).await?;
            let mut reply = client.ask(&Ask::get("/agents/qa/stream?n=10&gap=10")).await?;
            client.piece(&mut reply).await?;
            gateway.terminate()?;
            client.whole(reply).await?;
            let since = Instant::now();
            closed(client).await;
            let status = gateway.ended().await?;
            samples.add(ms(since.elapsed()));
            if !status.success() {
                return Err(io::Error::other(format!("it ended with {status}")));
            }
        }
        rows.push(Row::new(format!("drain: last byte to exit, {}", http.name()), "ms", samples));
    }
    Ok(rows)
}

/// Closes when the gateway has closed, as clients do.
async fn closed(client: Client) {
    if let Client::One(mut wire) = client {
        wire.closed().await;
    }
}

/// From the process's start until it has passed the first reply on.
pub(super) async fn cold_start(yard: &Yard) -> io::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for types in [2, 1000] {
        let mut samples = Samples::default();
        let table = table(yard.agent.address, types, "", "");
        for _ in 0..yard.rounds(10, 2) {
            let gateway = Gateway::start(&yard.binary, &table).await?;
            let mut client = Client::connect(Http::One, gateway.address).await?;
            let reply = client.ask(&Ask::post("/agents/qa/json", "{}")).await?;
            client.whole(reply).await?;
            samples.add(ms(gateway.spawned.elapsed()));
        }
        rows.push(Row::new(format!("cold start to first reply, {types} types"), "ms", samples));
    }
    Ok(rows)
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
