//! What is asked of the agent: kinds of requests by weight, how large they are, and how they arrive.
//! Read from a small TOML file, or the default for agents of our `/invoke` contract.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use serde::Deserialize;

use super::text;

/// The largest file of inputs.
const INPUTS_MAX: u64 = 64 << 20;
/// The highest concurrency where neither the table nor the mix says one.
const TOP: u32 = 16;
/// The most requests at once, each a connection.
pub(super) const LEVEL_MAX: u32 = 4096;
/// Open arrivals: requests under way beyond it aren't sent.
const OUTSTANDING: u32 = 256;
/// The default's inputs: half under 1 KiB, one in a hundred over 64 KiB, as questions with some context are.
const P50: u64 = 1 << 10;
const P99: u64 = 64 << 10;
/// The standard normal 99th percentile.
const Z99: f64 = 2.326_347_874;
/// No input is longer, whatever a distribution's tail says.
const INPUT_MAX: u64 = 32 << 20;

/// The whole description.
#[derive(Debug, Clone)]
pub(super) struct Mix {
    pub(super) arrival: Arrival,
    kinds: Vec<Kind>,
    total: f64,
}

/// How requests arrive.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Arrival {
    /// So many are always under way; step by step, the last is held.
    Closed(Vec<u32>),
    /// By themselves, so many a second on average (Poisson), at most `max` under way.
    Open { rate: f64, max: u32 },
}

/// One request, ready to be sent.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Call {
    pub(super) method: http::Method,
    pub(super) path: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Bytes,
}

#[derive(Debug, Clone)]
struct Kind {
    weight: f64,
    method: http::Method,
    path: String,
    headers: BTreeMap<String, String>,
    body: String,
    inputs: Inputs,
}

#[derive(Debug, Clone)]
enum Inputs {
    /// Made up, so long.
    Made(Size),
    /// From a file, the shortest first.
    Given(Vec<String>),
}

/// How long inputs are.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(untagged)]
enum Size {
    Fixed(Length),
    Range {
        min: Length,
        max: Length,
    },
    /// Log-normal.
    Spread {
        p50: Length,
        p99: Length,
    },
}

/// Bytes, as tables spell them.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(try_from = "Spelling")]
struct Length(u64);

#[derive(Deserialize)]
#[serde(untagged)]
enum Spelling {
    Number(u64),
    Text(String),
}

impl TryFrom<Spelling> for Length {
    type Error = String;

    fn try_from(spelling: Spelling) -> Result<Self, String> {
        let bytes = match spelling {
            Spelling::Number(bytes) => Some(bytes),
            Spelling::Text(text) => config::units::size(&text),
        };
        let bytes = bytes.filter(|bytes| *bytes <= INPUT_MAX);
        bytes.map(Length).ok_or_else(|| "a size such as \"4KiB\", at most 32MiB".to_owned())
    }
}

