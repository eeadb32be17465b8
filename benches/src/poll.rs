//! Load with as little work of its own as possible: one thread, `epoll`, plain sockets, requests
//! that were made before. Closed loops, open loops, event streams and large bodies over HTTP/1.1.

mod closed;
mod open;
mod reply;
mod streams;
mod transfer;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::time::Timespec;

pub use self::closed::Closed;
pub use self::open::open_loop;
pub use self::streams::Streams;
pub use self::transfer::transfer;

/// Events of one wait.
const EVENTS: usize = 256;
/// What one read takes: more than any reply of the loops.
const READ: usize = 64 * 1024;
/// A proxy that says nothing for so long hangs.
const SILENCE: Duration = Duration::from_secs(10);

/// Sockets that are waited for.
struct Poll {
    epoll: OwnedFd,
    events: Vec<Event>,
}

impl Poll {
    fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, events: Vec::with_capacity(EVENTS) })
    }

    /// Says from now on when there is something to read.
    fn add(&self, source: impl AsFd, token: usize) -> io::Result<()> {
        let data = EventData::new_u64(token as u64);
        Ok(epoll::add(&self.epoll, source, data, EventFlags::IN | EventFlags::RDHUP)?)
    }

    /// Waits until something can be read, which has to be soon; the tokens of what can.
    fn wait(&mut self) -> io::Result<Vec<usize>> {
        match self.wait_at_most(SILENCE)? {
            ready if ready.is_empty() => Err(ErrorKind::TimedOut.into()),
            ready => Ok(ready),
        }
    }

    /// Waits so long at most.
    fn wait_at_most(&mut self, time: Duration) -> io::Result<Vec<usize>> {
        self.events.clear();
        let timeout = Timespec::try_from(time).map_err(io::Error::other)?;
        let events = rustix::buffer::spare_capacity(&mut self.events);
        match epoll::wait(&self.epoll, events, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(self.events.iter().map(|event| event.data.u64() as usize).collect())
    }
}

/// A connection that never blocks once it is there.
fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// Writes a request, which an idle connection's socket takes whole.
fn send(mut stream: &TcpStream, request: &[u8]) -> io::Result<()> {
    match stream.write(request)? {
        n if n == request.len() => Ok(()),
        n => Err(io::Error::other(format!("the socket took {n} of {} bytes", request.len()))),
    }
}

/// Reads what is there; `None` when nothing is.
fn receive<'a>(mut stream: &TcpStream, buffer: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
    match stream.read(buffer) {
        Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
        Ok(n) => Ok(Some(&buffer[..n])),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}
