//! An open loop: requests at a fixed rate, whether or not those before are answered. Each one's
//! time is counted from when it was due, not from when a connection was free for it, so that a
//! proxy that stalls is charged with all that should have been asked meanwhile (the correction for
//! coordinated omission).

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use super::reply::Reply;
use super::{Poll, READ, connect, receive, send};

/// The token of the timer; connections have those below.
const TIMER: usize = usize::MAX;

/// Asks `n` requests, one every `gap`, over at most `connections` connections. How long each took,
/// in microseconds, from when it was due until its reply was read whole.
///
/// # Errors
/// When an answer isn't a 200, or a connection ends.
pub fn open_loop(
    address: SocketAddr,
    connections: usize,
    request: &[u8],
    gap: Duration,
    n: usize,
) -> io::Result<Vec<f64>> {
    let mut open = Open::new(address, connections, request)?;
    let (timer, mut took) = (timer(gap)?, Vec::with_capacity(n));
    open.poll.add(&timer, TIMER)?;
    let first = Instant::now() + gap;
    let mut scheduled = 0;
    while took.len() < n {
        for token in open.poll.wait()? {
            match token {
                TIMER => clear(&timer)?,
                token => took.extend(open.answered(token)?),
            }
        }
        while scheduled < n && first + gap * scheduled as u32 <= Instant::now() {
            open.due.push_back(first + gap * scheduled as u32);
            scheduled += 1;
        }
        open.ask()?;
    }
    Ok(took)
}

struct Open<'a> {
    request: &'a [u8],
    connections: Vec<Connection>,
    idle: Vec<usize>,
    /// When the requests that no connection has taken yet were due.
    due: VecDeque<Instant>,
    poll: Poll,
    buffer: Vec<u8>,
}

struct Connection {
    stream: TcpStream,
    reply: Reply,
    due: Instant,
}

impl<'a> Open<'a> {
    fn new(address: SocketAddr, n: usize, request: &'a [u8]) -> io::Result<Self> {
        let (poll, mut connections) = (Poll::new()?, Vec::with_capacity(n));
        for token in 0..n {
            let stream = connect(address)?;
            poll.add(&stream, token)?;
            connections.push(Connection { stream, reply: Reply::default(), due: Instant::now() });
        }
        let (idle, due) = ((0..n).collect(), VecDeque::new());
        Ok(Self { request, connections, idle, due, poll, buffer: vec![0; READ] })
    }

    /// Sends what is due, as far as connections are idle.
    fn ask(&mut self) -> io::Result<()> {
        while !self.due.is_empty() {
            let Some(token) = self.idle.pop() else { return Ok(()) };
            let connection = &mut self.connections[token];
            connection.due = self.due.pop_front().unwrap_or_else(Instant::now);
            send(&connection.stream, self.request)?;
        }
        Ok(())
    }

    /// Reads on; how many microseconds the request took, when this ends its reply.
    fn answered(&mut self, token: usize) -> io::Result<Option<f64>> {
        let connection = &mut self.connections[token];
        let Some(data) = receive(&connection.stream, &mut self.buffer)? else { return Ok(None) };
        if !connection.reply.feed(data)? {
            return Ok(None);
        }
        self.idle.push(token);
        Ok(Some(connection.due.elapsed().as_secs_f64() * 1e6))
    }
}

/// Ticks every `gap`, to the nanosecond: `epoll` itself waits whole milliseconds.
fn timer(gap: Duration) -> io::Result<OwnedFd> {
    let gap = Timespec::try_from(gap).map_err(io::Error::other)?;
    let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK)?;
    let every = Itimerspec { it_interval: gap, it_value: gap };
    timerfd_settime(&timer, TimerfdTimerFlags::empty(), &every)?;
    Ok(timer)
}

fn clear(timer: &OwnedFd) -> io::Result<()> {
    match rustix::io::read(timer, &mut [0; 8]) {
        Ok(_) | Err(rustix::io::Errno::AGAIN) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
