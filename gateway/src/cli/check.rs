//! `switchyard check`: every problem of a table, and of its manifests, with its place; or what the
//! table holds.

mod manifests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;
use config::{Problem, SecretRef, Table};
use k8s::lint::Finding;
use serde_json::{Value, json};

use super::load::{as_warning, load_text, unreadable};
use super::{terminal, units};
use manifests::{Inspected, inspect};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The table.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Check the manifests in this folder, too: that they are the table's, and that they are sound.
    #[arg(long, value_name = "DIR")]
    k8s: Option<PathBuf>,
    /// Treat what is legal but unwise as a problem.
    #[arg(long)]
    strict: bool,
    /// `text`: problems on stderr. `json`: an array of them on stdout.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// What came of a table and its manifests.
#[derive(Default)]
struct Verdict {
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
    findings: Vec<Finding>,
    /// What there is to say when all is well, a line each.
    summary: Vec<String>,
}

impl Verdict {
    fn is_good(&self) -> bool {
        self.problems.is_empty() && self.findings.is_empty()
    }
}

/// Exit code 0 when table and manifests can be used, 1 when they have problems.
pub(crate) fn run(args: &Args) -> ExitCode {
    let verdict = judge(args);
    let printed = match args.format {
        Format::Text => print_text(&verdict),
        Format::Json => terminal::print(&as_json(&verdict)),
    };
    if verdict.is_good() { printed } else { ExitCode::FAILURE }
}

fn judge(args: &Args) -> Verdict {
    let (checked, text) = match load_text(&args.config) {
        Ok(loaded) => loaded,
        Err(problems) => return Verdict { problems, ..Verdict::default() },
    };
    let mut verdict = Verdict { warnings: checked.warnings, ..Verdict::default() };
    if args.strict {
        verdict.problems = std::mem::take(&mut verdict.warnings);
    }
    verdict.summary = vec![format!("{}: {}", args.config.display(), summary(&checked.table))];
    if let Some(folder) = &args.k8s {
        match inspect((&args.config, &checked.table, &text), folder) {
            Ok(Inspected { findings, files, objects }) => {
                verdict.findings = findings;
                let (files, objects) =
                    (units::counted(files, "file"), units::counted(objects, "object"));
                let line =
                    format!("{}: {files}, {objects}: the table's, and sound", folder.display());
                verdict.summary.push(line);
            }
            Err((path, error)) => {
                verdict.problems.push(unreadable(&path.display().to_string(), &error, None));
            }
        }
    }
    verdict
}

fn print_text(verdict: &Verdict) -> ExitCode {
    verdict.problems.iter().for_each(|problem| eprintln!("{problem}"));
    verdict.warnings.iter().for_each(|warning| eprintln!("{}", as_warning(warning)));
    verdict.findings.iter().for_each(|finding| eprint!("{}", as_text(finding)));
    if !verdict.is_good() {
        return ExitCode::FAILURE;
    }
    let lines = verdict.summary.iter().map(|line| format!("{line}\n"));
    terminal::print(&lines.collect::<String>())
}

/// `file:line:col: message [id] (hint)`, and in a second line who says so.
fn as_text(finding: &Finding) -> String {
    let Finding { file, line, col, id, message, hint, source } = finding;
    let see = source.as_ref().map_or(String::new(), |source| format!("    see: {source}\n"));
    format!("{file}:{line}:{col}: {message} [{id}] ({hint})\n{see}")
}

fn as_json(verdict: &Verdict) -> String {
    let entry = |severity: &'static str| {
        move |problem: &Problem| {
            json!({
                "file": problem.file, "line": problem.line, "col": problem.col,
                "severity": severity, "id": null, "message": problem.message,
                "hint": problem.hint, "source": null,
            })
        }
    };
    let found = |finding: &Finding| {
        json!({
            "file": finding.file, "line": finding.line, "col": finding.col,
            "severity": "error", "id": finding.id, "message": finding.message,
            "hint": finding.hint, "source": finding.source,
        })
    };
    let problems = verdict.problems.iter().map(entry("error"));
    let warnings = verdict.warnings.iter().map(entry("warning"));
    let all = problems.chain(warnings).chain(verdict.findings.iter().map(found));
    format!("{:#}\n", Value::Array(all.collect()))
}

/// `2 agents (coding, qa); needs secrets agent-secrets/openai-api-key as OPENAI_API_KEY`.
fn summary(table: &Table) -> String {
    let names: Vec<_> = table.agents.keys().map(String::as_str).collect();
    let mut text = format!("{} ({})", units::counted(names.len(), "agent"), names.join(", "));
    let secrets: Vec<_> = secrets(table)
        .into_iter()
        .map(|(secret, variables)| format!("{secret} as {}", Vec::from_iter(variables).join(", ")))
        .collect();
    if !secrets.is_empty() {
        text.push_str(&format!("; needs {} {}", plural_secret(secrets.len()), secrets.join("; ")));
    }
    text
}

fn plural_secret(count: usize) -> &'static str {
    if count == 1 { "secret" } else { "secrets" }
}

/// Every `secret/key` that the table names, with the variables that it fills.
fn secrets(table: &Table) -> BTreeMap<String, BTreeSet<String>> {
    let deployments = table.agents.values().filter_map(|agent| agent.deployment.as_deref());
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for deployment in deployments.chain(table.gateway.deployment.as_ref()) {
        for (variable, SecretRef { name, key }) in &deployment.secrets {
            found.entry(format!("{name}/{key}")).or_default().insert(variable.clone());
        }
    }
    found
}