/// As it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    arrival: Option<WrittenArrival>,
    #[serde(default)]
    request: Vec<WrittenKind>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenArrival {
    concurrency: Option<Vec<u32>>,
    rate: Option<f64>,
    max: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenKind {
    #[serde(default = "one")]
    weight: f64,
    method: Option<String>,
    path: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    size: Option<Size>,
    inputs: Option<String>,
    body: Option<String>,
}

fn one() -> f64 {
    1.0
}

/// Up to `top` by doubling: 1, 2, 4, … top.
pub(super) fn levels(top: Option<u32>) -> Vec<u32> {
    let top = top.unwrap_or(TOP).clamp(1, LEVEL_MAX);
    let below = std::iter::successors(Some(1u32), |level| level.checked_mul(2));
    below.take_while(|level| *level < top).chain([top]).collect()
}

/// Concurrencies as they were given: each from 1 to [`LEVEL_MAX`], rising.
pub(super) fn checked_levels(levels: &[u32]) -> Result<Vec<u32>, String> {
    let rising = levels.windows(2).all(|two| two[0] < two[1]);
    let possible = levels.iter().all(|level| (1..=LEVEL_MAX).contains(level));
    if levels.is_empty() || !rising || !possible {
        return Err(format!(
            "concurrencies are rising numbers from 1 to {LEVEL_MAX}, for example 1,2,4,8"
        ));
    }
    Ok(levels.to_vec())
}

impl Mix {
    /// For agents of the `/invoke` contract, up to `top` at once.
    pub(super) fn standard(top: Option<u32>) -> Mix {
        let size = Size::Spread { p50: Length(P50), p99: Length(P99) };
        let kind = Kind {
            weight: 1.0,
            method: http::Method::POST,
            path: INVOKE.to_owned(),
            headers: json_type(),
            body: BODY.to_owned(),
            inputs: Inputs::Made(size),
        };
        Mix { arrival: Arrival::Closed(levels(top)), kinds: vec![kind], total: 1.0 }
    }

    /// From a file; `top` is where closed arrivals end that don't say so.
    pub(super) fn read(path: &Path, top: Option<u32>) -> Result<Mix, String> {
        let named = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let text = std::fs::read_to_string(path).map_err(|error| named(&error))?;
        let folder = path.parent().unwrap_or(Path::new("."));
        Mix::parse(&text, folder, top).map_err(|error| named(&error))
    }

    fn parse(text: &str, folder: &Path, top: Option<u32>) -> Result<Mix, String> {
        let written: Written = toml::from_str(text).map_err(|error| error.to_string())?;
        let arrival = arrival(written.arrival, top)?;
        if written.request.is_empty() {
            return Err("a mix has at least one [[request]]".to_owned());
        }
        let number = |(n, kind)| {
            kind_of(kind, folder).map_err(|error| format!("[[request]] number {n}: {error}"))
        };
        let kinds: Result<Vec<Kind>, String> = (1..).zip(written.request).map(number).collect();
        let kinds = kinds?;
        let total = kinds.iter().map(|kind| kind.weight).sum();
        Ok(Mix { arrival, kinds, total })
    }

    /// The `n`th request. `at` picks its input by size, from 0 for the smallest to 1; by chance
    /// otherwise.
    pub(super) fn call(&self, n: u64, at: Option<f64>, random: &mut fastrand::Rng) -> Call {
        let kind = self.pick(random.f64() * self.total);
        let at = at.unwrap_or_else(|| random.f64());
        let input = match &kind.inputs {
            Inputs::Made(size) => text::made(size.at(at), random),
            Inputs::Given(lines) => lines[place(at, lines.len())].clone(),
        };
        let fill = |template: &str| text::fill(template, &input, n);
        let headers =
            kind.headers.iter().map(|(name, value)| (name.clone(), fill(value))).collect();
        let body = Bytes::from(fill(&kind.body));
        Call { method: kind.method.clone(), path: kind.path.clone(), headers, body }
    }

    fn pick(&self, mut place: f64) -> &Kind {
        for kind in &self.kinds {
            place -= kind.weight;
            if place < 0.0 {
                return kind;
            }
        }
        &self.kinds[self.kinds.len() - 1]
    }
}

const INVOKE: &str = "/invoke";
const BODY: &str = r#"{"input": {{input}}}"#;

fn json_type() -> BTreeMap<String, String> {
    BTreeMap::from([("content-type".to_owned(), "application/json".to_owned())])
}

fn place(at: f64, count: usize) -> usize {
    ((at * count as f64) as usize).min(count - 1)
}

fn arrival(written: Option<WrittenArrival>, top: Option<u32>) -> Result<Arrival, String> {
    let Some(WrittenArrival { concurrency, rate, max }) = written else {
        return Ok(Arrival::Closed(levels(top)));
    };
    match (concurrency, rate) {
        (Some(_), Some(_)) => Err("[arrival] has either `concurrency` or `rate`".to_owned()),
        (None, Some(rate)) if !(rate.is_finite() && rate > 0.0) => {
            Err("`rate` is requests a second, more than 0".to_owned())
        }
        (None, Some(rate)) => {
            let max = max.unwrap_or(OUTSTANDING).clamp(1, LEVEL_MAX);
            Ok(Arrival::Open { rate, max })
        }
        (_, None) if max.is_some() => Err("`max` goes with `rate`".to_owned()),
        (Some(given), None) => checked_levels(&given).map(Arrival::Closed),
        (None, None) => Ok(Arrival::Closed(levels(top))),
    }
}

fn kind_of(written: WrittenKind, folder: &Path) -> Result<Kind, String> {
    let WrittenKind { weight, method, path, headers, size, inputs, body } = written;
    if !(weight.is_finite() && weight > 0.0) {
        return Err("`weight` is more than 0".to_owned());
    }
    let method = method.as_deref().unwrap_or("POST");
    let method = method.parse().map_err(|_| format!("{method:?} is no method"))?;
    let path = path.unwrap_or_else(|| INVOKE.to_owned());
    if !path.starts_with('/') {
        return Err("`path` begins with /".to_owned());
    }
    let inputs = match (size, inputs) {
        (Some(_), Some(_)) => return Err("either `size` or `inputs`".to_owned()),
        (Some(size), None) => Inputs::Made(size.checked()?),
        (None, Some(file)) => Inputs::Given(lines(&folder.join(file))?),
        (None, None) => Inputs::Made(Size::Spread { p50: Length(P50), p99: Length(P99) }),
    };
    let all = if body.is_none() { json_type() } else { BTreeMap::new() };
    let headers =
        all.into_iter().chain(headers).map(|(n, v)| (n.to_ascii_lowercase(), v)).collect();
    check_headers(&headers)?;
    Ok(Kind {
        weight,
        method,
        path,
        headers,
        body: body.unwrap_or_else(|| BODY.to_owned()),
        inputs,
    })
}

fn check_headers(headers: &BTreeMap<String, String>) -> Result<(), String> {
    for (name, value) in headers {
        let named = http::HeaderName::try_from(name.as_str()).is_ok();
        if !named || http::HeaderValue::try_from(value.as_str()).is_err() {
            return Err(format!("{name:?} is no header that can be sent"));
        }
    }
    Ok(())
}

/// The lines of a file of inputs, the shortest first.
fn lines(file: &Path) -> Result<Vec<String>, String> {
    let named = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let size = std::fs::metadata(file).map_err(|error| named(&error))?.len();
    if size > INPUTS_MAX {
        return Err(named(&"more than 64MiB of inputs"));
    }
    let text = std::fs::read_to_string(file).map_err(|error| named(&error))?;
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let mut lines: Vec<String> = lines.map(str::to_owned).collect();
    lines.sort_by_key(String::len);
    if lines.is_empty() { Err(named(&"no line with an input")) } else { Ok(lines) }
}

impl Size {
    fn checked(self) -> Result<Size, String> {
        match self {
            Size::Range { min, max } if max.0 < min.0 => Err("`max` is under `min`".to_owned()),
            Size::Spread { p50, p99 } if p50.0 == 0 || p99.0 < p50.0 => {
                Err("`p99` is at least `p50`, which is more than 0".to_owned())
            }
            size => Ok(size),
        }
    }

    /// The size that so great a part doesn't exceed.
    fn at(self, part: f64) -> u64 {
        match self {
            Size::Fixed(Length(bytes)) => bytes,
            Size::Range { min, max } => min.0 + ((max.0 - min.0) as f64 * part) as u64,
            Size::Spread { p50, p99 } => {
                let (middle, upper) = ((p50.0 as f64).ln(), (p99.0 as f64).ln());
                let deviation = (upper - middle) / Z99;
                let bytes = (middle + deviation * text::normal(part)).exp();
                (bytes.round() as u64).min(INPUT_MAX)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Mix, String> {
        Mix::parse(text, Path::new("/nowhere"), Some(6))
    }

    #[test]
    fn levels_double_up_to_the_top() {
        assert_eq!(levels(Some(6)), [1, 2, 4, 6]);
        assert_eq!(levels(Some(1)), [1]);
        assert_eq!(levels(None), [1, 2, 4, 8, 16]);
        assert!(checked_levels(&[4, 2]).is_err() && checked_levels(&[]).is_err());
    }

    #[test]
    fn the_standard_mix_asks_as_the_contract_says() {
        let call = Mix::standard(None).call(1, Some(0.5), &mut fastrand::Rng::with_seed(1));
        assert_eq!((call.method.as_str(), call.path.as_str()), ("POST", "/invoke"));
        let body: serde_json::Value = serde_json::from_slice(&call.body).unwrap();
        assert_eq!(body["input"].as_str().unwrap().len(), 1024);
        assert_eq!(call.headers[0].1, "application/json");
    }

    #[test]
    fn kinds_come_by_their_weight_with_their_own_bodies() {
        let mix = read(
            "arrival = { rate = 2.5 }\n\
             [[request]]\nweight = 3\nsize = \"2KiB\"\nbody = '{\"q\": {{input}}, \"n\": {{n}}}'\n\
             headers = { X-Session-Id = \"s-{{n}}\" }\n\
             [[request]]\npath = \"/b\"\nmethod = \"PUT\"\nsize = { min = 10, max = 20 }\nbody = '{{text}}'\n",
        )
        .unwrap();
        assert_eq!(mix.arrival, Arrival::Open { rate: 2.5, max: OUTSTANDING });
        let mut random = fastrand::Rng::with_seed(1);
        let calls: Vec<Call> = (0..1000).map(|n| mix.call(n, None, &mut random)).collect();
        let first: Vec<_> = calls.iter().filter(|call| call.path == "/invoke").collect();
        assert!((700..800).contains(&first.len()), "{}", first.len());
        let body: serde_json::Value = serde_json::from_slice(&first[0].body).unwrap();
        assert_eq!(body["q"].as_str().unwrap().len(), 2048);
        assert!(first[0].headers[0].1.starts_with("s-") && first[0].headers[0].0 == "x-session-id");
        let other = calls.iter().find(|call| call.path == "/b").unwrap();
        assert!((10..=20).contains(&other.body.len()) && other.method == "PUT");
    }

    #[test]
    fn sizes_follow_their_distribution() {
        let size = Size::Spread { p50: Length(1000), p99: Length(50_000) };
        assert_eq!(size.at(0.5), 1000);
        assert!((49_900..50_100).contains(&size.at(0.99)), "{}", size.at(0.99));
        assert_eq!(size.at(1.0), INPUT_MAX);
        assert_eq!(size.at(0.0), 0);
    }

    #[test]
    fn a_wrong_mix_is_told_what_is_wrong() {
        for (text, says) in [
            ("", "at least one"),
            ("[[request]]\nsizes = 3\n", "unknown field `sizes`"),
            ("[[request]]\nweight = 0\n", "number 1: `weight`"),
            ("[[request]]\npath = \"invoke\"\n", "begins with /"),
            ("[[request]]\nsize = \"4 lots\"\n", "size"),
            ("[[request]]\nsize = { min = 9, max = 2 }\n", "under `min`"),
            ("[[request]]\ninputs = \"none.txt\"\n", "/nowhere/none.txt: No such file"),
            ("[[request]]\nheaders = { \"a b\" = \"c\" }\n", "no header"),
            ("arrival = { rate = 1, concurrency = [1] }\n[[request]]\n", "either"),
            ("arrival = { concurrency = [2, 1] }\n[[request]]\n", "rising"),
            ("arrival = { rate = -1 }\n[[request]]\n", "more than 0"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(says), "{text:?}: {error}");
        }
    }
}
