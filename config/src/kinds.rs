//! The single values of the table: how each is read, and how schema and reference page describe it.
//!
//! Numbers and text are here; words, addresses and what a pod needs have files of their own.

use std::time::Duration;

use serde_json::json;
use toml::Spanned;
use toml::de::DeValue;

use crate::reader::{Reader, Wrong, quoted};
use crate::section::{Kind, Leaf, Shape};
use crate::units;

pub(crate) mod pods;
pub(crate) mod web;
pub(crate) mod words;

/// A value without structure.
pub(crate) trait Scalar {
    /// As read.
    type Value: Clone;
    /// Whether a message may repeat what is written.
    const ECHO: bool = true;

    /// How schema and reference page describe it.
    fn leaf() -> Leaf;

    /// Reads it.
    fn parse(value: &DeValue<'_>) -> Result<Self::Value, Wrong>;
}

impl<S: Scalar> Kind for S {
    type Value = S::Value;

    fn shape() -> Shape {
        Shape::Leaf(S::leaf())
    }

    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Self::Value> {
        match S::parse(value.get_ref()) {
            Ok(read) => Some(read),
            Err(wrong) => {
                let leaf = S::leaf();
                reader.wrong(value, wrong, &leaf.noun, &leaf.example, S::ECHO);
                None
            }
        }
    }
}

/// The text of a string, or [`Wrong::Kind`].
pub(crate) fn text<'v>(value: &'v DeValue<'_>) -> Result<&'v str, Wrong> {
    value.as_str().ok_or(Wrong::Kind)
}

/// `true` or `false`.
pub(crate) struct Flag;

impl Scalar for Flag {
    type Value = bool;

    fn leaf() -> Leaf {
        let schema = json!({"type": "boolean"});
        Leaf::new("true or false", "true", schema)
    }

    fn parse(value: &DeValue<'_>) -> Result<bool, Wrong> {
        match (value.as_bool(), value.as_str()) {
            (Some(flag), _) => Ok(flag),
            (None, Some("true" | "false")) => {
                Err(Wrong::Rather("takes true or false".to_owned(), "without quotes".to_owned()))
            }
            _ => Err(Wrong::Kind),
        }
    }
}

/// A whole number between two bounds, both included.
pub(crate) struct Whole<const MIN: u64, const MAX: u64>;

impl<const MIN: u64, const MAX: u64> Scalar for Whole<MIN, MAX> {
    type Value = u64;

    fn leaf() -> Leaf {
        Leaf::new(
            format!("a whole number from {MIN} to {MAX}"),
            MIN.max(1).to_string(),
            json!({"type": "integer", "minimum": MIN, "maximum": MAX}),
        )
    }

    fn parse(value: &DeValue<'_>) -> Result<u64, Wrong> {
        let Some(integer) = value.as_integer() else {
            return Err(match value.as_str() {
                Some(text) if text.parse::<u64>().is_ok() => Wrong::Rather(
                    "takes a number, not a string".to_owned(),
                    "without quotes".to_owned(),
                ),
                _ => Wrong::Kind,
            });
        };
        let number = i128::from_str_radix(integer.as_str(), integer.radix()).unwrap_or(i128::MAX);
        match u64::try_from(number) {
            Ok(number) if (MIN..=MAX).contains(&number) => Ok(number),
            _ => Err(Wrong::Bounds(format!(
                "is from {MIN} to {MAX}, not {}",
                quoted(integer.as_str())
            ))),
        }
    }
}

/// A share: a number from 0 to 1.
pub(crate) struct Share;

impl Scalar for Share {
    type Value = f64;

    fn leaf() -> Leaf {
        Leaf::new(
            "a number from 0 to 1",
            "0.2",
            json!({"type": "number", "minimum": 0, "maximum": 1}),
        )
    }

    fn parse(value: &DeValue<'_>) -> Result<f64, Wrong> {
        number(value, 1.0).map_err(|wrong| match wrong {
            Some(written) => Wrong::Bounds(format!("is a share from 0 to 1, not {written}")),
            None => Wrong::Kind,
        })
    }
}

/// So many for each: a number from 0 to a million.
pub(crate) struct Factor;

/// Largest [`Factor`].
const MAX_FACTOR: f64 = 1e6;

impl Scalar for Factor {
    type Value = f64;

    fn leaf() -> Leaf {
        Leaf::new(
            "a number from 0 to 1000000",
            "40",
            json!({"type": "number", "minimum": 0, "maximum": MAX_FACTOR}),
        )
    }

    fn parse(value: &DeValue<'_>) -> Result<f64, Wrong> {
        number(value, MAX_FACTOR).map_err(|wrong| match wrong {
            Some(written) => {
                Wrong::Bounds(format!("is a number from 0 to {MAX_FACTOR}, not {written}"))
            }
            None => Wrong::Kind,
        })
    }
}

/// A number from 0 to `max`; else what is written, if it is one.
fn number(value: &DeValue<'_>, max: f64) -> Result<f64, Option<String>> {
    let written = match value {
        DeValue::Integer(integer) => integer.as_str(),
        DeValue::Float(float) => float.as_str(),
        _ => return Err(None),
    };
    let number = written.parse::<f64>().ok().filter(|number| (0.0..=max).contains(number));
    number.ok_or_else(|| Some(quoted(written)))
}

/// A duration between two bounds in milliseconds, both included.
pub(crate) struct Time<const MIN_MS: u64, const MAX_MS: u64>;

/// Longest duration in the table: a year.
pub(crate) const YEAR_MS: u64 = 365 * 24 * 3_600_000;
/// A duration that can't be nothing.
pub(crate) type Clock = Time<1, YEAR_MS>;
/// A duration that may be nothing.
pub(crate) type Pause = Time<0, YEAR_MS>;

impl<const MIN_MS: u64, const MAX_MS: u64> Scalar for Time<MIN_MS, MAX_MS> {
    type Value = Duration;

