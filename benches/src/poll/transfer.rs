//! Large bodies, one after the other over one connection.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::SILENCE;
use super::reply::Reply;

/// What one read takes.
const PIECE: usize = 256 * 1024;

/// Asks the same request `n` times and reads every reply to its end.
///
/// # Errors
/// When an answer isn't a 200, or nothing moves for a while.
pub fn transfer(address: SocketAddr, request: &[u8], n: usize) -> io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    let mut buffer = vec![0; PIECE];
    for _ in 0..n {
        stream.write_all(request)?;
        let mut reply = Reply::default();
        loop {
            let read = stream.read(&mut buffer)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if reply.feed(&buffer[..read])? {
                break;
            }
        }
    }
    Ok(())
}
