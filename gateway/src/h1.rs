//! HTTP/1.1 on the wire, the same for both sides of the gateway: heads read and written, bodies
//! framed and unframed, and what a connection holds of either. No clocks, no pools, no decisions
//! about requests.
//!
//! RFC 9112, strictly: whatever two readers could take for two different messages is refused.
//! A connection on which nothing is under way holds no bytes ([`inbox`], [`outbox`]).

pub mod chunked;
pub mod decode;
pub mod encode;
pub mod head;
pub mod inbox;
pub mod outbox;
pub mod upload;
pub mod write;

#[cfg(test)]
mod tests;

pub use self::decode::{Decoder, Malformed};
pub use self::encode::Encoder;
pub use self::head::{Framing, Read, Refused};
pub use self::inbox::{BodyError, HeadError, Inbox};
pub use self::outbox::Outbox;
