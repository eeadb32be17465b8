//! Recorded requests, played again: one JSON object a line,
//! `{"at_ms": 0, "method": "POST", "path": "/invoke", "headers": {}, "body": {} or "text"}`. All but the body
//! may be left out.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use super::mix::Call;

/// The largest file: its requests are kept in memory while they are played.
const FILE_MAX: u64 = 256 << 20;

/// The recording, in its order.
#[derive(Debug, Clone)]
pub(super) struct Recording {
    pub(super) calls: Vec<(Option<Duration>, Call)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    at_ms: Option<u64>,
    method: Option<String>,
    path: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: Value,
}

impl Recording {
    /// `timed`: each needs its time.
    pub(super) fn read(path: &Path, timed: bool) -> Result<Recording, String> {
        let named = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let size = std::fs::metadata(path).map_err(|error| named(&error))?.len();
        if size > FILE_MAX {
            return Err(named(&"more than 256MiB of requests: replay a part of them"));
        }
        let text = std::fs::read_to_string(path).map_err(|error| named(&error))?;
        let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
        let read = lines.map(|(number, line)| {
            call(line, timed).map_err(|error| format!("{}:{number}: {error}", path.display()))
        });
        let mut calls: Vec<_> = read.collect::<Result<_, String>>()?;
        if calls.is_empty() {
            return Err(named(&"no request in it"));
        }
        if timed {
            calls.sort_by_key(|(at, _)| *at);
        }
        Ok(Recording { calls })
    }
}

fn call(line: &str, timed: bool) -> Result<(Option<Duration>, Call), String> {
    let line: Line = serde_json::from_str(line).map_err(|error| error.to_string())?;
    if timed && line.at_ms.is_none() {
        return Err("no `at_ms`: say with --concurrency how many to keep under way".to_owned());
    }
    let method = line.method.as_deref().unwrap_or("POST");
    let method = method.parse().map_err(|_| format!("{method:?} is no method"))?;
    let path = line.path.unwrap_or_else(|| "/invoke".to_owned());
    if !path.starts_with('/') {
        return Err("`path` begins with /".to_owned());
    }
    let body = match line.body {
        Value::Null => Bytes::new(),
        Value::String(text) => text.into(),
        value => value.to_string().into(),
    };
    let mut headers: Vec<_> =
        line.headers.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
    // They are made anew for what is sent now.
    headers.retain(|(name, _)| {
        !matches!(name.as_str(), "host" | "content-length" | "connection" | "transfer-encoding")
    });
    if !body.is_empty() && !headers.iter().any(|(name, _)| name == "content-type") {
        headers.push(("content-type".to_owned(), "application/json".to_owned()));
    }
    Ok((line.at_ms.map(Duration::from_millis), Call { method, path, headers, body }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, timed: bool) -> Result<Recording, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.jsonl");
        std::fs::write(&path, text).unwrap();
        Recording::read(&path, timed)
            .map_err(|error| error.replace(&path.display().to_string(), "r"))
    }

    #[test]
    fn requests_are_read_in_the_order_of_their_times() {
        let text = "{\"at_ms\": 50, \"body\": {\"input\": \"a\"}}\n\n\
                    {\"at_ms\": 5, \"method\": \"GET\", \"path\": \"/x\", \"headers\": {\"Host\": \"a\", \"X-A\": \"b\"}}\n";
        let calls = read(text, true).unwrap().calls;
        assert_eq!(calls[0].0, Some(Duration::from_millis(5)));
        assert_eq!((calls[0].1.method.as_str(), &*calls[0].1.path), ("GET", "/x"));
        assert_eq!(calls[0].1.headers, [("x-a".to_owned(), "b".to_owned())]);
        assert_eq!(calls[1].1.body, "{\"input\":\"a\"}");
        assert_eq!(calls[1].1.headers[0].1, "application/json");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        assert!(read("{}\n", true).unwrap_err().starts_with("r:1: no `at_ms`"));
        assert!(
            read("{}\n{\"url\": 1}\n", false).unwrap_err().starts_with("r:2: unknown field `url`")
        );
        assert_eq!(read("\n", false).unwrap_err(), "r: no request in it");
    }
}
