//! What `docs/kubernetes.md` and the day by day of `docs/operations.md` have their reader type, typed:
//! every line of their `sh` blocks, in their order. What can't be run as it stands is listed here,
//! with the reason; everything else has to succeed.

use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::apply::{self, NAMESPACE};
use crate::prove::Context;
use crate::prove::cluster::{SOON, kubectl, run, until};
use crate::prove::failure::{Outcome, ensure};
use crate::prove::yard::Yard;

/// Lines that aren't run.
const NOT: &[(&str, &str)] = &[
    ("switchyard render --config my.toml | kubectl apply -f -", "a table of the reader's own"),
    ("switchyard render --config my.toml --out my-k8s", "a table of the reader's own"),
    ("k8s/images/build", "the images are there already; k8s/images/test is its own test"),
];

/// Lines that are run in another form, by how they begin.
const INSTEAD: &[(&str, &str)] = &[
    // It shows until it is told to end.
    ("switchyard status --watch", "switchyard status"),
    // A reader looks until it says True.
    (
        "kubectl get apiservice",
        "kubectl wait --for=condition=Available --timeout=120s apiservice/v1beta1.external.metrics.k8s.io",
    ),
    // The committed table parks nobody: there need be no Lease, and nothing is said of parking.
    // The proof `autoscale` parks an agent.
    (
        "kubectl get lease switchyard -n ai-agents -o yaml",
        "kubectl get lease switchyard -n ai-agents -o yaml --ignore-not-found",
    ),
    (
        "kubectl logs -n ai-agents -l app=switchyard | grep parked",
        "kubectl logs -n ai-agents -l app=switchyard | { grep parked || true; }",
    ),
    // For gateways that may make no Secret; these have made one.
    (
        "kubectl create secret generic switchyard-peers",
        "kubectl delete secret switchyard-peers -n ai-agents \
         && kubectl create secret generic switchyard-peers -n ai-agents --from-literal=key=\"$(openssl rand -hex 32)\"",
    ),
    // It ends with 1 where there is a difference, as there is after an edit.
    ("kubectl diff", "kubectl diff -k k8s/overlays/local >/dev/null || [ $? = 1 ]"),
    // There has to be something to go back from.
    (
        "kubectl rollout history deployment/coding-agent -n ai-agents",
        "kubectl set env deployment/coding-agent -n ai-agents UPDATED=yes \
         && kubectl rollout status deployment/coding-agent -n ai-agents \
         && kubectl rollout history deployment/coding-agent -n ai-agents",
    ),
    // On a cluster of one node it would take everything, and nothing could come back meanwhile.
    (
        "kubectl drain",
        "kubectl drain \"$NODE\" --ignore-daemonsets --delete-emptydir-data --timeout=120s --pod-selector=app=qa-agent",
    ),
];

/// Whole overlays are brought up as [`apply::bring_up`] does.
const APPLY: &str = "kubectl apply -k k8s/";
/// Runs until it is told to end, and prints this once it works.
const FORWARD: (&str, &str) = ("kubectl port-forward", "Forwarding from");
/// Goes through what is forwarded, whose pods may have been replaced since.
const FORWARDED: &str = "curl -s localhost:";
/// Needs metrics-server, which takes a while to measure new pods.
const TOP: &str = "kubectl top";

pub(super) async fn prove(context: &Context) -> Outcome<String> {
    apply::is_empty().await?;
    let yard = Yard::of(context, NAMESPACE)?;
    let proved = type_all(context, &yard).await;
    // Before its server: an APIService that nobody answers for holds up the end of every namespace.
    for outside in super::autoscale::OUTSIDE {
        let _ = kubectl(&[outside, &["--ignore-not-found"]].concat()).await;
    }
    let (typed, left_out) = proved?;
    for deployment in ["switchyard", "qa-agent", "coding-agent"] {
        yard.rolled_out(deployment).await?;
    }
    Ok(format!("{typed} lines typed; left out: {}", left_out.join(", ")))
}

