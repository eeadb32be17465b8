//! How connections spread over two workers: how much of the work the busier one has, and what it
//! takes to get a connection to its worker.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::Yard;
use crate::report::{Row, Samples};
use benches::client::Ask;
use benches::gateway::{Gateway, table};
use benches::load::exchange;
use benches::procfs::{cpu_us, threads_cpu_us};
use benches::wire::Wire;

/// Kept-alive connections, each of which asks as often as any other.
const CONNECTIONS: [usize; 3] = [8, 16, 64];
/// Requests a second, over all of them.
const RATE: usize = 4000;
/// Of one set of connections.
const LOAD: Duration = Duration::from_millis(250);
/// Clients that open a connection for every request.
const CLIENTS: usize = 16;

/// Each share is of connections that were just opened: who gets which is decided then.
pub(super) async fn over_workers(yard: &Yard) -> io::Result<Vec<Row>> {
    let gateway = two_workers(yard).await?;
    let (pid, mut rows) = (gateway.pid()?, Vec::new());
    for n in CONNECTIONS {
        let (mut share, mut took) = (Samples::default(), Samples::default());
        for round in 0..yard.rounds(30, 3) + 1 {
            let wires = opened(gateway.address, n).await?;
            let before = threads_cpu_us(pid, "worker-")?;
            let times = paced(wires).await?;
            // The first round opens the connections to the agent.
            if round > 0 {
                share.add(busiest(&before, &threads_cpu_us(pid, "worker-")?));
                times.into_iter().for_each(|us| took.add(us));
            }
        }
        rows.push(Row::new(format!("the busier of two workers, {n} connections"), "%", share));
        rows.push(Row::new(format!("POST over {n} connections, {RATE} a second"), "µs", took));
    }
    Ok(rows)
}

/// A connection for every request.
pub(super) async fn short(yard: &Yard) -> io::Result<Vec<Row>> {
    let gateway = two_workers(yard).await?;
    let (pid, each) = (gateway.pid()?, yard.rounds(60, 10));
    let (mut cpu, mut took) = (Samples::default(), Samples::default());
    for round in 0..yard.rounds(9, 1) + 1 {
        let before = cpu_us(pid)?;
        let tasks = (0..CLIENTS).map(|_| one_after_the_other(gateway.address, each));
        let times = all(tasks.collect()).await?;
        if round > 0 {
            cpu.add((cpu_us(pid)? - before) / times.len() as f64);
            times.into_iter().for_each(|us| took.add(us));
        }
    }
    let name = "POST with a connection of its own";
    Ok(vec![
        Row::new(format!("CPU of a {name}"), "µs", cpu),
        Row::new(format!("{name}, {CLIENTS} at once"), "µs", took),
    ])
}

async fn two_workers(yard: &Yard) -> io::Result<Gateway> {
    let table = table(yard.agent.address, 1, "", "").replace("workers = 1\n", "workers = 2\n");
    Gateway::start(&yard.binary, &table).await
}

fn request() -> Vec<u8> {
    Ask::post("/agents/qa/json", r#"{"input":"six by nine"}"#).bytes()
}

/// Connections that have asked once.
async fn opened(address: SocketAddr, n: usize) -> io::Result<Vec<Wire>> {
    let (request, mut wires) = (request(), Vec::new());
    for _ in 0..n {
        let mut wire = Wire::connect(address).await?;
        exchange(&mut wire, &request).await?;
        wires.push(wire);
    }
    Ok(wires)
}

/// How long each request took, in microseconds.
async fn paced(wires: Vec<Wire>) -> io::Result<Vec<f64>> {
    let gap = Duration::from_secs(1) * wires.len() as u32 / RATE as u32;
    let due = Instant::now() + LOAD;
    let one = |mut wire: Wire| async move {
        let (request, mut took, mut ticks) = (request(), Vec::new(), tokio::time::interval(gap));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while Instant::now() < due {
            ticks.tick().await;
            let begun = Instant::now();
            exchange(&mut wire, &request).await?;
            took.push(begun.elapsed().as_secs_f64() * 1e6);
        }
        Ok(took)
    };
    all(wires.into_iter().map(one).collect()).await
}

async fn one_after_the_other(address: SocketAddr, n: usize) -> io::Result<Vec<f64>> {
    let (request, mut took) = (request(), Vec::with_capacity(n));
    for _ in 0..n {
        let begun = Instant::now();
        exchange(&mut Wire::connect(address).await?, &request).await?;
        took.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    Ok(took)
}

async fn all(tasks: JoinSet<io::Result<Vec<f64>>>) -> io::Result<Vec<f64>> {
    let each: io::Result<Vec<_>> = tasks.join_all().await.into_iter().collect();
    Ok(each?.concat())
}

/// The share of the thread that used most, in percent.
fn busiest(before: &[f64], after: &[f64]) -> f64 {
    let used: Vec<_> = after.iter().zip(before).map(|(after, before)| after - before).collect();
    100.0 * used.iter().copied().fold(0.0, f64::max) / used.iter().sum::<f64>()
}
