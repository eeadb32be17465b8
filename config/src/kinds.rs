//! The single values of the table: how each is read, and how schema and reference page describe it.

use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde_json::json;
use toml::Spanned;
use toml::de::DeValue;

use crate::reader::{Reader, Wrong, quoted};
use crate::section::{Kind, Leaf, Name, Shape};
use crate::table::{Discovery, OnDisconnect, Protocol, SecretRef};
use crate::units;

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
        Leaf { noun: "true or false".to_owned(), example: "true".to_owned(), schema }
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
        Leaf {
            noun: format!("a whole number from {MIN} to {MAX}"),
            example: MIN.max(1).to_string(),
            schema: json!({"type": "integer", "minimum": MIN, "maximum": MAX}),
        }
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
            _ => Err(Wrong::Because(format!(
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
        Leaf {
            noun: "a number from 0 to 1".to_owned(),
            example: "0.2".to_owned(),
            schema: json!({"type": "number", "minimum": 0, "maximum": 1}),
        }
    }

    fn parse(value: &DeValue<'_>) -> Result<f64, Wrong> {
        let written = match value {
            DeValue::Integer(integer) => integer.as_str(),
            DeValue::Float(float) => float.as_str(),
            _ => return Err(Wrong::Kind),
        };
        match written.parse::<f64>() {
            Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
            _ => Err(Wrong::Because(format!("is a share from 0 to 1, not {}", quoted(written)))),
        }
    }
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
        Leaf {
            noun: "a duration".to_owned(),
            example: "\"300ms\", \"5s\" or \"2m\"".to_owned(),
            schema: json!({"type": "string", "pattern": "^([0-9]+(\\.[0-9]+)?(h|m|s|ms))+$"}),
        }
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
            return Err(Wrong::Because("cannot be 0".to_owned()));
        }
        if time < Duration::from_millis(MIN_MS) {
            return Err(Wrong::Because(format!(
                "is at least {}, not {}",
                show(MIN_MS),
                quoted(written)
            )));
        }
        if time > Duration::from_millis(MAX_MS) {
            return Err(Wrong::Because(format!(
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
        Leaf {
            noun: "a size".to_owned(),
            example: "\"64KiB\" or \"4GiB\"".to_owned(),
            schema: json!({"anyOf": [
                {"type": "string", "pattern": "^[0-9]+(\\.[0-9]+)?([KMGT]iB?|[kKMG]B|[kMGTB])?$"},
                {"type": "integer", "minimum": MIN},
            ]}),
        }
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
            return Err(Wrong::Because("cannot be 0".to_owned()));
        }
        if bytes < MIN {
            let least = units::show_size(MIN);
            return Err(Wrong::Because(format!("is at least {least}, not {}", quoted(written))));
        }
        if bytes > MAX {
            let most = units::show_size(MAX);
            return Err(Wrong::Because(format!("is at most {most}, not {}", quoted(written))));
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
        Leaf {
            noun: "an amount of CPU".to_owned(),
            example: "\"500m\" or \"2\"".to_owned(),
            schema: json!({"anyOf": [
                {"type": "string", "pattern": "^([0-9]+m|[0-9]+(\\.[0-9]{1,3})?)$"},
                {"type": "number", "exclusiveMinimum": 0},
            ]}),
        }
    }

    fn parse(value: &DeValue<'_>) -> Result<u64, Wrong> {
        let written = match value {
            DeValue::Integer(integer) => integer.as_str(),
            DeValue::Float(float) => float.as_str(),
            other => text(other)?,
        };
        match units::cpu(written) {
            Some(0) => Err(Wrong::Because("cannot be 0".to_owned())),
            Some(millis) if millis <= MAX_CPU_MILLIS => Ok(millis),
            Some(_) => Err(Wrong::Because(format!("is at most {}", MAX_CPU_MILLIS / 1_000))),
            None => Err(Wrong::Kind),
        }
    }
}

/// An address and port to listen on.
pub(crate) struct Address;

impl Scalar for Address {
    type Value = SocketAddr;

    fn leaf() -> Leaf {
        Leaf {
            noun: "an IP address and port".to_owned(),
            example: "\"127.0.0.1:8080\" or \"[::]:8080\"".to_owned(),
            schema: json!({"type": "string", "pattern": "^([0-9.]+|\\[[0-9A-Fa-f:.]+\\]):[0-9]{1,5}$"}),
        }
    }

    fn parse(value: &DeValue<'_>) -> Result<SocketAddr, Wrong> {
        let written = match value.as_integer() {
            Some(port) => port.as_str(),
            None => text(value)?,
        };
        if let Ok(address) = written.parse() {
            return Ok(address);
        }
        let port = written.rsplit(':').next().and_then(|port| port.parse::<u16>().ok());
        let rather = |address: String| {
            let why = format!("takes an IP address and port, not `{}`", quoted(written));
            Err(Wrong::Rather(why, format!("write \"{address}\"")))
        };
        match (written.rsplit_once(':'), port) {
            (None, Some(port)) => rather(format!("127.0.0.1:{port}")),
            (Some(("" | "*", _)), Some(port)) => rather(format!("0.0.0.0:{port}")),
            (Some(("localhost", _)), Some(port)) => rather(format!("127.0.0.1:{port}")),
            _ => Err(Wrong::Kind),
        }
    }
}

/// A network in CIDR notation; a bare address is a network of one.
pub(crate) struct Network;

impl Scalar for Network {
    type Value = IpNet;

    fn leaf() -> Leaf {
        Leaf {
            noun: "a network".to_owned(),
            example: "\"10.0.0.0/8\" or \"fd00::/8\"".to_owned(),
            schema: json!({"type": "string", "pattern": "^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$"}),
        }
    }

    fn parse(value: &DeValue<'_>) -> Result<IpNet, Wrong> {
        let written = text(value)?;
        if let Ok(address) = written.parse::<std::net::IpAddr>() {
            return Ok(IpNet::from(address));
        }
        let network = written.parse::<IpNet>().map_err(|_| Wrong::Kind)?;
        if network.addr() == network.network() {
            return Ok(network);
        }
        let why = format!("takes a network, but `{}` is an address in one", quoted(written));
        Err(Wrong::Rather(why, format!("write \"{}\"", network.trunc())))
    }
}

/// One of a few words.
pub(crate) trait Choice {
    /// What a word stands for.
    type Value: Copy + 'static;
    /// Every word, what it stands for and what that means.
    const WORDS: &'static [(&'static str, Self::Value, &'static str)];
}

/// A value that is one of a [`Choice`]'s words.
pub(crate) struct OneOf<C>(std::marker::PhantomData<C>);

impl<C: Choice> Scalar for OneOf<C> {
    type Value = C::Value;

    fn leaf() -> Leaf {
        let words: Vec<&str> = C::WORDS.iter().map(|(word, ..)| *word).collect();
        let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
        let (last, rest) = quoted.split_last().map_or(("", &[][..]), |(l, r)| (l.as_str(), r));
        let noun = format!("{} or {last}", rest.join(", "));
        let example = quoted.first().cloned().unwrap_or_default();
        Leaf { noun, example, schema: json!({"type": "string", "enum": words}) }
    }

    fn parse(value: &DeValue<'_>) -> Result<Self::Value, Wrong> {
        let written = text(value)?;
        if let Some((_, choice, _)) = C::WORDS.iter().find(|(word, ..)| *word == written) {
            return Ok(*choice);
        }
        let mut notes = crate::reader::Notes::default();
        let near = notes.nearest(written, C::WORDS.iter().map(|(word, ..)| *word));
        let why = format!("takes {}, not `{}`", Self::leaf().noun, quoted(written));
        match near {
            Some(near) => Err(Wrong::Rather(why, format!("did you mean \"{near}\"?"))),
            None => Err(Wrong::Because(format!(
                "takes {}, not `{}`",
                Self::leaf().noun,
                quoted(written)
            ))),
        }
    }
}

impl Choice for Discovery {
    type Value = Self;
    const WORDS: &'static [(&'static str, Self, &'static str)] = &[
        ("auto", Self::Auto, "`kubernetes` in a pod, else `listed`"),
        ("kubernetes", Self::Kubernetes, "the EndpointSlices of each agent's `service`"),
        ("dns", Self::Dns, "the addresses that each agent's `service` resolves to"),
        ("listed", Self::Listed, "each agent's `endpoints`"),
    ];
}

impl Choice for Protocol {
    type Value = Self;
    const WORDS: &'static [(&'static str, Self, &'static str)] =
        &[("http1", Self::Http1, "HTTP/1.1"), ("h2c", Self::H2c, "HTTP/2 with prior knowledge")];
}

impl Choice for OnDisconnect {
    type Value = Self;
    const WORDS: &'static [(&'static str, Self, &'static str)] = &[
        ("cancel", Self::Cancel, "the exchange with the agent is cancelled"),
        ("continue", Self::Continue, "the agent finishes; its place is kept and counted as held"),
    ];
}

/// An environment variable's value: any text without NUL. Never repeated in a message.
pub(crate) struct EnvValue;

impl Scalar for EnvValue {
    type Value = String;
    const ECHO: bool = false;

    fn leaf() -> Leaf {
        let schema = json!({"type": "string"});
        Leaf { noun: "a string".to_owned(), example: "\"value\"".to_owned(), schema }
    }

    fn parse(value: &DeValue<'_>) -> Result<String, Wrong> {
        let written = text(value)?;
        if written.contains('\0') {
            return Err(Wrong::Because("cannot hold a NUL".to_owned()));
        }
        Ok(written.to_owned())
    }
}

/// A Secret and a key in it. Never repeated in a message: it may be the secret itself.
pub(crate) struct Secret;

impl Scalar for Secret {
    type Value = SecretRef;
    const ECHO: bool = false;

    fn leaf() -> Leaf {
        Leaf {
            noun: "the name of a Secret and a key in it".to_owned(),
            example: "\"agent-secrets/openai-api-key\"".to_owned(),
            schema: json!({"type": "string", "pattern": "^[a-z0-9]([-.a-z0-9]*[a-z0-9])?/[-._a-zA-Z0-9]+$"}),
        }
    }

    fn parse(value: &DeValue<'_>) -> Result<SecretRef, Wrong> {
        let (name, key) = text(value)?.split_once('/').ok_or(Wrong::Kind)?;
        let key_fits = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        let named = name.split('.').all(is_label) && name.len() <= 253;
        if !named || key.is_empty() || key.len() > 253 || !key.bytes().all(key_fits) {
            return Err(Wrong::Kind);
        }
        Ok(SecretRef { name: name.to_owned(), key: key.to_owned() })
    }
}

/// Whether it is a DNS-1123 label: 1 to 63 of `a-z 0-9 -`, no dash at either end.
pub(crate) fn is_label(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(fits)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// A type of agents.
pub(crate) struct AgentType;

impl Name for AgentType {
    const PLACEHOLDER: &'static str = "NAME";

    fn leaf() -> Leaf {
        Leaf {
            noun: "a DNS-1123 label".to_owned(),
            example: "coding".to_owned(),
            schema: json!({"pattern": "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"}),
        }
    }

    fn check(name: &str) -> Result<(), (String, Option<String>)> {
        if is_label(name) {
            return Ok(());
        }
        let message = format!(
            "`{}` is no agent type: a type is 1 to 63 of a-z, 0-9 and -, with no - at its ends",
            quoted(name)
        );
        let mapped = name.to_lowercase().replace([' ', '_', '.'], "-");
        let rather = mapped.trim_matches('-');
        Err((message, is_label(rather).then(|| format!("write [agents.{rather}]"))))
    }
}

/// The name of an environment variable.
pub(crate) struct Variable;

impl Name for Variable {
    const PLACEHOLDER: &'static str = "VARIABLE";

    fn leaf() -> Leaf {
        Leaf {
            noun: "the name of an environment variable".to_owned(),
            example: "AGENT_MODEL".to_owned(),
            schema: json!({"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"}),
        }
    }

    fn check(name: &str) -> Result<(), (String, Option<String>)> {
        if is_variable(name) {
            return Ok(());
        }
        let message = format!(
            "`{}` is no name of a variable: letters, digits and _, no digit first",
            quoted(name)
        );
        let rather = name.to_uppercase().replace(['-', '.', ' '], "_");
        Err((message, is_variable(&rather).then(|| format!("write {rather}"))))
    }
}

/// Whether a shell would take it for a variable's name.
fn is_variable(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !name.is_empty() && name.chars().all(fits) && !name.starts_with(|c: char| c.is_ascii_digit())
}
