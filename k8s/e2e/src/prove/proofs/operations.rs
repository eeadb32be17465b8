//! What `docs/kubernetes.md` has its reader type, typed: every line of its `sh` blocks in their
//! order, and those of `docs/operations.md` that begin with `kubectl`. What can't be run as it
//! stands is listed here, with the reason; everything else has to succeed.

use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::apply::{self, NAMESPACE};
use crate::prove::Context;
use crate::prove::cluster::{SOON, kubectl, run};
use crate::prove::failure::{Outcome, ensure};
use crate::prove::yard::Yard;

/// Lines that aren't run.
const NOT: &[(&str, &str)] = &[
    ("switchyard render --config my.toml | kubectl apply -f -", "a table of the reader's own"),
    ("switchyard render --config my.toml --out my-k8s", "a table of the reader's own"),
    ("k8s/images/build", "the images are there already; k8s/images/test is its own test"),
    ("kubectl top pods -n ai-agents", "needs metrics-server, which this cluster has not"),
];

/// Lines that are run in another form.
const INSTEAD: &[(&str, &str)] = &[
    // It shows until it is told to end.
    ("switchyard status --watch", "switchyard status"),
    // It ends with 1 where there is a difference, and there is: the overlay, and the edit.
    ("kubectl diff -k k8s/base", "kubectl diff -k k8s/overlays/local >/dev/null || [ $? = 1 ]"),
    // There has to be something to go back from.
    (
        "kubectl rollout history deployment/coding-agent -n ai-agents",
        "kubectl set env deployment/coding-agent -n ai-agents UPDATED=yes \
         && kubectl rollout status deployment/coding-agent -n ai-agents \
         && kubectl rollout history deployment/coding-agent -n ai-agents",
    ),
];

/// The overlay `local` is taken wherever the page says base: it asks for what a small machine has.
const APPLY: &str = "kubectl apply -k k8s/";
/// Runs until it is told to end, and prints this once it works.
const FORWARD: (&str, &str) = ("kubectl port-forward", "Forwarding from");

pub(super) async fn prove(context: &Context) -> Outcome<String> {
    apply::is_empty().await?;
    let yard = Yard::of(context, NAMESPACE)?;
    let typing = Typing::new(context, &yard)?;
    let (mut typed, mut left_out) = (0, Vec::new());
    let mut forwards = Vec::new();
    for line in lines(context)? {
        let metrics = line.starts_with("kubectl top") && has_metrics().await?;
        let reason = NOT.iter().find(|(not, _)| *not == line && !metrics);
        if let Some((_, reason)) = reason {
            left_out.push(format!("`{line}` ({reason})"));
            continue;
        }
        if line.starts_with(APPLY) {
            apply::bring_up(context, "local").await?;
        } else if line.starts_with(FORWARD.0) {
            forwards.push(typing.forward(&line).await?);
        } else {
            let instead = INSTEAD.iter().find(|(as_typed, _)| *as_typed == line);
            typing.run(instead.map_or(line.as_str(), |(_, instead)| instead)).await?;
        }
        typed += 1;
    }
    drop(forwards);
    drain(&yard).await?;
    for deployment in ["switchyard", "qa-agent", "coding-agent"] {
        yard.rolled_out(deployment).await?;
    }
    Ok(format!("{typed} lines typed, and a drain; left out: {}", left_out.join(", ")))
}

/// Every line to type, without its comment.
fn lines(context: &Context) -> Outcome<Vec<String>> {
    let page =
        |name: &str| std::fs::read_to_string(context.settings.repository.join("docs").join(name));
    let mut lines = blocks(&page("kubernetes.md")?);
    ensure(lines.len() > 10, || format!("docs/kubernetes.md has {lines:?}"))?;
    let others = blocks(&page("operations.md")?);
    lines.extend(others.into_iter().filter(|line| line.starts_with("kubectl")));
    Ok(lines)
}

