//! `switchyard check`: every problem of a table with its place, or what the table holds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;
use config::{Problem, SecretRef, Table};
use serde_json::json;

use super::load::{as_warning, load};
use super::{terminal, units};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The table.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
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

/// What came of a table: its problems, what is unwise about it, and itself when it has no problem.
struct Verdict {
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
    table: Option<Table>,
}

/// Exit code 0 when the table can be used, 1 when it has problems.
pub(crate) fn run(args: &Args) -> ExitCode {
    let verdict = judge(args);
    let printed = match args.format {
        Format::Text => print_text(args, &verdict),
        Format::Json => terminal::print(&as_json(&verdict)),
    };
    if verdict.problems.is_empty() { printed } else { ExitCode::FAILURE }
}

fn judge(args: &Args) -> Verdict {
    match load(&args.config) {
        Ok(checked) if args.strict && !checked.warnings.is_empty() => {
            Verdict { problems: checked.warnings, warnings: Vec::new(), table: None }
        }
        Ok(checked) => {
            Verdict { problems: Vec::new(), warnings: checked.warnings, table: Some(checked.table) }
        }
        Err(problems) => Verdict { problems, warnings: Vec::new(), table: None },
    }
}

fn print_text(args: &Args, verdict: &Verdict) -> ExitCode {
    verdict.problems.iter().for_each(|problem| eprintln!("{problem}"));
    verdict.warnings.iter().for_each(|warning| eprintln!("{}", as_warning(warning)));
    match &verdict.table {
        Some(table) => terminal::print(&format!("{}: {}\n", args.config.display(), summary(table))),
        None => ExitCode::FAILURE,
    }
}

fn as_json(verdict: &Verdict) -> String {
    let entry = |severity: &'static str| {
        move |problem: &Problem| {
            json!({
                "file": problem.file, "line": problem.line, "col": problem.col,
                "severity": severity, "message": problem.message, "hint": problem.hint,
            })
        }
    };
    let problems = verdict.problems.iter().map(entry("error"));
    let all: Vec<_> = problems.chain(verdict.warnings.iter().map(entry("warning"))).collect();
    format!("{:#}\n", serde_json::Value::Array(all))
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
    let deployments = table.agents.values().filter_map(|agent| agent.deployment.as_ref());
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for deployment in deployments.chain(table.gateway.deployment.as_ref()) {
        for (variable, SecretRef { name, key }) in &deployment.secrets {
            found.entry(format!("{name}/{key}")).or_default().insert(variable.clone());
        }
    }
    found
}
