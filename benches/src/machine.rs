//! The binary that is measured, and the machine it is measured on.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// What `SWITCHYARD_BIN` names, or what `gateway/release` makes now.
pub fn binary() -> io::Result<PathBuf> {
    if let Some(binary) = std::env::var_os("SWITCHYARD_BIN") {
        return PathBuf::from(binary).canonicalize();
    }
    let release = workspace().join("gateway/release");
    let built = Command::new(release).stderr(Stdio::inherit()).output()?;
    let text = String::from_utf8_lossy(&built.stdout);
    match text.lines().next_back().filter(|_| built.status.success()) {
        Some(path) => Ok(path.into()),
        None => Err(io::Error::other("gateway/release can't build switchyard")),
    }
}

/// Cores, processor, kernel, compiler, commit, and which binary was measured.
pub fn machine(binary: &Path) -> Value {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find(|line| line.starts_with("model name"));
    let model = model.and_then(|line| line.split_once(": ")).map_or("unknown", |(_, model)| model);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let commit = said("git", &["describe", "--always", "--dirty", "--exclude", "*"]);
    let own_build = std::env::var_os("SWITCHYARD_BIN").is_none();
    // Runs are handed on: where it lay on this machine is nobody's business.
    let name = binary.file_name().unwrap_or_default().to_string_lossy();
    let binary = if own_build { "release build".into() } else { name };
    json!({ "cores": cores, "cpu": model, "kernel": kernel.trim(),
        "rustc": said("rustc", &["--version"]), "commit": commit, "binary": binary })
}

/// The machine in one line.
pub fn line(machine: &Value) -> String {
    let word = |key: &str| machine[key].as_str().unwrap_or("?");
    format!(
        "{} cores ({}), Linux {}, {}, commit {}, {}",
        machine["cores"],
        word("cpu"),
        word("kernel"),
        word("rustc"),
        word("commit"),
        word("binary"),
    )
}

fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(workspace()).output();
    let said = output.ok().filter(|output| output.status.success());
    said.map_or("unknown".to_owned(), |output| {
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    })
}

fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Raises the descriptor limit as far as it goes: a thousand streams take two thousand.
pub fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Where it is refused, the row that needs them says so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// Keeps this thread, and what it starts from now on, on these cores. Where there are fewer, or it
/// isn't allowed, everything stays where it was.
pub fn stay_on(cores: &[usize]) {
    use rustix::thread::{CpuSet, sched_setaffinity};
    let mut set = CpuSet::new();
    cores.iter().for_each(|core| set.set(*core));
    let _ = sched_setaffinity(None, &set);
}
