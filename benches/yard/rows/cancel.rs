//! How long after a client's leaving nothing is done for it any more, by where its request stood.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use super::Yard;
use crate::report::{Row, Samples};
use benches::client::{Ask, BOTH, Client, Http, Stage, leave};
use benches::gateway::{Gateway, table};

/// A body that nobody reads while its request waits.
pub(super) const UNREAD: usize = 1 << 20;
/// A body as small as most.
pub(super) const SMALL: usize = 100;
/// How long an answer of the gateway's own may take; a request that waits gets none.
const ANSWER: Duration = Duration::from_millis(100);
/// Until a request that was sent has got to where it waits.
const ARRIVE: Duration = Duration::from_millis(30);
/// When a leaving is given up on.
const NEVER: Duration = Duration::from_secs(2);
/// A connect that works takes microseconds; one that is dropped is tried again after a second.
const CONNECT: Duration = Duration::from_millis(200);
/// More than any accept queue of one place holds.
const QUEUE_MAX: usize = 64;

/// In the line.
pub(super) async fn queued(yard: &Yard, body: usize) -> io::Result<Vec<Row>> {
    let gateway = yard.gateway("max_in_flight = 1\nqueue = { max = 1, timeout = \"60s\" }").await?;
    let mut rows = Vec::new();
    for http in BOTH {
        let mut samples = Samples::default();
        for _ in 0..yard.rounds(10, 2) {
            let mut holder = Client::connect(Http::One, gateway.address).await?;
            let held = holder.ask(&Ask::get("/agents/qa/hold")).await?;
            samples.add(freed(&gateway, http, body).await?);
            drop((holder, held));
        }
        rows.push(Row::new(
            format!("cancel: queued{}, {}", words(body), http.name()),
            "ms",
            samples,
        ));
    }
    Ok(rows)
}

/// While the agent's machine does not answer.
pub(super) async fn connecting(yard: &Yard, body: usize) -> io::Result<Vec<Row>> {
    let full = Full::new().await?;
    let settings = "connect_timeout = \"60s\"\nmax_in_flight = 1\nqueue = { max = 0 }";
    let table = table(full.address, 1, "", settings);
    let mut rows = Vec::new();
    for http in BOTH {
        let gateway = Gateway::start(&yard.binary, &table).await?;
        let mut samples = Samples::default();
        for _ in 0..yard.rounds(10, 2) {
            samples.add(freed(&gateway, http, body).await?);
        }
        let name = format!("cancel: connecting{}, {}", words(body), http.name());
        rows.push(Row::new(name, "ms", samples));
    }
    Ok(rows)
}

fn words(body: usize) -> &'static str {
    if body == UNREAD { ", 1 MiB unread" } else { "" }
}

/// A request takes the last place there is, and leaves it: how long until another one gets it.
/// Seen from outside: who asks meanwhile is told `queue-full` at once, and who then gets the
/// place is told nothing.
async fn freed(gateway: &Gateway, http: Http, body: usize) -> io::Result<f64> {
    // Whoever left in the round before is gone by now.
    tokio::time::sleep(ARRIVE).await;
    let mut leaver = Client::connect(http, gateway.address).await?;
    let sent = leaver.send(&Ask::post("/agents/qa/hold", vec![b'x'; body])).await?;
    tokio::time::sleep(ARRIVE).await;
    let mut prober = Client::connect(Http::One, gateway.address).await?;
    if !is_turned_away(&mut prober).await? {
        return Err(io::Error::other("a place was left though one too many had come"));
    }
    let since = Instant::now();
    let _connection = leave(leaver, Stage::Sent(sent));
    loop {
        let asked = since.elapsed();
        if !is_turned_away(&mut prober).await? {
            return Ok(asked.as_secs_f64() * 1e3);
        }
        if asked > NEVER {
            return Err(io::Error::other(format!("{}: never noticed", http.name())));
        }
    }
}

async fn is_turned_away(prober: &mut Client) -> io::Result<bool> {
    let sent = prober.send(&Ask::get("/agents/qa/hold")).await?;
    let Ok(reply) = tokio::time::timeout(ANSWER, prober.reply(sent)).await else {
        return Ok(false);
    };
    let reply = reply?;
    if reply.status != 503 {
        return Err(io::Error::other(format!("answered {}", reply.status)));
    }
    prober.whole(reply).await?;
    Ok(true)
}

/// The agent has the request and has said nothing.
pub(super) async fn before_the_first_byte(yard: &Yard) -> io::Result<Vec<Row>> {
    at_the_agent(yard, "before the first byte", "/hang").await
}

/// The agent has said something and says nothing more.
pub(super) async fn amid_a_stream(yard: &Yard) -> io::Result<Vec<Row>> {
    at_the_agent(yard, "amid a stream", "/hold").await
}

async fn at_the_agent(yard: &Yard, phase: &str, path: &str) -> io::Result<Vec<Row>> {
    let gateway = yard.gateway("").await?;
    let mut rows = Vec::new();
    for http in BOTH {
        let (mut through, mut direct) = (Samples::default(), Samples::default());
        for _ in 0..yard.rounds(40, 5) {
            direct.add(left(yard, Http::One, yard.agent.address, path).await?);
            let mounted = format!("/agents/qa{path}");
            through.add(left(yard, http, gateway.address, &mounted).await?);
        }
        let name = format!("cancel: {phase}, {}", http.name());
        rows.push(Row::new(name, "ms", through).beside(direct));
    }
    Ok(rows)
}

/// From a client's leaving until the agent sees that its connection is closed.
async fn left(yard: &Yard, http: Http, address: SocketAddr, path: &str) -> io::Result<f64> {
    static TAG: AtomicU64 = AtomicU64::new(1);
    let tag = TAG.fetch_add(1, Relaxed);
    let mut client = Client::connect(http, address).await?;
    let sent = client.send(&Ask::post(format!("{path}?tag={tag}"), "{}")).await?;
    yard.agent.begun(tag).await?;
    let stage = if path.ends_with("/hold") {
        let mut reply = client.reply(sent).await?;
        client.piece(&mut reply).await?;
        Stage::Reading(reply)
    } else {
        Stage::Sent(sent)
    };
    let since = Instant::now();
    let _connection = leave(client, stage);
    let seen = tokio::time::timeout(NEVER, yard.agent.left(tag)).await??;
    Ok(seen.saturating_duration_since(since).as_secs_f64() * 1e3)
}

/// A port whose accept queue is full: a connect is neither taken nor refused.
struct Full {
    address: SocketAddr,
    _held: (socket2::Socket, Vec<TcpStream>),
}

impl Full {
    async fn new() -> io::Result<Self> {
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.bind(&any.into())?;
        socket.listen(1)?;
        let address = socket.local_addr()?.as_socket().unwrap_or(any);
        let mut held = Vec::new();
        while let Ok(stream) = tokio::time::timeout(CONNECT, TcpStream::connect(address)).await {
            held.push(stream?);
            if held.len() > QUEUE_MAX {
                return Err(io::Error::other("the accept queue never fills"));
            }
        }
        Ok(Self { address, _held: (socket, held) })
    }
}
