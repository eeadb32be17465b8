//! Label selectors, as far as they name agent types: `agent=qa`, `agent in (qa, coding)`.

use config::names::LOAD_LABEL;

/// What a selector asks for: each entry the types that one of its requirements admits, all of
/// which hold. None: every type.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Selector(Vec<Vec<String>>);

/// A selector that is understood by nobody here.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "label selector {0:?}: understood are {LOAD_LABEL}=TYPE, {LOAD_LABEL}==TYPE and \
     {LOAD_LABEL} in (TYPE, …)"
)]
pub(super) struct NotUnderstood(String);

impl Selector {
    /// Reads what stands in a query, decoded.
    ///
    /// # Errors
    /// With another label than that of the type, another operator, or no sense.
    pub(super) fn parse(text: &str) -> Result<Self, NotUnderstood> {
        let requirements = requirements(text).into_iter().filter(|one| !one.trim().is_empty());
        let types = requirements.map(|one| types(one).ok_or_else(|| NotUnderstood(text.into())));
        types.collect::<Result<_, _>>().map(Self)
    }

    /// Whether a type is asked for.
    pub(super) fn admits(&self, agent: &str) -> bool {
        self.0.iter().all(|types| types.iter().any(|admitted| admitted == agent))
    }
}

/// What stands between the commas that are in no parentheses.
fn requirements(text: &str) -> Vec<&str> {
    let mut inside = false;
    let between = |c: char| {
        match c {
            '(' => inside = true,
            ')' => inside = false,
            _ => {}
        }
        c == ',' && !inside
    };
    text.split(between).collect()
}

/// The types that one requirement admits; `None`: it is not understood.
fn types(requirement: &str) -> Option<Vec<String>> {
    let after = requirement.trim().strip_prefix(LOAD_LABEL)?;
    let operator = after.trim_start();
    if let Some(value) = operator.strip_prefix("==").or_else(|| operator.strip_prefix('=')) {
        return Some(vec![value_of(value)?]);
    }
    let set = operator.strip_prefix("in").filter(|_| after.len() > operator.len())?;
    let values = set.trim_start().strip_prefix('(')?.strip_suffix(')')?;
    values.split(',').map(value_of).collect()
}

/// A label's value: what a type may be called, or anything else that Kubernetes allows.
fn value_of(text: &str) -> Option<String> {
    let value = text.trim();
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (!value.is_empty() && value.chars().all(allowed)).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[&str]) {
        let selector = Selector::parse(text).unwrap_or_else(|error| panic!("{error}"));
        let admitted: Vec<_> =
            ["a", "b", "c-1"].into_iter().filter(|agent| selector.admits(agent)).collect();
        assert_eq!(admitted, expected, "{text}");
    }

    #[test]
    fn one_type_is_asked_for() {
        for text in ["agent=a", "agent==a", " agent = a ", "agent in (a)", "agent  in( a )"] {
            check(text, &["a"]);
        }
    }

    #[test]
    fn several_are() {
        check("agent in (a,c-1)", &["a", "c-1"]);
        check("agent in (b, a, nobody)", &["a", "b"]);
        check("agent=nobody", &[]);
    }

    #[test]
    fn all_requirements_hold() {
        check("agent in (a,b),agent=b", &["b"]);
        check("agent=a,agent=b", &[]);
    }

    #[test]
    fn none_is_every_type() {
        check("", &["a", "b", "c-1"]);
    }

    #[test]
    fn what_else_there_is_is_not_understood() {
        for text in [
            "agent",
            "!agent",
            "agent!=a",
            "agent notin (a)",
            "agent>1",
            "agent in a",
            "agent in (a",
            "agent in ()",
            "agent in (a,)",
            "agent ina",
            "agentin (a)",
            "agent=",
            "agent=a b",
            "agent=a=b",
            "agents=a",
            "type=a",
            "agent=a,tier=gold",
        ] {
            let error = Selector::parse(text).unwrap_err().to_string();
            assert!(error.contains("agent=TYPE"), "{text}: {error}");
        }
    }
}
