//! When there is no answer: the exit code is 1, and what is missing is said.

use serde_json::Value;

use super::agent::Known;
use super::{Yard, run};

fn codes(report: &Value) -> Vec<String> {
    let refusals = report["refusals"].as_array().unwrap().iter();
    refusals.map(|refusal| refusal["code"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn too_few_windows_say_how_many_more_and_how() {
    let yard = Yard::new(Known::default());
    let (code, report, _) = yard.size(&["--time", "6s", "--window", "100ms", "--concurrency", "1"]);
    assert_eq!((code, &report["answer"]), (Some(1), &"no".into()), "{report:#}");
    assert_eq!(codes(&report), ["too-few"], "{report:#}");
    let text = report["refusals"][0]["text"].as_str().unwrap();
    assert!(text.contains("more are needed: --time "), "{text}");
    assert!(report["memory"]["p99"]["high"].is_null(), "{report:#}");
}

#[test]
fn failing_requests_are_counted_and_no_answer() {
    let yard = Yard::new(Known { fails: 3, ..Known::default() });
    let (code, report, _) =
        yard.size(&["--time", "6s", "--window", "100ms", "--concurrency", "1,2"]);
    assert_eq!(code, Some(1));
    assert!(codes(&report).contains(&"failed".to_owned()), "{report:#}");
    let requests = &report["requests"];
    assert!(requests["failed"].as_u64() > Some(0), "{report:#}");
    assert_eq!(requests["first_failure"], "status 500 Internal Server Error");
}

#[test]
fn a_leak_is_no_answer() {
    let yard = Yard::new(Known { leak: 1 << 20, ..Known::default() });
    let (code, report, _) =
        yard.size(&["--time", "12s", "--window", "100ms", "--concurrency", "2"]);
    assert_eq!(code, Some(1));
    assert!(codes(&report).contains(&"grows".to_owned()), "{report:#}");
    assert!(report["grows_bytes_per_minute"].as_f64() > Some(1e8), "{report:#}");
}

#[test]
fn an_agent_that_is_killed_at_its_limit_needs_at_least_that() {
    let yard = Yard::new(Known { base: 16 << 20, leak: 256 << 10, ..Known::default() });
    let table = std::fs::read_to_string(yard.path("t.toml")).unwrap();
    let limited = format!("{table}limits = {{ memory = \"96MiB\" }}\n");
    std::fs::write(yard.path("t.toml"), limited).unwrap();
    let (code, report, err) =
        yard.size(&["--time", "60s", "--window", "100ms", "--concurrency", "2", "--limited"]);
    assert_eq!(code, Some(1));
    assert_eq!(report["limit"], 96 << 20, "{report:#}");
    // Where there is no cgroup, it fails to allocate and ends by itself.
    assert!(codes(&report).contains(&"killed".to_owned()), "{report:#}\n{err}");
    assert_eq!(
        (&report["at_least"], &report["ended_early"]),
        (&true.into(), &"the agent was gone".into())
    );
    assert!(report["memory"]["max"].as_f64() >= Some(f64::from(90 << 20)), "{report:#}");
}

#[test]
fn what_can_not_be_measured_is_told_in_one_line() {
    let yard = Yard::new(Known::default());
    let table = yard.path("t.toml");
    for (arguments, says) in [
        (vec!["nobody"], "there is no agent \"nobody\""),
        (vec!["known", "--time", "50ms"], "the time holds no two windows"),
        (vec!["known", "--window", "1ms", "--time", "5s"], "--window is from"),
        (vec!["known", "--concurrency", "4,2"], "--concurrency: "),
        (vec!["known", "--url", "http://127.0.0.1:9"], "nobody says how much memory"),
        (vec!["known", "--url", "http://127.0.0.1:9", "--pid", "4194999"], "there is no process"),
        (vec!["known", "--replay", "/none.jsonl"], "/none.jsonl: No such file"),
        (vec!["known", "--mix", "/none.toml"], "/none.toml: No such file"),
    ] {
        let all = [&["size", "--config", &table], arguments.as_slice()].concat();
        let (code, out, err) = run(&all);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{arguments:?}: {err}");
        assert!(err.starts_with("error: ") && err.contains(says), "{arguments:?}: {err}");
        assert_eq!(err.lines().count(), 1, "{err}");
    }
}
