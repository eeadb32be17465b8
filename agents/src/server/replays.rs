//! One answer per `Idempotency-Key`, however often the request comes (draft-ietf-httpapi-idempotency-key-header-07): who
//! comes second waits for the first and is given its answer. Over all replicas where the store is Redis.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::agent::Ask;
use crate::error::Error;
use crate::store::{Away, Store};

/// How long a claim holds without a sign of life from its replica, and how often it gives one.
const LEASE: Duration = Duration::from_secs(10);
const SIGN: Duration = Duration::from_secs(3);
/// How often somebody who waits looks, at first and at last.
const FIRST_LOOK: Duration = Duration::from_millis(20);
const LAST_LOOK: Duration = Duration::from_millis(500);
/// Largest answer that is kept, bytes; a larger one is made anew for who asks again.
const MAX_ANSWER: usize = 1 << 20;
/// Longest key: what Stripe and most that followed it take.
const MAX_KEY: usize = 255;

/// The answers by key.
pub(crate) struct Replays {
    store: Arc<Store>,
    ttl: Duration,
}

/// A request's right to make the answer. Given back when dropped without one.
pub(crate) struct Claim {
    store: Arc<Store>,
    ttl: Duration,
    key: String,
    value: String,
    request: String,
    done: bool,
}

/// What a key stands for.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// A hash of what was asked.
    request: String,
    /// Who works on it; together with `request` it makes a claim unlike any other.
    by: String,
    /// Its reply, once there is one.
    reply: Option<Value>,
}

/// How a request with a key begins.
pub(crate) enum Begun {
    /// It is the first: it does the work.
    First(Claim),
    /// The answer is there.
    Again(Value),
    /// The store is away: the work is done without a claim.
    Unclaimed,
}

impl Replays {
    pub(crate) fn new(store: Arc<Store>, ttl: Duration) -> Self {
        Self { store, ttl }
    }

    /// Claims the key, or waits for who has it; the caller bounds how long.
    ///
    /// # Errors
    /// When the key was used for something else.
    pub(crate) async fn begin(&self, key: &str, ask: &Ask) -> Result<Begun, Error> {
        let key = format!("answer:{}:{key}", ask.agent);
        let request = fingerprint(ask);
        let kept = Kept { request: request.clone(), by: ask.request_id.clone(), reply: None };
        let value = text(&kept);
        let mut look = FIRST_LOOK;
        loop {
            match self.store.claim(&key, &value, LEASE).await {
                Ok(true) => {
                    let (store, ttl) = (Arc::clone(&self.store), self.ttl);
                    return Ok(Begun::First(Claim {
                        store,
                        ttl,
                        key,
                        value,
                        request,
                        done: false,
                    }));
                }
                Ok(false) => {}
                Err(Away) => return Ok(Begun::Unclaimed),
            }
            match self.store.get(&key).await {
                Ok(Some(found)) => {
                    if let Some(reply) = answered(&found, &request)? {
                        return Ok(Begun::Again(reply));
                    }
                }
                // Just given back: claim it.
                Ok(None) => continue,
                Err(Away) => return Ok(Begun::Unclaimed),
            }
            tokio::time::sleep(look).await;
            look = (look * 2).min(LAST_LOOK);
        }
    }
}

impl Claim {
    /// Does the work, and shows meanwhile that somebody does.
    pub(crate) async fn alive<T>(&self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        let mut sign = tokio::time::interval(SIGN);
        loop {
            tokio::select! {
                done = &mut work => return done,
                _ = sign.tick() => {
                    // A store that is away will have forgotten the claim or not: the work goes on either way.
                    let _ = self.store.exchange(&self.key, &self.value, &self.value, LEASE).await;
                }
            }
        }
    }

    /// Keeps the reply for all who come again.
    pub(crate) async fn keep(mut self, reply: &Value) {
        let kept =
            Kept { request: self.request.clone(), by: String::new(), reply: Some(reply.clone()) };
        let text = text(&kept);
        if text.len() <= MAX_ANSWER {
            let kept = self.store.exchange(&self.key, &self.value, &text, self.ttl).await;
            self.done = kept.is_ok();
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let (store, key, value) = (
            Arc::clone(&self.store),
            std::mem::take(&mut self.key),
            std::mem::take(&mut self.value),
        );
        // Without a runtime the process is ending: the lease ends by itself.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let _ = store.release(&key, &value).await;
            });
        }
    }
}

/// A key as a client may name it: printable ASCII, quoted or not.
///
/// # Errors
/// Says what a key is.
pub(crate) fn key(header: &str) -> Result<&str, Error> {
    let inner = header.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(header);
    let printable = inner.bytes().all(|byte| (0x21..=0x7e).contains(&byte) && byte != b'"');
    if (1..=MAX_KEY).contains(&inner.len()) && printable {
        Ok(inner)
    } else {
        Err(Error::BadRequest(format!(
            "Idempotency-Key is not 1 to {MAX_KEY} printable characters without spaces"
        )))
    }
}

/// The reply in a stored text; none while it is being made, or when another version wrote the text.
fn answered(found: &str, request: &str) -> Result<Option<Value>, Error> {
    let Ok(kept) = serde_json::from_str::<Kept>(found) else { return Ok(None) };
    if kept.request != request {
        return Err(Error::KeyReused);
    }
    Ok(kept.reply)
}

fn text(kept: &Kept) -> String {
    serde_json::to_string(kept).expect("strings and JSON become JSON")
}

/// What has to be the same for a request to be the same.
fn fingerprint(ask: &Ask) -> String {
    let schema = ask.schema.as_ref().map(Value::to_string);
    let parts = [
        ask.input.as_str(),
        ask.session_id.as_deref().unwrap_or_default(),
        schema.as_deref().unwrap_or_default(),
    ];
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_printable_and_bounded() {
        assert_eq!(key("abc-1").unwrap(), "abc-1");
        assert_eq!(key("\"abc\"").unwrap(), "abc", "the draft's form is a quoted string");
        for wrong in ["", "\"\"", "a b", "a\tb", "ä", &"x".repeat(256)] {
            assert!(key(wrong).is_err(), "{wrong}");
        }
    }
}
