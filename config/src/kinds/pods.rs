//! Values that Kubernetes and the process give their form: names, images, variables, secrets.

use serde_json::json;
use toml::de::DeValue;

use crate::kinds::{Scalar, text};
use crate::reader::{Wrong, quoted};
use crate::section::{Leaf, Name};
use crate::table::SecretRef;

/// An environment variable's value: any text without NUL. Never repeated in a message.
pub(crate) struct EnvValue;

impl Scalar for EnvValue {
    type Value = String;
    const ECHO: bool = false;

    fn leaf() -> Leaf {
        let schema = json!({"type": "string"});
        Leaf::new("a string", "\"value\"", schema)
    }

    fn parse(value: &DeValue<'_>) -> Result<String, Wrong> {
        let written = text(value)?;
        if written.contains('\0') {
            return Err(Wrong::Because("cannot hold a NUL".to_owned()));
        }
        Ok(written.to_owned())
    }
}

/// A Secret and a key in it. Never repeated in a message: it may be the secret itself.
pub(crate) struct Secret;

impl Scalar for Secret {
    type Value = SecretRef;
    const ECHO: bool = false;

    fn leaf() -> Leaf {
        Leaf::new(
            "the name of a Secret and a key in it",
            "\"agent-secrets/openai-api-key\"",
            json!({"type": "string", "pattern": "^[a-z0-9]([-.a-z0-9]*[a-z0-9])?/[-._a-zA-Z0-9]+$"}),
        )
    }

    fn parse(value: &DeValue<'_>) -> Result<SecretRef, Wrong> {
        let (name, key) = text(value)?.split_once('/').ok_or(Wrong::Kind)?;
        let key_fits = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        let named = name.split('.').all(is_label) && name.len() <= 253;
        if !named || key.is_empty() || key.len() > 253 || !key.bytes().all(key_fits) {
            return Err(Wrong::Kind);
        }
        Ok(SecretRef { name: name.to_owned(), key: key.to_owned() })
    }
}

/// Whether it is a DNS-1123 label: 1 to 63 of `a-z 0-9 -`, no dash at either end.
pub(crate) fn is_label(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(fits)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// A type of agents.
pub(crate) struct AgentType;

impl Name for AgentType {
    const PLACEHOLDER: &'static str = "NAME";

    fn leaf() -> Leaf {
        Leaf::new(
            "a DNS-1123 label",
            "coding",
            json!({"pattern": "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"}),
        )
    }

    fn check(name: &str) -> Result<(), (String, Option<String>)> {
        if is_label(name) {
            return Ok(());
        }
        let message = format!(
            "`{}` is no agent type: a type is 1 to 63 of a-z, 0-9 and -, with no - at its ends",
            quoted(name)
        );
        let mapped = name.to_lowercase().replace([' ', '_', '.'], "-");
        let rather = mapped.trim_matches('-');
        Err((message, is_label(rather).then(|| format!("write [agents.{rather}]"))))
    }
}

/// The name of an environment variable.
pub(crate) struct Variable;

impl Name for Variable {
    const PLACEHOLDER: &'static str = "VARIABLE";

    fn leaf() -> Leaf {
        Leaf::new(
            "the name of an environment variable",
            "AGENT_MODEL",
            json!({"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"}),
        )
    }

    fn check(name: &str) -> Result<(), (String, Option<String>)> {
        if is_variable(name) {
            return Ok(());
        }
        let message = format!(
            "`{}` is no name of a variable: letters, digits and _, no digit first",
            quoted(name)
        );
        let rather = name.to_uppercase().replace(['-', '.', ' '], "_");
        Err((message, is_variable(&rather).then(|| format!("write {rather}"))))
    }
}

/// Whether a shell would take it for a variable's name.
fn is_variable(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !name.is_empty() && name.chars().all(fits) && !name.starts_with(|c: char| c.is_ascii_digit())
}

/// One word of a command line.
pub(crate) struct Argument;

impl Scalar for Argument {
    type Value = String;
    const ECHO: bool = false;

    fn leaf() -> Leaf {
        let example = "\"agent\", \"--type\", \"qa\"".to_owned();
        Leaf::new("a string", example, json!({"type": "string"}))
    }

    fn parse(value: &DeValue<'_>) -> Result<String, Wrong> {
        let written = text(value)?;
        if written.contains('\0') {
            return Err(Wrong::Because("cannot hold a NUL".to_owned()));
        }
        Ok(written.to_owned())
    }
}

/// A container image.
pub(crate) struct Image;

impl Scalar for Image {
    type Value = String;

    fn leaf() -> Leaf {
        Leaf::new(
            "a container image",
            "\"registry.example.com/agent:1.0.0\"",
            json!({"type": "string", "pattern": "^[A-Za-z0-9][-A-Za-z0-9._/:@]*$"}),
        )
    }

    fn parse(value: &DeValue<'_>) -> Result<String, Wrong> {
        let written = text(value)?;
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"-._/:@".contains(&b);
        let starts = written.starts_with(|c: char| c.is_ascii_alphanumeric());
        if starts && written.bytes().all(fits) { Ok(written.to_owned()) } else { Err(Wrong::Kind) }
    }
}

/// A DNS-1123 label.
pub(crate) struct Label;

impl Scalar for Label {
    type Value = String;

    fn leaf() -> Leaf {
        Leaf::new(
            "a DNS-1123 label (1 to 63 of a-z, 0-9 and -)",
            "\"ai-agents\"",
            json!({"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"}),
        )
    }

    fn parse(value: &DeValue<'_>) -> Result<String, Wrong> {
        let written = text(value)?;
        if is_label(written) { Ok(written.to_owned()) } else { Err(Wrong::Kind) }
    }
}

/// A Kubernetes Service: `name` or `name.namespace`, and a port for those who go by DNS.
pub(crate) struct Service;

impl Scalar for Service {
    type Value = String;

    fn leaf() -> Leaf {
        let label = "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?";
        Leaf::new(
            "a Service's name, or name.namespace",
            "\"coding-agent\"",
            json!({
                "type": "string",
                "pattern": format!("^{label}(\\.{label})?(:[1-9][0-9]{{0,4}})?$"),
            }),
        )
    }

    fn parse(value: &DeValue<'_>) -> Result<String, Wrong> {
        let written = text(value)?;
        let (name, port) = written.split_once(':').unwrap_or((written, "80"));
        // As written without further ado: no sign, no leading zero.
        if port.starts_with(['0', '+']) || port.parse::<u16>().is_err() {
            return Err(Wrong::Kind);
        }
        let labels: Vec<&str> = name.split('.').collect();
        if !labels.iter().all(|label| is_label(label)) {
            return Err(Wrong::Kind);
        }
        match labels[..] {
            [_] | [_, _] => Ok(written.to_owned()),
            [name, namespace, "svc", ..] => Err(Wrong::Rather(
                "takes a Service's name, or name.namespace".to_owned(),
                format!("write \"{name}.{namespace}\""),
            )),
            _ => Err(Wrong::Kind),
        }
    }
}
