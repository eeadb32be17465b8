//! A reply as it comes in: a 200 with a length, which is all that the loops ask for.

use std::io;

use memchr::memmem;

/// No head of a proxy's is longer.
const HEAD_MAX: usize = 16 * 1024;

/// How far a reply has been read.
#[derive(Default)]
pub(super) struct Reply {
    /// What of the head is there, while it isn't whole.
    head: Vec<u8>,
    /// What of the body is to come, once the head is whole.
    left: Option<usize>,
}

impl Reply {
    /// Reads on; whether the reply ends with this.
    pub(super) fn feed(&mut self, data: &[u8]) -> io::Result<bool> {
        let left = match self.left {
            Some(left) => left.checked_sub(data.len()),
            None if self.head.is_empty() => self.begin(data)?,
            None => {
                let mut whole = std::mem::take(&mut self.head);
                whole.extend_from_slice(data);
                self.begin(&whole)?
            }
        };
        let Some(left) = left else {
            return Err(io::Error::other("more came than the reply's length says"));
        };
        self.left = (left > 0).then_some(left);
        Ok(left == 0 && self.head.is_empty())
    }

    /// Reads a reply's beginning: what is left of its body, or an arbitrary number and the head so
    /// far kept. `None` when there is too much.
    fn begin(&mut self, data: &[u8]) -> io::Result<Option<usize>> {
        let Some(end) = memmem::find(data, b"\r\n\r\n") else {
            self.head.extend_from_slice(data);
            if data.len() > HEAD_MAX {
                return Err(io::Error::other("a head without an end"));
            }
            return Ok(Some(0));
        };
        Ok(length(&data[..end])?.checked_sub(data.len() - end - 4))
    }
}

/// The body's length by the head.
fn length(head: &[u8]) -> io::Result<usize> {
    let mut lines = head.split(|&byte| byte == b'\n');
    let first = lines.next().unwrap_or_default();
    if !first.starts_with(b"HTTP/1.1 200 ") {
        return Err(io::Error::other(format!("answered {:?}", String::from_utf8_lossy(first))));
    }
    let value = lines.find_map(|line| {
        let (name, value) = line.split_at_checked("content-length:".len())?;
        name.eq_ignore_ascii_case(b"content-length:").then_some(value)
    });
    let value = value.and_then(|value| str::from_utf8(value.trim_ascii()).ok()?.parse().ok());
    value.ok_or_else(|| io::Error::other("a reply without a length"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLY: &[u8] = b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 5\r\n\r\nhello";

    #[test]
    fn a_reply_may_come_in_any_pieces() {
        for cut in 1..REPLY.len() {
            let mut reply = Reply::default();
            assert!(!reply.feed(&REPLY[..cut]).unwrap(), "cut at {cut}");
            assert!(reply.feed(&REPLY[cut..]).unwrap(), "cut at {cut}");
            assert!(reply.feed(REPLY).unwrap(), "the next one, after a cut at {cut}");
        }
    }

    #[test]
    fn what_is_no_plain_200_is_an_error() {
        for reply in [
            "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nxy",
        ] {
            assert!(Reply::default().feed(reply.as_bytes()).is_err(), "{reply}");
        }
    }
}
