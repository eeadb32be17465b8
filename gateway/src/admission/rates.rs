//! Limits on what a caller may ask for: requests and bytes in a window, and requests at once.
//!
//! Windows are sliding ones, by the generic cell rate algorithm (ITU-T I.371): one atomic number each.
//! This gateway counts its part of every limit by itself. A store that gateways share (Redis) would take
//! the place of [`take`], which is the only place where anything is counted.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use smallvec::SmallVec;

use crate::body::Source;
use crate::error::{Code, Error};
use crate::pool::now_ms;

/// What one caller has used of a [`config::Rate`].
#[derive(Debug, Default)]
pub struct Used {
    /// When all of the window's requests would be there again, nanoseconds.
    requests: AtomicU64,
    /// Likewise of the bytes.
    bytes: AtomicU64,
    /// Requests at once.
    concurrent: AtomicU32,
}

/// This gateway's part of what all gateways share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// How many share.
    pub gateways: u32,
    /// This one's place in their order, from 0.
    pub rank: u32,
}

impl Default for Part {
    fn default() -> Self {
        Self { gateways: 1, rank: 0 }
    }
}

impl Part {
    /// Of a limit: at least one.
    #[must_use]
    pub fn of(self, limit: u64) -> u64 {
        let gateways = u64::from(self.gateways.max(1));
        (limit / gateways + u64::from(u64::from(self.rank) < limit % gateways)).max(1)
    }
}

/// Whose limit it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// A tenant's, over all agents.
    Tenant,
    /// An agent's, for each tenant.
    Agent,
}

impl Scope {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Agent => "agent",
        }
    }
}

/// One limit and what was used of it.
#[derive(Debug, Clone)]
pub struct Limit {
    /// Whose it is.
    pub scope: Scope,
    /// The limit.
    pub rate: config::Rate,
    /// What was used.
    pub used: Arc<Used>,
}

/// A request's limits: few.
pub type Limits = SmallVec<[Limit; 2]>;

impl Used {
    /// Whether nothing is counted any more.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        let now = now_ns();
        let past = |at: &AtomicU64| at.load(Relaxed) <= now;
        past(&self.requests) && past(&self.bytes) && self.concurrent.load(Relaxed) == 0
    }
}

/// What was taken for a request; what it holds is given back by being dropped.
pub struct Granted {
    limits: Limits,
    part: Part,
    /// Bytes that were counted for its body.
    counted: u64,
    /// The body, where its length wasn't known.
    source: Option<Source>,
}

impl Drop for Granted {
    fn drop(&mut self) {
        let received = self.source.as_ref().map_or(0, Source::received);
        for Limit { rate, used, .. } in &self.limits {
            if rate.concurrent.is_some() {
                used.concurrent.fetch_sub(1, Relaxed);
            }
            if let Some(bytes) = rate.bytes {
                let cost = cost(received.saturating_sub(self.counted), self.part.of(bytes), rate);
                advance(&used.bytes, now_ns(), cost);
            }
        }
    }
}

/// The values of `RateLimit-Policy` and `RateLimit`
/// (draft-ietf-httpapi-ratelimit-headers-10, sections 3 and 4).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// The limits, over all gateways.
    pub policy: String,
    /// What is left of them at this gateway.
    pub left: String,
}

/// What `take` says of a request.
pub type Taken = Result<Granted, Error>;

/// Takes what a request with this body uses, of every limit or of none; and what its client is told.
pub fn take(limits: &Limits, source: &Source, part: Part) -> (Taken, Told) {
    let now = now_ns();
    let length = source.length();
    let counted = length.unwrap_or_else(|| source.received());
    let mut granted = Granted { limits: Limits::new(), part, counted, source: None };
    let mut refused = None;
    for limit in limits {
        match try_one(limit, counted, part, now) {
            Ok(()) => granted.limits.push(limit.clone()),
            Err(why) => {
                refused = Some(why);
                break;
            }
        }
    }
    if refused.is_some() {
        // What was taken of the others before is given back, all of it.
        for Limit { rate, used, .. } in &granted.limits {
            give_back(&used.requests, rate.requests.map(|n| cost(1, part.of(n), rate)));
            give_back(&used.bytes, rate.bytes.map(|n| cost(counted, part.of(n), rate)));
        }
    } else if length.is_none() {
        granted.source = Some(source.clone());
    }
    let told = told(limits, part, now);
    match refused {
        None => (Ok(granted), told),
        Some(error) => (Err(error), told),
    }
}

