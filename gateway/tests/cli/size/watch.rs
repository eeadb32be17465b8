//! `switchyard size --watch`: replicas that run are looked at, and nothing is sent to them.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use super::agent::Known;
use super::{Yard, run, switchyard};

/// `switchyard up`, ended when dropped.
struct Up {
    child: Child,
    admin: String,
}

impl Up {
    fn start(table: &str) -> Up {
        let mut command = switchyard(&["up", "--config", table]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let admin = out.find_map(|line| Some(line.strip_prefix("admin on ")?.to_owned())).unwrap();
        // Ready, once it is said how to call it.
        assert!(out.any(|line| line.starts_with("try: ")));
        Up { child, admin }
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn what_a_gateways_replicas_take_is_watched() {
    let yard = Yard::new(Known { base: 64 << 20, ..Known::default() });
    let table = yard.path("t.toml");
    let ports =
        "[gateway]\nlisten = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\ndrain_delay = \"0s\"\n";
    let own = std::fs::read_to_string(&table).unwrap();
    std::fs::write(&table, format!("{ports}{own}")).unwrap();
    let up = Up::start(&table);
    let watch = ["--watch", "6s", "--window", "500ms", "--admin", &up.admin];
    let (code, report, err) = yard.size(&watch);
    assert_eq!(code, Some(1), "{err}{report:#}");
    assert_eq!(report["refusals"][0]["code"], "too-few", "{report:#}");
    let text = report["refusals"][0]["text"].as_str().unwrap();
    assert!(text.contains("--watch "), "{text}");
    assert_eq!(report["replicas"].as_array().unwrap().len(), 1);
    assert_eq!((&report["requests"]["done"], &report["in_flight_reached"]), (&0.into(), &0.into()));
    let (median, least) = (report["memory"]["p50"]["value"].as_f64(), f64::from(64 << 20));
    assert!(median >= Some(least) && median < Some(least * 1.5), "{report:#}");
}

#[test]
fn where_no_gateway_answers_it_says_what_to_name() {
    let yard = Yard::new(Known::default());
    let table = yard.path("t.toml");
    let watch = ["--watch", "5m", "--admin", "http://127.0.0.1:9"];
    let (code, _, err) = run(&[&["size", "known", "--config", &table], &watch[..]].concat());
    assert_eq!(code, Some(1));
    assert!(err.contains("doesn't say who runs") && err.contains("--admin"), "{err}");
}