    fn leaf() -> Leaf {
        Leaf::new(
            "a duration",
            "\"300ms\", \"5s\" or \"2m\"",
            json!({"type": "string", "pattern": "^([0-9]+(\\.[0-9]+)?(h|m|s|ms))+$"}),
        )
    }

    fn parse(value: &DeValue<'_>) -> Result<Duration, Wrong> {
        if let Some(number) = value.as_integer() {
            let rather = format!("write \"{}s\" for seconds", quoted(number.as_str()));
            return Err(Wrong::Rather("takes a duration with its unit".to_owned(), rather));
        }
        let written = text(value)?;
        let Some(time) = units::duration(written) else {
            return Err(match written.parse::<u64>() {
                Ok(number) => Wrong::Rather(
                    "takes a duration with its unit".to_owned(),
                    format!("write \"{number}s\" for seconds"),
                ),
                Err(_) => Wrong::Kind,
            });
        };
        let show = |ms| units::show_duration(Duration::from_millis(ms));
        if time.is_zero() && MIN_MS > 0 {
            return Err(Wrong::Bounds("cannot be 0".to_owned()));
        }
        if time < Duration::from_millis(MIN_MS) {
            return Err(Wrong::Bounds(format!(
                "is at least {}, not {}",
                show(MIN_MS),
                quoted(written)
            )));
        }
        if time > Duration::from_millis(MAX_MS) {
            return Err(Wrong::Bounds(format!(
                "is at most {}, not {}",
                show(MAX_MS),
                quoted(written)
            )));
        }
        Ok(time)
    }
}

/// A size in bytes between two bounds, both included.
pub(crate) struct Bytes<const MIN: u64, const MAX: u64>;

/// Largest size in the table: what fits a signed number everywhere.
pub(crate) const MAX_BYTES: u64 = 1 << 62;

impl<const MIN: u64, const MAX: u64> Scalar for Bytes<MIN, MAX> {
    type Value = u64;

    fn leaf() -> Leaf {
        Leaf::new(
            "a size",
            "\"64KiB\" or \"4GiB\"",
            json!({"anyOf": [
                {"type": "string", "pattern": "^[0-9]+(\\.[0-9]+)?([KMGT]iB?|[kKMG]B|[kMGTB])?$"},
                {"type": "integer", "minimum": MIN},
            ]}),
        )
    }

    fn parse(value: &DeValue<'_>) -> Result<u64, Wrong> {
        let (bytes, written) = match value {
            DeValue::Integer(integer) => {
                (u64::from_str_radix(integer.as_str(), integer.radix()).ok(), integer.as_str())
            }
            other => (units::size(text(other)?), text(other)?),
        };
        let bytes = bytes.ok_or(Wrong::Kind)?;
        if bytes == 0 && MIN > 0 {
            return Err(Wrong::Bounds("cannot be 0".to_owned()));
        }
        if bytes < MIN {
            let least = units::show_size(MIN);
            return Err(Wrong::Bounds(format!("is at least {least}, not {}", quoted(written))));
        }
        if bytes > MAX {
            let most = units::show_size(MAX);
            return Err(Wrong::Bounds(format!("is at most {most}, not {}", quoted(written))));
        }
        Ok(bytes)
    }
}

/// CPU in thousandths, at least one.
pub(crate) struct Cpu;

/// Most CPU that one pod can ask for, in thousandths.
const MAX_CPU_MILLIS: u64 = 10_000_000;

impl Scalar for Cpu {
    type Value = u64;

    fn leaf() -> Leaf {
        Leaf::new(
            "an amount of CPU",
            "\"500m\" or \"2\"",
            json!({"anyOf": [
                {"type": "string", "pattern": "^([0-9]+m|[0-9]+(\\.[0-9]{1,3})?)$"},
                {"type": "number", "exclusiveMinimum": 0},
            ]}),
        )
    }

    fn parse(value: &DeValue<'_>) -> Result<u64, Wrong> {
        let written = match value {
            DeValue::Integer(integer) => integer.as_str(),
            DeValue::Float(float) => float.as_str(),
            other => text(other)?,
        };
        match units::cpu(written) {
            Some(0) => Err(Wrong::Bounds("cannot be 0".to_owned())),
            Some(millis) if millis <= MAX_CPU_MILLIS => Ok(millis),
            Some(_) => Err(Wrong::Bounds(format!("is at most {}", MAX_CPU_MILLIS / 1_000))),
            None => Err(Wrong::Kind),
        }
    }
}

/// One line of text.
pub(crate) struct Line;

impl Scalar for Line {
    type Value = String;

    fn leaf() -> Leaf {
        let example = "\"Writes and runs code\"".to_owned();
        Leaf::new("a line of text", example, json!({"type": "string"}))
    }

    fn parse(value: &DeValue<'_>) -> Result<String, Wrong> {
        let written = text(value)?;
        if written.contains(char::is_control) {
            return Err(Wrong::Because(
                "is one line of text, without control characters".to_owned(),
            ));
        }
        Ok(written.to_owned())
    }
}

/// The name of another agent.
pub(crate) struct Other;

impl Scalar for Other {
    type Value = String;

    fn leaf() -> Leaf {
        Leaf::new("the name of another agent", "\"qa\"", json!({"type": "string"}))
    }

    fn parse(value: &DeValue<'_>) -> Result<String, Wrong> {
        Ok(text(value)?.to_owned())
    }
}
