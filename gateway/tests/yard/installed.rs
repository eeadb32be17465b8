//! The agents of `agents/examples/`, with what they need installed below `target/clients/`, at pinned versions.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;
use tokio::sync::OnceCell;

use crate::harness::{outcome, project};

/// For an installation over the network.
pub const INSTALL: Duration = Duration::from_secs(300);

/// An example that can be run.
#[derive(Clone, Debug)]
pub struct Example {
    /// Its name, and its type in the table.
    pub name: &'static str,
    /// What starts it, as it stands in the table.
    pub command: [String; 2],
}

/// Both. They are installed once for all tests.
pub async fn examples() -> [Example; 2] {
    static PYTHON: OnceCell<Example> = OnceCell::const_new();
    static NODE: OnceCell<Example> = OnceCell::const_new();
    let (python, node) = tokio::join!(PYTHON.get_or_init(fastapi), NODE.get_or_init(node));
    [python.clone(), node.clone()]
}

/// The FastAPI agent, run from its own folder.
async fn fastapi() -> Example {
    let source = project().join("agents/examples/fastapi");
    let folder = cache("fastapi");
    let venv = folder.join("venv");
    let wanted = std::fs::read_to_string(source.join("requirements.txt")).unwrap();
    let stamp = folder.join("installed");
    if std::fs::read_to_string(&stamp).ok().as_ref() != Some(&wanted) {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv)).await;
        let mut install = Command::new(venv.join("bin/pip"));
        install.args(["install", "--quiet", "--disable-pip-version-check", "--requirement"]);
        run(install.arg(source.join("requirements.txt"))).await;
        std::fs::write(&stamp, &wanted).unwrap();
    }
    let command = [text(&venv.join("bin/python")), text(&source.join("agent.py"))];
    Example { name: "fastapi", command }
}

/// The Node agent. Node looks for packages beside a program, so that it is copied to where they are.
async fn node() -> Example {
    let source = project().join("agents/examples/node");
    let folder = cache("node");
    let stamp = folder.join("installed");
    let wanted = std::fs::read_to_string(source.join("package-lock.json")).unwrap();
    for file in ["package.json", "package-lock.json", "agent.mjs", "serving.mjs"] {
        std::fs::copy(source.join(file), folder.join(file)).unwrap();
    }
    if std::fs::read_to_string(&stamp).ok().as_ref() != Some(&wanted) {
        let mut install = Command::new("npm");
        install.args(["ci", "--no-audit", "--no-fund", "--silent"]).current_dir(&folder);
        run(&mut install).await;
        std::fs::write(&stamp, &wanted).unwrap();
    }
    Example { name: "node", command: ["node".to_owned(), text(&folder.join("agent.mjs"))] }
}

/// Where an installation goes; it is made if need be.
fn cache(name: &str) -> PathBuf {
    // target/<profile>/switchyard
    let binary = Path::new(env!("CARGO_BIN_EXE_switchyard"));
    let target = binary.parent().and_then(Path::parent).expect("a target folder");
    let folder = target.join("clients/examples").join(name);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// Runs a command to its end, which has to be a good one.
async fn run(command: &mut Command) {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let ended = tokio::time::timeout(INSTALL, command.kill_on_drop(true).output()).await;
    let output = ended.unwrap_or_else(|_| panic!("{program} did not end within {INSTALL:?}"));
    let output =
        output.unwrap_or_else(|e| panic!("{program} can't be run, is it installed? ({e})"));
    let (code, out, err) = outcome(output);
    assert_eq!(code, Some(0), "{program}: {out}{err}");
}
