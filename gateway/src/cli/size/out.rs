//! Keeping a run in a folder, so that it can be looked at again: the report, its windows, the picture, the
//! command and the machine.

use std::fs;
use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};

use super::plot;
use super::report::Report;

/// Writes all files of it.
pub(super) fn keep(folder: &Path, report: &Report) -> Result<(), String> {
    let named = |error: std::io::Error| format!("--out {}: {error}", folder.display());
    let mut whole = report.json();
    whole["command"] = command(std::env::args()).into();
    whole["machine"] = machine();
    fs::write(folder.join("report.json"), format!("{whole:#}\n")).map_err(named)?;
    fs::write(folder.join("report.txt"), report.text()).map_err(named)?;
    fs::write(folder.join("windows.jsonl"), windows(report)).map_err(named)?;
    plot::write(&folder.join("plot.svg"), &report.plot())
}

/// A line a window; a long run's have been taken together before.
fn windows(report: &Report) -> Vec<u8> {
    let mut lines = Vec::new();
    for track in &report.measured.tracks {
        for window in track.series.windows() {
            let mut line = json!(window);
            line["replica"] = track.name.as_str().into();
            writeln!(lines, "{line}").expect("memory takes all");
        }
    }
    lines
}

/// As it was typed, without the folders of this machine and without what may be a password in a URL.
fn command(arguments: impl Iterator<Item = String>) -> String {
    let plain = |(number, argument): (usize, String)| match argument.split_once("://") {
        _ if number == 0 => "switchyard".to_owned(),
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
            let host = authority.rsplit('@').next().unwrap_or_default();
            format!("{scheme}://{host}/{path}").trim_end_matches('/').to_owned()
        }
        None if argument.starts_with('/') => {
            let name = Path::new(&argument).file_name().unwrap_or_default();
            name.to_string_lossy().into_owned()
        }
        None => argument,
    };
    arguments.enumerate().map(plain).collect::<Vec<_>>().join(" ")
}

/// Cores, processor, memory, kernel, and the version that measured.
fn machine() -> Value {
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    json!({
        "cores": std::thread::available_parallelism().map_or(1, usize::from),
        "cpu": field(&read("/proc/cpuinfo"), "model name"),
        "memory": field(&read("/proc/meminfo"), "MemTotal"),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "switchyard": env!("CARGO_PKG_VERSION"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_kept_without_folders_and_passwords() {
        let typed = [
            "/a/b/switchyard",
            "size",
            "qa",
            "--config",
            "/x/t.toml",
            "--url",
            "http://me:secret@host:1/p",
        ];
        let kept = command(typed.into_iter().map(str::to_owned));
        assert_eq!(kept, "switchyard size qa --config t.toml --url http://host:1/p");
    }
}
