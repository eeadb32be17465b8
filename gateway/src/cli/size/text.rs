//! Text that is made up for requests, and templates that it is put into.

use statrs::function::erf::erf_inv;

/// Common words: what is sent has words of usual lengths, which can be searched for and counted as
/// tokens, and is about nothing.
const WORDS: [&str; 40] = [
    "the",
    "a",
    "how",
    "what",
    "is",
    "are",
    "of",
    "to",
    "in",
    "and",
    "for",
    "with",
    "when",
    "where",
    "why",
    "which",
    "does",
    "can",
    "list",
    "show",
    "find",
    "file",
    "page",
    "value",
    "change",
    "limit",
    "request",
    "answer",
    "memory",
    "table",
    "error",
    "service",
    "explain",
    "compare",
    "between",
    "number",
    "example",
    "running",
    "started",
    "documentation",
];

/// So many bytes of words.
pub(super) fn made(bytes: u64, random: &mut fastrand::Rng) -> String {
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX).max(1);
    let mut text = String::with_capacity(bytes + 16);
    while text.len() < bytes {
        text.push_str(WORDS[random.usize(..WORDS.len())]);
        text.push(' ');
    }
    // All words are ASCII. An input that ends in a space would be a byte shorter to some agents.
    text.truncate(bytes);
    if text.ends_with(' ') {
        text.replace_range(bytes - 1.., "?");
    }
    text
}

/// A template with `{{input}}` (as a JSON string), `{{text}}` (as it is), `{{n}}` (the request's number) and
/// `{{uuid}}` filled in.
pub(super) fn fill(template: &str, input: &str, n: u64) -> String {
    let mut out = String::with_capacity(template.len() + input.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        out.push_str(before);
        let Some((name, behind)) = after.split_once("}}") else {
            out.push_str("{{");
            rest = after;
            continue;
        };
        match name.trim() {
            "input" => out.push_str(&serde_json::Value::from(input).to_string()),
            "text" => out.push_str(input),
            "n" => out.push_str(&n.to_string()),
            "uuid" => out.push_str(&uuid::Uuid::now_v7().to_string()),
            _ => {
                out.push_str("{{");
                rest = after;
                continue;
            }
        }
        rest = behind;
    }
    out.push_str(rest);
    out
}

/// The standard normal quantile.
pub(super) fn normal(part: f64) -> f64 {
    std::f64::consts::SQRT_2 * erf_inv(2.0 * part - 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_as_long_as_asked() {
        let mut random = fastrand::Rng::with_seed(1);
        for bytes in [1, 5, 1000] {
            let text = made(bytes, &mut random);
            assert_eq!(text.len() as u64, bytes);
            assert!(!text.ends_with(' '));
        }
    }

    #[test]
    fn templates_are_filled_and_other_braces_left() {
        let filled = fill("{\"a\": {{input}}, \"b\": \"{{ text }}\", {{n}} {{x}} {{", "q\"", 7);
        assert_eq!(filled, "{\"a\": \"q\\\"\", \"b\": \"q\"\", 7 {{x}} {{");
        assert_eq!(fill("{{uuid}}", "", 1).len(), 36);
    }

    #[test]
    fn normal_quantiles_are_the_tables_ones() {
        assert!((normal(0.99) - 2.3263).abs() < 1e-3 && normal(0.5).abs() < 1e-9);
    }
}
