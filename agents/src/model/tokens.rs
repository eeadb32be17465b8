//! How many tokens a text is. Every model counts otherwise, so this is an estimate that the server's own counts correct.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;

/// Bytes a token before a server has counted, in thousandths: less than English has (about 4), so that the first
/// estimate is rather too high.
const FIRST: u64 = 3_000;
/// What is believed of a server's count: from a token a byte to one for eight.
const LEAST: u64 = 1_000;
const MOST: u64 = 8_000;
/// Shorter prompts say little: the template's own tokens outweigh them.
const WORTH_COUNTING: u64 = 256;

/// An estimate that learns. Requests share it.
#[derive(Debug)]
pub(crate) struct Tokens {
    bytes_in_thousandths: AtomicU64,
}

impl Default for Tokens {
    fn default() -> Self {
        Self { bytes_in_thousandths: AtomicU64::new(FIRST) }
    }
}

impl Tokens {
    /// About how many tokens so many bytes are, rounded up.
    pub(crate) fn in_bytes(&self, bytes: usize) -> u64 {
        (bytes as u64 * 1_000).div_ceil(self.bytes_in_thousandths.load(Ordering::Relaxed))
    }

    /// A server counted `tokens` in `bytes`: moves a quarter of the way there.
    pub(crate) fn counted(&self, tokens: u64, bytes: usize) {
        if tokens < WORTH_COUNTING {
            return;
        }
        let seen = (bytes as u64 * 1_000 / tokens).clamp(LEAST, MOST);
        let old = self.bytes_in_thousandths.load(Ordering::Relaxed);
        self.bytes_in_thousandths.store((3 * old + seen) / 4, Ordering::Relaxed);
    }
}

/// The bytes of what a model reads of a message: its texts, and a little for the template.
pub(crate) fn bytes(message: &Value) -> usize {
    const TEMPLATE: usize = 16;
    let calls = message["tool_calls"].as_array().map_or(&[][..], Vec::as_slice).iter();
    let calls = calls.map(|call| {
        let function = &call["function"];
        text(&function["name"]) + text(&function["arguments"]) + TEMPLATE
    });
    TEMPLATE + text(&message["content"]) + calls.sum::<usize>()
}

fn text(value: &Value) -> usize {
    value.as_str().map_or(0, str::len)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_estimate_comes_near_to_what_a_server_counts() {
        let tokens = Tokens::default();
        assert_eq!(tokens.in_bytes(3_000), 1_000);
        for _ in 0..20 {
            tokens.counted(1_000, 5_000);
        }
        assert!((990..=1_010).contains(&tokens.in_bytes(5_000)));
        for _ in 0..20 {
            tokens.counted(1_000_000, 1);
        }
        assert!(tokens.in_bytes(1_000) <= 1_000, "nonsense is believed only so far");
    }

    #[test]
    fn a_message_is_as_long_as_what_is_read_of_it() {
        assert_eq!(bytes(&json!({"role": "user", "content": "12345678"})), 24);
        let call = json!({"content": null, "tool_calls": [{"function": {"name": "run", "arguments": "{}"}}]});
        assert_eq!(bytes(&call), 37);
    }
}
