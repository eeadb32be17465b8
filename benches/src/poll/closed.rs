//! A closed loop: every connection asks again as soon as it is answered.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::reply::Reply;
use super::{Poll, READ, connect, receive, send};

/// Kept-alive connections, and the requests that they ask in turn.
pub struct Closed {
    connections: Vec<(TcpStream, Reply)>,
    requests: Vec<Vec<u8>>,
    asked: usize,
    poll: Poll,
    buffer: Vec<u8>,
}

impl Closed {
    /// Opens `n` connections.
    ///
    /// # Errors
    /// When a connection is refused.
    pub fn open(address: SocketAddr, n: usize, requests: Vec<Vec<u8>>) -> io::Result<Self> {
        let (poll, mut connections) = (Poll::new()?, Vec::with_capacity(n));
        for token in 0..n {
            let stream = connect(address)?;
            poll.add(&stream, token)?;
            connections.push((stream, Reply::default()));
        }
        Ok(Self { connections, requests, asked: 0, poll, buffer: vec![0; READ] })
    }

    /// Asks for so long, then waits for the last answers. Returns how many there were.
    ///
    /// # Errors
    /// When an answer isn't a 200, or a connection ends.
    pub fn run(&mut self, time: Duration) -> io::Result<usize> {
        let due = Instant::now() + time;
        for token in 0..self.connections.len() {
            self.ask(token)?;
        }
        let (mut open, mut answered) = (self.connections.len(), 0);
        while open > 0 {
            let again = Instant::now() < due;
            for token in self.poll.wait()? {
                if !self.answered(token)? {
                    continue;
                }
                answered += 1;
                if again { self.ask(token)? } else { open -= 1 }
            }
        }
        Ok(answered)
    }

    fn ask(&mut self, token: usize) -> io::Result<()> {
        let request = &self.requests[self.asked % self.requests.len()];
        self.asked += 1;
        send(&self.connections[token].0, request)
    }

    fn answered(&mut self, token: usize) -> io::Result<bool> {
        let (stream, reply) = &mut self.connections[token];
        match receive(stream, &mut self.buffer)? {
            Some(data) => reply.feed(data),
            None => Ok(false),
        }
    }
}
