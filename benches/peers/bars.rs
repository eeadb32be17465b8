//! The bars: what a row has to come to, and what it should reach for. They are those of the issue
//! that asked for speed.

use benches::stats::{Estimate, median, ratios};

/// What a row is held to.
#[derive(Clone, Copy)]
pub(crate) enum Bar {
    /// Nothing; it is there to be read.
    None,
    /// So many times what every peer of these families has, at most.
    Peers { families: &'static [&'static str], met: f64, reach: f64 },
    /// The row's own value, at most.
    Own { met: f64, reach: f64 },
}

/// How a row stands to its bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Reached,
    Met,
    Missed,
}

pub(crate) const HAPROXY: &[&str] = &["haproxy"];
pub(crate) const NGINX_AND_HAPROXY: &[&str] = &["nginx", "haproxy"];

impl Bar {
    /// How these values stand; `None` where there is no bar, or nothing to hold it to. The first
    /// target's values are ours.
    pub(crate) fn verdict(self, targets: &[String], values: &[Vec<f64>]) -> Option<Verdict> {
        let ours = values.first()?;
        match self {
            Self::None => None,
            Self::Own { met, reach } => judge(median(ours), met, reach),
            Self::Peers { families, met, reach } => {
                let peers = targets.iter().zip(values).skip(1);
                let held = peers.filter(|(name, _)| families.contains(&family(name)));
                let worst = held.map(|(_, theirs)| Estimate::of(&ratios(ours, theirs)).median);
                judge(worst.fold(f64::NAN, f64::max), met, reach)
            }
        }
    }

    /// In words.
    pub(crate) fn words(self) -> String {
        match self {
            Self::None => String::new(),
            Self::Own { met, reach } => format!("≤ {met} ({reach})"),
            Self::Peers { families, met, reach } => {
                format!("≤ {met:.2} ({reach:.2}) × {}", families.join(", "))
            }
        }
    }
}

fn judge(value: f64, met: f64, reach: f64) -> Option<Verdict> {
    match value {
        _ if value.is_nan() => None,
        _ if value <= reach => Some(Verdict::Reached),
        _ if value <= met => Some(Verdict::Met),
        _ => Some(Verdict::Missed),
    }
}

/// `nginx-new` is an nginx, too.
fn family(name: &str) -> &str {
    name.split('-').next().unwrap_or(name)
}

impl Verdict {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Reached => "reached",
            Self::Met => "met",
            Self::Missed => "missed",
        }
    }
}
