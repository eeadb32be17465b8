//! How gateways know each other: HMAC-SHA256 (RFC 2104) over what is asked and what is answered,
//! with one key that they share.
//!
//! Who asks proves that it has the key, now; the answer proves it too, and that it is the answer to
//! this very question. So neither a stranger's question nor a foreign server at an address that a
//! gateway once had is believed.

use hmac::{Hmac, Mac};
use sha2::Sha256;

/// Shorter keys could be guessed.
const KEY_MIN: usize = 16;
/// How far the clocks of two machines may be apart, and how long a question that somebody has
/// overheard can be asked again, milliseconds.
const CLOCKS_APART_MS: u64 = 30_000;
/// The scheme of `Authorization`.
const SCHEME: &str = "Switchyard-Peer ";
/// What each MAC begins with, so that none can stand for another.
const ASK: &str = "switchyard ask 1";
const ANSWER: &str = "switchyard answer 1";

/// The key that the gateways of one cluster share.
#[derive(Clone)]
pub(super) struct Key(Hmac<Sha256>);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(…)")
    }
}

/// A question that is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question {
    /// Who asks.
    pub(super) instance: String,
    /// When, in milliseconds since 1970, by its own clock.
    pub(super) time_ms: u64,
    /// What tells it from others.
    pub(super) nonce: String,
}

/// Why a question isn't answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nothing says who asks, or the key is another.
    #[error("only the other gateways of the cluster may ask this")]
    Stranger,
    /// The right key, at another time.
    #[error("the question's time is too far from this machine's clock")]
    Clock,
    /// This gateway has no key to tell others by.
    #[error("this gateway has no key by which it could know others")]
    NoKey,
}

impl Key {
    /// `None`: it is too short to be safe.
    pub(super) fn new(bytes: &[u8]) -> Option<Self> {
        let mac = (bytes.len() >= KEY_MIN).then(|| Hmac::new_from_slice(bytes));
        Some(Self(mac?.expect("HMAC takes keys of any length")))
    }

    fn mac(&self, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        for part in parts {
            // With the length in front: parts can't run into each other.
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac
    }

    fn of_question(&self, question: &Question) -> Hmac<Sha256> {
        let Question { instance, time_ms, nonce } = question;
        let time = time_ms.to_be_bytes();
        self.mac(&[ASK.as_bytes(), instance.as_bytes(), &time, nonce.as_bytes()])
    }

    /// The value of `Authorization` that goes with a question.
    pub(super) fn sign(&self, question: &Question) -> String {
        let mac = hex(&self.of_question(question).finalize().into_bytes());
        let Question { instance, time_ms, nonce } = question;
        format!("{SCHEME}{instance}.{time_ms}.{nonce}.{mac}")
    }

    /// Who asks, by the value of `Authorization`.
    pub(super) fn judge(&self, value: &str, now_ms: u64) -> Result<Question, Refusal> {
        let parts: Vec<_> = value.strip_prefix(SCHEME).unwrap_or_default().split('.').collect();
        let &[instance, time_ms, nonce, mac] = parts.as_slice() else {
            return Err(Refusal::Stranger);
        };
        let time_ms = time_ms.parse().map_err(|_| Refusal::Stranger)?;
        let question = Question { instance: instance.into(), time_ms, nonce: nonce.into() };
        let mac = unhex(mac).ok_or(Refusal::Stranger)?;
        // In constant time.
        self.of_question(&question).verify_slice(&mac).map_err(|_| Refusal::Stranger)?;
        match now_ms.abs_diff(time_ms) <= CLOCKS_APART_MS {
            true => Ok(question),
            false => Err(Refusal::Clock),
        }
    }

    /// What proves that this body answers the question with that nonce.
    pub(super) fn seal(&self, nonce: &str, body: &[u8]) -> String {
        hex(&self.mac(&[ANSWER.as_bytes(), nonce.as_bytes(), body]).finalize().into_bytes())
    }

    /// Whether it does.
    pub(super) fn unseals(&self, nonce: &str, body: &[u8], seal: &[u8]) -> bool {
        let seal = std::str::from_utf8(seal).ok().and_then(unhex);
        let mac = self.mac(&[ANSWER.as_bytes(), nonce.as_bytes(), body]);
        seal.is_some_and(|seal| mac.verify_slice(&seal).is_ok())
    }
}

/// Lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let value = |digit: u8| char::from(digit).to_digit(16).map(|value| value as u8);
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    let byte = |[high, low]: &[u8; 2]| Some(value(*high)? << 4 | value(*low)?);
    if rest.is_empty() { pairs.iter().map(byte).collect() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        Key::new(text.as_bytes()).expect("long enough")
    }

    fn question() -> Question {
        Question { instance: "a1".into(), time_ms: 1_000_000, nonce: "b2".into() }
    }

    #[test]
    fn only_who_has_the_key_is_answered_and_only_now() {
        let (ours, theirs) = (key("0123456789abcdef"), key("0123456789abcdeX"));
        let signed = ours.sign(&question());
        assert_eq!(ours.judge(&signed, 1_000_000), Ok(question()));
        assert_eq!(ours.judge(&signed, 970_000), Ok(question()));
        assert_eq!(ours.judge(&signed, 1_030_001), Err(Refusal::Clock));
        assert_eq!(theirs.judge(&signed, 1_000_000), Err(Refusal::Stranger));
        for forged in [
            signed.replace("1000000", "1000001"),
            signed.replace("a1.", "a2."),
            signed.replace(".b2.", ".b3."),
            signed[..signed.len() - 2].to_owned(),
            signed.replace("Switchyard-Peer ", "Bearer "),
            format!("{signed}.x"),
            String::new(),
        ] {
            assert_eq!(ours.judge(&forged, 1_000_000), Err(Refusal::Stranger), "{forged}");
        }
    }

    #[test]
    fn an_answer_is_for_one_question_and_one_body() {
        let key = key("0123456789abcdef");
        let seal = key.seal("n", b"body");
        assert!(key.unseals("n", b"body", seal.as_bytes()));
        assert!(!key.unseals("m", b"body", seal.as_bytes()));
        assert!(!key.unseals("n", b"other", seal.as_bytes()));
        assert!(!key.unseals("nb", b"ody", seal.as_bytes()));
        assert!(!key.unseals("n", b"body", b"no digits"));
        assert!(!key.unseals("n", b"body", b""));
    }

    #[test]
    fn a_key_is_neither_short_nor_shown() {
        assert!(Key::new(b"0123456789abcde").is_none());
        assert!(!format!("{:?}", key("0123456789abcdef")).contains('0'));
    }
}
