//! Event streams that are open at once, a connection each.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::{Poll, READ, SILENCE, connect, receive, send};

/// Open streams, each of which has had its head and its first event.
pub struct Streams {
    streams: Vec<Stream>,
    poll: Poll,
    buffer: Vec<u8>,
}

struct Stream {
    stream: TcpStream,
    /// The last byte read: a blank line, which ends an event, may come in two pieces.
    last: u8,
    events: usize,
}

impl Streams {
    /// Opens `n` streams, and waits for the first event of each.
    ///
    /// # Errors
    /// When one is refused, or ends.
    pub fn open(address: SocketAddr, n: usize, request: &[u8]) -> io::Result<Self> {
        let (poll, mut streams) = (Poll::new()?, Vec::with_capacity(n));
        for token in 0..n {
            let stream = connect(address)?;
            poll.add(&stream, token)?;
            send(&stream, request)?;
            streams.push(Stream { stream, last: 0, events: 0 });
        }
        let mut open = Self { streams, poll, buffer: vec![0; READ] };
        let due = Instant::now() + SILENCE;
        while open.streams.iter().any(|stream| stream.events == 0) {
            open.read(SILENCE)?;
            if Instant::now() > due {
                return Err(io::Error::other("not all streams have begun"));
            }
        }
        Ok(open)
    }

    /// Reads for so long; how many events there were.
    ///
    /// # Errors
    /// When a stream ends.
    pub fn run(&mut self, time: Duration) -> io::Result<usize> {
        let (due, mut events) = (Instant::now() + time, 0);
        loop {
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(events);
            }
            events += self.read(left)?;
        }
    }

    fn read(&mut self, time: Duration) -> io::Result<usize> {
        let mut events = 0;
        for token in self.poll.wait_at_most(time)? {
            let stream = &mut self.streams[token];
            let Some(data) = receive(&stream.stream, &mut self.buffer)? else { continue };
            let ended = blank_lines(&mut stream.last, data);
            stream.events += ended;
            events += ended;
        }
        Ok(events)
    }
}

/// How many LF LF there are. Heads and chunks' sizes end their lines with CR LF, so these are the
/// ends of events, however they are cut into chunks.
fn blank_lines(last: &mut u8, data: &[u8]) -> usize {
    let mut found = 0;
    for at in memchr::memchr_iter(b'\n', data) {
        let before = if at == 0 { *last } else { data[at - 1] };
        found += usize::from(before == b'\n');
    }
    *last = data.last().copied().unwrap_or(*last);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_counted_however_they_are_cut() {
        let stream = b"HTTP/1.1 200 OK\r\n\r\n9\r\ndata: 1\n\n\r\n9\r\ndata: 2\n\n\r\n";
        for cut in 0..stream.len() {
            let (mut last, (one, other)) = (0, stream.split_at(cut));
            let events = blank_lines(&mut last, one) + blank_lines(&mut last, other);
            assert_eq!(events, 2, "cut at {cut}");
        }
    }
}
