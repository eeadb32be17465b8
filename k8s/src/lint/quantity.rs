//! Kubernetes' numbers: quantities, and counts that may be percentages.

use super::node::{Node, Value};

/// Suffixes and what they multiply by, longer ones first.
const SUFFIXES: [(&str, f64); 15] = [
    ("Ki", 1024.0),
    ("Mi", 1_048_576.0),
    ("Gi", 1_073_741_824.0),
    ("Ti", 1_099_511_627_776.0),
    ("Pi", 1_125_899_906_842_624.0),
    ("Ei", 1_152_921_504_606_846_976.0),
    ("n", 1e-9),
    ("u", 1e-6),
    ("m", 1e-3),
    ("k", 1e3),
    ("M", 1e6),
    ("G", 1e9),
    ("T", 1e12),
    ("P", 1e15),
    ("E", 1e18),
];

/// `500m`, `2Gi`, `1e3` as a number; `None` for what is no quantity.
pub(crate) fn quantity(node: &Node) -> Option<f64> {
    let text = match &node.value {
        Value::Int(number) => return Some(*number as f64),
        Value::Float(number) => return Some(*number),
        Value::Text(text) => text,
        _ => return None,
    };
    if let Ok(number) = text.parse::<f64>() {
        return number.is_finite().then_some(number);
    }
    let (suffix, factor) = SUFFIXES.iter().find(|(suffix, _)| text.ends_with(suffix))?;
    let number: f64 = text.strip_suffix(suffix)?.parse().ok()?;
    Some(number * factor)
}

/// How many of something: a count, or percent of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Amount {
    Count(i64),
    Percent(i64),
}

impl Amount {
    /// Of an integer, or of text such as `50%`.
    pub(crate) fn of(node: &Node) -> Option<Self> {
        match &node.value {
            Value::Int(count) => Some(Self::Count(*count)),
            Value::Text(text) => match text.strip_suffix('%') {
                Some(percent) => percent.parse().ok().map(Self::Percent),
                None => text.parse().ok().map(Self::Count),
            },
            _ => None,
        }
    }

    /// How many that is of `all`, rounded up as budgets are.
    pub(crate) fn up(self, all: i64) -> i64 {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => (all * percent + 99).div_euclid(100),
        }
    }

    pub(crate) fn is_none(self) -> bool {
        matches!(self, Self::Count(0) | Self::Percent(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lint::node;

    fn read(yaml: &str) -> Node {
        node::read(yaml).unwrap().remove(0)
    }

    #[test]
    fn quantities_are_numbers_with_units() {
        for (text, value) in
            [("500m", 0.5), ("2", 2.0), ("1Gi", 1_073_741_824.0), ("1e3", 1e3), ("128M", 128e6)]
        {
            assert_eq!(quantity(&read(text)), Some(value), "{text}");
        }
        assert_eq!(quantity(&read("much")), None);
    }

    #[test]
    fn amounts_are_counts_or_shares() {
        assert_eq!(Amount::of(&read("3")), Some(Amount::Count(3)));
        assert_eq!(Amount::of(&read("50%")).unwrap().up(3), 2);
        assert!(Amount::of(&read("0%")).unwrap().is_none());
        assert_eq!(Amount::of(&read("all")), None);
    }
}