/// Takes a request's part of one limit, or nothing.
fn try_one(limit: &Limit, body: u64, part: Part, now: u64) -> Result<(), Error> {
    let Limit { scope, rate, used } = limit;
    if let Some(most) = rate.concurrent {
        let most = part.of(u64::from(most));
        let free = |n: u32| (u64::from(n) < most).then(|| n + 1);
        if used.concurrent.fetch_update(Relaxed, Relaxed, free).is_err() {
            let whole = rate.concurrent.unwrap_or_default();
            let text = format!("{whole} requests at once");
            return Err(refusal(*scope, &text, Duration::from_secs(1)));
        }
    }
    let held = || rate.concurrent.map(|_| used.concurrent.fetch_sub(1, Relaxed));
    if let Some(bytes) = rate.bytes {
        // What is larger than what is left is taken, too: it only has to be the next one's turn.
        if let Err(wait) =
            take_cells(&used.bytes, now, cost(body, part.of(bytes), rate), rate, true)
        {
            held();
            let text = format!("{bytes} bytes of bodies in {:?}", rate.window);
            return Err(refusal(*scope, &text, wait));
        }
    }
    if let Some(requests) = rate.requests
        && let Err(wait) =
            take_cells(&used.requests, now, cost(1, part.of(requests), rate), rate, false)
    {
        held();
        give_back(&used.bytes, rate.bytes.map(|n| cost(body, part.of(n), rate)));
        let text = format!("{requests} requests in {:?}", rate.window);
        return Err(refusal(*scope, &text, wait));
    }
    Ok(())
}

fn refusal(scope: Scope, limit: &str, wait: Duration) -> Error {
    let whose = match scope {
        Scope::Tenant => "this tenant may ask all agents together for",
        Scope::Agent => "a caller may ask this agent for",
    };
    let text = format!("{whose} {limit}; come back as `Retry-After` says");
    Error::new(Code::RateLimited, text).retry_after(wait)
}

/// Moves the moment at which all is there again, unless it is a window or more away; `any`: also where
/// this moves it further than that. Or how long it takes until there is enough.
fn take_cells(
    at: &AtomicU64,
    now: u64,
    cost: u64,
    rate: &config::Rate,
    any: bool,
) -> Result<(), Duration> {
    let window = nanos(rate);
    let moved = |full: u64| {
        let next = full.max(now).saturating_add(cost);
        let fits = if any { full.max(now) - now < window } else { next - now <= window };
        fits.then_some(next)
    };
    at.fetch_update(Relaxed, Relaxed, moved).map(drop).map_err(|full| {
        let needed = if any { 1 } else { cost };
        Duration::from_nanos((full.max(now) - now).saturating_add(needed).saturating_sub(window))
    })
}

/// Counts what has been used already.
fn advance(at: &AtomicU64, now: u64, cost: u64) {
    let _ = at.fetch_update(Relaxed, Relaxed, |full| Some(full.max(now).saturating_add(cost)));
}

fn give_back(at: &AtomicU64, cost: Option<u64>) {
    let Some(cost) = cost else { return };
    let _ = at.fetch_update(Relaxed, Relaxed, |full| Some(full.saturating_sub(cost)));
}

/// How long it takes until so many of `limit` in a window are there again, nanoseconds.
fn cost(n: u64, limit: u64, rate: &config::Rate) -> u64 {
    u64::try_from(u128::from(n) * u128::from(nanos(rate)) / u128::from(limit.max(1)))
        .unwrap_or(u64::MAX)
}

fn nanos(rate: &config::Rate) -> u64 {
    u64::try_from(rate.window.as_nanos()).unwrap_or(u64::MAX)
}

fn now_ns() -> u64 {
    now_ms().saturating_mul(1_000_000)
}

fn told(limits: &Limits, part: Part, now: u64) -> Told {
    let mut told = Told::default();
    for Limit { scope, rate, used } in limits {
        let window = nanos(rate);
        let seconds = rate.window.as_secs();
        let left = |at: &AtomicU64, limit: u64| {
            let until_full = at.load(Relaxed).saturating_sub(now).min(window);
            let here = u128::from(part.of(limit));
            let left = here * u128::from(window - until_full) / u128::from(window.max(1));
            (left as u64, until_full.div_ceil(1_000_000_000))
        };
        if let Some(limit) = rate.requests {
            let (left, reset) = left(&used.requests, limit);
            let name = format_args!("\"{}-requests\"", scope.as_str());
            add(
                &mut told,
                format_args!("{name};q={limit};w={seconds}"),
                format_args!("{name};r={left};t={reset}"),
            );
        }
        if let Some(limit) = rate.bytes {
            let (left, reset) = left(&used.bytes, limit);
            let name = format_args!("\"{}-bytes\"", scope.as_str());
            add(
                &mut told,
                format_args!("{name};q={limit};qu=\"content-bytes\";w={seconds}"),
                format_args!("{name};r={left};t={reset}"),
            );
        }
        if let Some(limit) = rate.concurrent {
            let here = part.of(u64::from(limit));
            let left = here.saturating_sub(u64::from(used.concurrent.load(Relaxed)));
            let name = format_args!("\"{}-concurrent\"", scope.as_str());
            add(
                &mut told,
                format_args!("{name};q={limit};qu=\"concurrent-requests\""),
                format_args!("{name};r={left}"),
            );
        }
    }
    told
}

fn add(told: &mut Told, policy: std::fmt::Arguments<'_>, left: std::fmt::Arguments<'_>) {
    for (text, item) in [(&mut told.policy, policy), (&mut told.left, left)] {
        let comma = if text.is_empty() { "" } else { ", " };
        write!(text, "{comma}{item}").expect("a String takes all");
    }
}

#[cfg(test)]
mod tests;