async fn type_all(context: &Context, yard: &Yard<'_>) -> Outcome<(u32, Vec<String>)> {
    let mut typing = Typing::new(context, yard)?;
    let (mut typed, mut left_out) = (0, Vec::new());
    let metrics = has_metrics().await?;
    for line in lines(context)? {
        let reason = NOT.iter().find(|(not, _)| *not == line).map(|(_, reason)| *reason);
        let reason = reason.or((line.starts_with(TOP) && !metrics)
            .then_some("needs metrics-server, which this cluster has not"));
        if let Some(reason) = reason {
            left_out.push(format!("`{line}` ({reason})"));
            continue;
        }
        if let Some(folder) = line.strip_prefix(APPLY) {
            apply::bring_up(context, yard, folder).await?;
        } else if line.starts_with(FORWARD.0) {
            typing.forward(&line).await?;
        } else if line.starts_with(TOP) {
            until(&line, SOON, async || typing.run(&line).await.map(Some)).await?;
        } else {
            if line.starts_with(FORWARDED) {
                yard.rolled_out("switchyard").await?;
                typing.forward_again().await?;
            }
            let instead = INSTEAD.iter().find(|(begin, _)| line.starts_with(begin));
            typing.run(instead.map_or(line.as_str(), |(_, instead)| instead)).await?;
        }
        typed += 1;
    }
    Ok((typed, left_out))
}

/// Every line to type, without its comment.
fn lines(context: &Context) -> Outcome<Vec<String>> {
    let page =
        |name: &str| std::fs::read_to_string(context.settings.repository.join("docs").join(name));
    let mut lines = blocks(&page("kubernetes.md")?);
    ensure(lines.len() > 10, || format!("docs/kubernetes.md has {lines:?}"))?;
    let operations = page("operations.md")?;
    let begin = operations.split_once("\n## In Kubernetes, day by day\n");
    let days = begin.ok_or("docs/operations.md has no day by day in Kubernetes")?.1;
    let days = blocks(days.split_once("\n## ").map_or(days, |(days, _)| days));
    ensure(days.len() > 10, || format!("docs/operations.md has {days:?}"))?;
    lines.extend(days);
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
    /// Variables that were set on the way, as they were typed.
    set: String,
    forwards: Vec<Forward>,
}

/// What runs until it is dropped, and has to find a reader for what it says.
struct Forward {
    line: String,
    child: Child,
    said: Lines<BufReader<ChildStdout>>,
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
            set: String::new(),
            forwards: Vec::new(),
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

    async fn run(&mut self, line: &str) -> Outcome {
        let script = format!("cd '{}' && {}{line}", self.root, self.set);
        run("bash", &["-o", "pipefail", "-c", &script], "", &self.variables()).await?;
        let name = line.split_once('=').map_or("", |(name, _)| name);
        if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_uppercase()) {
            self.set.push_str(&format!("{line} && "));
        }
        Ok(())
    }

    /// Starts it, and waits until it works; it ends when dropped.
    async fn forward(&mut self, line: &str) -> Outcome {
        let mut command = Command::new("bash");
        command.args(["-c", &format!("exec {line}")]).envs(self.variables()).kill_on_drop(true);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut said = BufReader::new(child.stdout.take().ok_or("no stdout")?).lines();
        let first = tokio::time::timeout(SOON, said.next_line()).await;
        let first = first.map_err(|_| format!("{line}: says nothing"))??.unwrap_or_default();
        ensure(first.contains(FORWARD.1), || format!("{line}: {first}"))?;
        self.forwards.push(Forward { line: line.to_owned(), child, said });
        Ok(())
    }

    /// Ends what is forwarded, and starts it again.
    async fn forward_again(&mut self) -> Outcome {
        for Forward { line, mut child, said } in std::mem::take(&mut self.forwards) {
            child.kill().await?;
            drop(said);
            self.forward(&line).await?;
        }
        Ok(())
    }
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
