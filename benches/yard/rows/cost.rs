//! What the gateway itself uses: processor time and memory, as the kernel counts them.

use std::io;
use std::time::Duration;

use super::Yard;
use crate::report::{Row, Samples};
use benches::client::{Ask, BOTH};
use benches::gateway::{Gateway, table};
use benches::load::{Loop, exchange, open, read_out};
use benches::procfs::{cpu_us, resident_kib};
use benches::wire::Wire;

/// Clients that have a request or a stream under way.
const CLIENTS: usize = 64;
/// Between two tokens of a stream, in milliseconds.
const GAP_MS: u64 = 10;
/// A large body.
const BODY: usize = 10_000_000;
/// Large bodies one after the other, for one value.
const BODIES: usize = 3;
/// HTTP/2 streams of one connection.
const STREAMS: usize = 100;
/// Until buffers that were only needed in between are given back.
const SETTLE: Duration = Duration::from_millis(200);

/// Closed loop over kept-alive connections; with the access log, which is the default, and without.
pub(super) async fn cpu_of_a_post(yard: &Yard) -> io::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (name, settings) in [
        ("CPU of a small POST", "access_log = true\n"),
        ("CPU of a small POST, no access log", "access_log = false\n"),
    ] {
        let table = table(yard.agent.address, 1, settings, "");
        let gateway = Gateway::start(&yard.binary, &table).await?;
        let (pid, mut samples) = (gateway.pid()?, Samples::default());
        let ask = Ask::post("/agents/qa/json", r#"{"input":"six by nine"}"#);
        let mut load = Loop::new(gateway.address, CLIENTS, &ask).await?;
        let requests = yard.rounds(4000, 500);
        load.run(requests).await?;
        for _ in 0..yard.rounds(7, 2) {
            let before = cpu_us(pid)?;
            let done = load.run(requests).await?;
            samples.add((cpu_us(pid)? - before) / done as f64);
        }
        rows.push(Row::new(name, "µs", samples));
    }
    Ok(rows)
}

/// Many streams, each token alone.
pub(super) async fn cpu_of_a_token(yard: &Yard) -> io::Result<Vec<Row>> {
    let gateway = yard.gateway("").await?;
    let (pid, mut rows) = (gateway.pid()?, Vec::new());
    let tokens = yard.rounds(100, 30);
    let ask = Ask::get(format!("/agents/qa/stream?n={tokens}&gap={GAP_MS}"));
    for http in BOTH {
        let mut samples = Samples::default();
        for round in 0..yard.rounds(3, 1) + 1 {
            let before = cpu_us(pid)?;
            read_out(http, gateway.address, CLIENTS, &ask).await?;
            // The first round opens the connections to the agent.
            if round > 0 {
                samples.add((cpu_us(pid)? - before) / (tokens * CLIENTS) as f64);
            }
        }
        rows.push(Row::new(format!("CPU of a token, {}", http.name()), "µs", samples));
    }
    Ok(rows)
}

/// Large bodies in either direction.
pub(super) async fn cpu_of_a_body(yard: &Yard) -> io::Result<Vec<Row>> {
    let gateway = yard.gateway("").await?;
    let (pid, mut rows) = (gateway.pid()?, Vec::new());
    let up = Ask::post("/agents/qa/up", vec![b'x'; BODY]);
    let down = Ask::get(format!("/agents/qa/down?bytes={BODY}"));
    for (name, ask) in [("CPU of 1 MB, request", up), ("CPU of 1 MB, reply", down)] {
        let (mut wire, mut samples) = (Wire::connect(gateway.address).await?, Samples::default());
        let request = ask.bytes();
        exchange(&mut wire, &request).await?;
        for _ in 0..yard.rounds(7, 1) {
            let before = cpu_us(pid)?;
            for _ in 0..BODIES {
                exchange(&mut wire, &request).await?;
            }
            samples.add((cpu_us(pid)? - before) / (BODIES * BODY) as f64 * 1e6);
        }
        rows.push(Row::new(name, "µs", samples));
    }
    Ok(rows)
}

/// Streams that are open and say nothing; each value from a gateway that was just started.
pub(super) async fn memory_of_a_stream(yard: &Yard) -> io::Result<Vec<Row>> {
    let (mut rows, streams) = (Vec::new(), yard.rounds(1000, 200));
    for http in BOTH {
        let mut samples = Samples::default();
        for _ in 0..yard.rounds(3, 1) {
            let gateway = yard.gateway("").await?;
            let pid = gateway.pid()?;
            let ask = Ask::get("/agents/qa/hold");
            drop(open(http, gateway.address, 1, 1, &ask).await?);
            tokio::time::sleep(SETTLE).await;
            let before = resident_kib(pid)?;
            let held = open(http, gateway.address, streams, STREAMS, &ask).await?;
            tokio::time::sleep(SETTLE).await;
            samples.add((resident_kib(pid)? - before) / held.len() as f64);
        }
        let name = format!("memory of an idle stream ({streams} open), {}", http.name());
        rows.push(Row::new(name, "KiB", samples));
    }
    Ok(rows)
}
