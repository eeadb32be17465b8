//! Clients that nobody here wrote, each through one scenario over HTTP/1.1 and HTTP/2: see
//! `tests/clients/README.md`. What they need is installed below `target/clients/`, at pinned versions.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::process::Command;
use tokio::sync::{Semaphore, mpsc};

use crate::agent::{Agent, Call, echo};
use crate::gateway::{Gateway, agent};
use crate::wire::{End, soon};

/// For an installation over the network.
const INSTALL: Duration = Duration::from_secs(300);

/// Where the clients' sources are.
fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

/// Where a client's installation goes; it is made if need be.
fn cache(client: &str) -> PathBuf {
    let binary = Path::new(env!("CARGO_BIN_EXE_switchyard"));
    // target/<profile>/switchyard
    let target = binary.parent().and_then(Path::parent).expect("a target folder");
    let folder = target.join("clients").join(client);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Runs a command to its end; fails the test with what it said, or with what is missing.
async fn run(what: &str, within: Duration, command: &mut Command) -> String {
    command.kill_on_drop(true);
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let output = match tokio::time::timeout(within, command.output()).await {
        Err(_) => panic!("{what}: {program} did not end within {within:?}"),
        Ok(Err(error)) => panic!("{what}: {program} cannot be run, is it installed? ({error})"),
        Ok(Ok(output)) => output,
    };
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (said(&output.stdout), said(&output.stderr));
    assert!(output.status.success(), "{what}: {}\n{stdout}{stderr}", output.status);
    stdout
}

/// The agent of the scenario.
async fn scenario() -> (Agent, mpsc::UnboundedReceiver<End>) {
    let seen = Arc::new(Semaphore::new(0));
    let (left, leavings) = mpsc::unbounded_channel();
    let agent = Agent::with(move |mut call| {
        let (seen, left) = (Arc::clone(&seen), left.clone());
        async move {
            match call.target() {
                "/json" | "/echo" => echo(call).await,
                "/sse" => events(call, &seen).await,
                "/seen" => {
                    seen.add_permits(1);
                    call.json("{}").await;
                }
                "/endless" => {
                    call.begin_sse().await;
                    call.event("0").await;
                    call.event("1").await;
                    let _ = left.send(call.gone().await);
                }
                _ => call.json("{}").await,
            }
        }
    })
    .await;
    (agent, leavings)
}

/// Twenty events, each sent when the one before has arrived.
async fn events(mut call: Call, seen: &Semaphore) {
    call.body().await;
    call.begin_sse().await;
    for n in 0..20 {
        call.event(&n.to_string()).await;
        soon("the client sees an event", seen.acquire()).await.unwrap().forget();
    }
    call.end().await;
}

/// Takes a client through the scenario over both protocols.
async fn check(client: &str, command: impl Fn() -> Command) {
    for version in ["1", "2"] {
        let (agent_, mut leavings) = scenario().await;
        let gateway = Gateway::start(&agent("scenario", &[agent_.addr], "")).await;
        let url = format!("http://{}/agents/scenario", gateway.addr);
        let what = format!("{client} over HTTP/{version}");
        let within = Duration::from_secs(90);
        let said = run(&what, within, command().args([&url, version])).await;
        assert_eq!(said, "json\nsse\necho\nproblem\nleft\n", "{what}");
        soon("the agent is left", leavings.recv()).await.unwrap();
        gateway.until_state("scenario", "in_flight", 0).await;
        let labels = [("agent", "scenario"), ("outcome", "client-gone")];
        gateway.until_metric("switchyard_requests_total", &labels, 1.0).await;
    }
}

#[tokio::test]
async fn curl_goes_through_the_scenario() {
    check("curl", || Command::new(sources().join("curl.sh"))).await;
}

#[tokio::test]
async fn httpx_goes_through_the_scenario() {
    let venv = cache("httpx").join("venv");
    let requirements = sources().join("requirements.txt");
    let pip = venv.join("bin/pip");
    if !pip.exists() {
        let mut make = Command::new("python3");
        run("httpx", INSTALL, make.args(["-m", "venv"]).arg(&venv)).await;
    }
    let mut install = Command::new(&pip);
    install.args(["install", "--quiet", "--disable-pip-version-check", "--requirement"]);
    run("httpx", INSTALL, install.arg(requirements)).await;
    check("httpx", || {
        let mut command = Command::new(venv.join("bin/python"));
        command.arg(sources().join("httpx_client.py"));
        command
    })
    .await;
}

#[tokio::test]
async fn undici_goes_through_the_scenario() {
    let folder = cache("undici");
    for file in ["package.json", "package-lock.json", "scenario.mjs"] {
        std::fs::copy(sources().join("undici").join(file), folder.join(file)).unwrap();
    }
    if !installed(&folder, "node_modules/.package-lock.json", "package-lock.json") {
        let mut install = Command::new("npm");
        install.args(["ci", "--no-audit", "--no-fund", "--silent"]).current_dir(&folder);
        run("undici", INSTALL, &mut install).await;
    }
    check("undici", || {
        let mut command = Command::new("node");
        command.arg(folder.join("scenario.mjs"));
        command
    })
    .await;
}

/// Whether what was installed is at least as new as the list of what is wanted, and there.
fn installed(folder: &Path, stamp: &str, wanted: &str) -> bool {
    let text = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap_or_default();
    let version = |text: String| {
        let lock: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        lock["packages"]["node_modules/undici"]["version"].clone()
    };
    !version(text(stamp)).is_null() && version(text(stamp)) == version(text(wanted))
}

#[tokio::test]
async fn net_http_goes_through_the_scenario() {
    let folder = cache("gohttp");
    let binary = folder.join("gohttp");
    let mut build = Command::new("go");
    build.arg("build").arg("-o").arg(&binary).arg(".").current_dir(sources().join("gohttp"));
    run("net/http", INSTALL, build.env("GOFLAGS", "-buildvcs=false")).await;
    check("net/http", || Command::new(&binary)).await;
}