fn blocks(page: &str) -> Vec<String> {
    let (mut lines, mut inside, mut begun) = (Vec::new(), false, String::new());
    for line in page.lines() {
        match line {
            "```sh" => inside = true,
            "```" => inside = false,
            _ if inside => {
                let code = line.split_once(" # ").map_or(line, |(code, _)| code).trim();
                begun.push_str(code.trim_end_matches('\\'));
                if !code.ends_with('\\') && !begun.is_empty() {
                    lines.push(std::mem::take(&mut begun));
                }
            }
            _ => {}
        }
    }
    lines
}

async fn has_metrics() -> Outcome<bool> {
    let args = ["get", "apiservice", "v1beta1.metrics.k8s.io", "--ignore-not-found", "-o", "name"];
    Ok(!kubectl(&args).await?.trim().is_empty())
}

/// A reader at the repository's root.
struct Typing {
    root: String,
    path: String,
    editor: String,
}

impl Typing {
    fn new(context: &Context, yard: &Yard<'_>) -> Outcome<Self> {
        let editor = yard.folder().join("editor");
        std::fs::write(
            &editor,
            "#!/bin/sh\nexec sed -i 's/Writes and runs code/Writes code/' \"$1\"\n",
        )?;
        std::fs::set_permissions(&editor, std::fs::Permissions::from_mode(0o755))?;
        let switchyard = std::path::absolute(&context.settings.switchyard)?;
        let beside = switchyard.parent().ok_or("switchyard has no folder")?.display().to_string();
        let others = std::env::var("PATH").unwrap_or_default();
        Ok(Self {
            root: context.settings.repository.display().to_string(),
            path: format!("{beside}:{others}"),
            editor: editor.display().to_string(),
        })
    }

    fn variables(&self) -> [(&str, &str); 4] {
        [
            ("PATH", &self.path),
            ("EDITOR", &self.editor),
            ("KUBE_EDITOR", &self.editor),
            ("OPENAI_API_KEY", "a-key"),
        ]
    }

    async fn run(&self, line: &str) -> Outcome {
        let line = format!("cd '{}' && {line}", self.root);
        run("bash", &["-o", "pipefail", "-c", &line], "", &self.variables()).await.map(drop)
    }

    /// Starts it, and waits until it works; it ends when dropped.
    async fn forward(&self, line: &str) -> Outcome<Child> {
        let mut command = Command::new("bash");
        command.args(["-c", &format!("exec {line}")]).envs(self.variables()).kill_on_drop(true);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let said = BufReader::new(child.stdout.take().ok_or("no stdout")?);
        let first = tokio::time::timeout(SOON, said.lines().next_line()).await;
        let first = first.map_err(|_| format!("{line}: says nothing"))??.unwrap_or_default();
        ensure(first.contains(FORWARD.1), || format!("{line}: {first}"))?;
        Ok(child)
    }
}

/// `kubectl drain`, as the page has it, but of one Deployment's pods: on a cluster of one node it
/// would take everything, this proof's own pods too.
async fn drain(yard: &Yard<'_>) -> Outcome {
    let pods = yard.json(&["get", "pods", "-l", "app=qa-agent"]).await?;
    let node = pods["items"][0]["spec"]["nodeName"].as_str().ok_or("no pod of qa-agent")?;
    let drained = kubectl(&[
        "drain",
        node,
        "--ignore-daemonsets",
        "--delete-emptydir-data",
        "--pod-selector=app=qa-agent",
        "--timeout=120s",
    ])
    .await;
    kubectl(&["uncordon", node]).await?;
    drained.map(drop)
}

#[cfg(test)]
mod tests {
    use super::blocks;

    #[test]
    fn lines_are_typed_without_their_comments() {
        let page = "a\n```sh\none -x     # why\ntwo \\\n  -y\n```\nb\n```yaml\nthree: 3\n```\n";
        assert_eq!(blocks(page), ["one -x", "two -y"]);
    }
}
