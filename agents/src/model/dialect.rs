//! Tools for servers that know none: told of in the prompt, called by JSON in the text. What a model writes is seldom
//! quite JSON, so it is repaired before it is read.

use serde_json::{Map, Value, json};

use super::wire::Call;

const TAG: &str = "<tool_call>";
const END_TAG: &str = "</tool_call>";

/// The messages for a server that takes neither tools nor their results: both become text.
pub(super) fn as_text(messages: &[Value], tools: &Value) -> Vec<Value> {
    let mut told: Vec<Value> = Vec::new();
    for message in messages {
        let (role, text) = match message["role"].as_str() {
            Some("tool") => ("user", result(message)),
            Some("assistant") if message["tool_calls"].is_array() => ("assistant", calls(message)),
            role => (role.unwrap_or("user"), text(message)),
        };
        match told.last_mut() {
            // Most templates want user and assistant in turns.
            Some(last) if last["role"] == role => {
                last["content"] = json!(format!("{}\n\n{text}", self::text(last)));
            }
            _ => told.push(json!({"role": role, "content": text})),
        }
    }
    with_system(told, &described(tools))
}

/// The messages with `more` at the end of the system's.
pub(super) fn with_system(mut messages: Vec<Value>, more: &str) -> Vec<Value> {
    match messages.first_mut() {
        Some(first) if first["role"] == "system" => {
            first["content"] = json!(format!("{}\n\n{more}", text(first)));
        }
        _ => messages.insert(0, json!({"role": "system", "content": more})),
    }
    messages
}

fn text(message: &Value) -> String {
    message["content"].as_str().unwrap_or_default().to_owned()
}

fn result(message: &Value) -> String {
    let id = message["tool_call_id"].as_str().unwrap_or_default();
    format!("Result of {id}:\n{}", text(message))
}

fn calls(message: &Value) -> String {
    let calls = message["tool_calls"].as_array().map_or(&[][..], Vec::as_slice);
    let lines = calls.iter().map(|call| {
        let function = &call["function"];
        let arguments = function["arguments"].as_str().unwrap_or("{}");
        let arguments: Value = serde_json::from_str(arguments).unwrap_or_else(|_| json!({}));
        let call = json!({"tool": function["name"], "arguments": arguments});
        format!("{TAG}{call}{END_TAG}")
    });
    let said = text(message);
    let lines = lines.collect::<Vec<_>>().join("\n");
    if said.trim().is_empty() { lines } else { format!("{said}\n{lines}") }
}

fn described(tools: &Value) -> String {
    let functions = tools.as_array().map_or(&[][..], Vec::as_slice).iter();
    let functions: Vec<String> = functions.map(|tool| tool["function"].to_string()).collect();
    format!(
        "You can use these tools:\n{}\nTo use one, answer with nothing but a line such as\n\
         {TAG}{{\"tool\": \"NAME\", \"arguments\": {{…}}}}{END_TAG}\n\
         for each call, and you will be told the results. When you need no tool, answer in plain text.",
        functions.join("\n")
    )
}

/// Whether a text that begins like this may turn out to be calls. `lenient`: the server takes no tools, so that calls
/// can only come as text.
pub(super) fn may_be_calls(beginning: &str, lenient: bool) -> bool {
    let text = beginning.trim_start();
    let tag = text.starts_with(TAG) || TAG.starts_with(text);
    let json = ["{", "```"].iter().any(|mark| text.starts_with(mark) || mark.starts_with(text));
    tag || (lenient && json)
}

/// The calls in a text; none when it is an answer. Where calls can come otherwise, only a tag makes one: a model may show
/// JSON to its reader.
pub(super) fn calls_in(text: &str, tools: &Value, lenient: bool) -> Vec<Call> {
    let bare = text.trim();
    let candidates: Vec<&str> = match bare.find(TAG) {
        Some(at) => bare[at..].split(TAG).skip(1).map(until_end_tag).collect(),
        None if lenient => vec![without_fence(bare)],
        None => Vec::new(),
    };
    let calls = candidates.iter().filter_map(|candidate| call(candidate, tools));
    calls.collect()
}

fn until_end_tag(text: &str) -> &str {
    text.split(END_TAG).next().unwrap_or(text)
}

fn without_fence(text: &str) -> &str {
    let Some(inner) = text.strip_prefix("```") else { return text };
    let inner = inner.split_once('\n').map_or(inner, |(_, inner)| inner);
    inner.trim_end().strip_suffix("```").unwrap_or(inner)
}

fn call(text: &str, tools: &Value) -> Option<Call> {
    if !text.trim_start().starts_with('{') {
        return None;
    }
    let object = object(text)?;
    let inner = object.get("function").and_then(Value::as_object).unwrap_or(&object);
    let name = ["tool", "name"].iter().find_map(|key| inner.get(*key)?.as_str())?;
    let known = tools.as_array()?.iter().any(|tool| tool["function"]["name"] == name);
    let arguments = ["arguments", "parameters", "args"].iter().find_map(|key| inner.get(*key));
    let arguments = match arguments {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => "{}".to_owned(),
    };
    known.then(|| Call { id: String::new(), name: name.to_owned(), arguments })
}

/// A JSON object, mended where it is nearly one.
pub(crate) fn object(text: &str) -> Option<Map<String, Value>> {
    if let Ok(object) = serde_json::from_str(text) {
        return Some(object);
    }
    match value(text)? {
        Value::Object(object) if !object.is_empty() => Some(object),
        _ => None,
    }
}

/// A JSON value, mended where it is nearly one. One that breaks off is not completed: half a command is another command.
pub(crate) fn value(text: &str) -> Option<Value> {
    let text = without_fence(text.trim());
    if let Ok(value) = serde_json::from_str(text) {
        return Some(value);
    }
    let text = text.trim();
    if !text.starts_with(['{', '[']) || !text.ends_with(['}', ']']) {
        return None;
    }
    llm_json::loads(text, &llm_json::RepairOptions::default()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tools() -> Value {
        json!([{"type": "function", "function": {"name": "read", "parameters": {}}}])
    }

    fn check(text: &str, expected: &[&str]) {
        let found = calls_in(text, &tools(), true);
        let found: Vec<&str> = found.iter().map(|call| call.arguments.as_str()).collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn calls_are_found_as_models_write_them() {
        let one = [r#"{"path":"a"}"#];
        check(r#"{"tool": "read", "arguments": {"path": "a"}}"#, &one);
        check("```json\n{\"tool\": \"read\", \"arguments\": {\"path\": \"a\"}}\n```", &one);
        check(r#"<tool_call>{"name": "read", "arguments": {"path": "a"}}</tool_call>"#, &one);
        check(r#"{"function": {"name": "read", "parameters": {"path": "a"}}}"#, &one);
        check(r#"{"tool": "read", "args": "{\"path\":\"a\"}"}"#, &one);
        let two = "I look.\n<tool_call>{\"tool\":\"read\",\"arguments\":{\"path\":\"a\"}}</tool_call>\n<tool_call>{\"tool\":\"read\",\"arguments\":{\"path\":\"b\"}}";
        check(two, &[r#"{"path":"a"}"#, r#"{"path":"b"}"#]);
    }

    #[test]
    fn what_is_nearly_json_is_mended() {
        let one = [r#"{"path":"a"}"#];
        check(r#"{'tool': 'read', 'arguments': {'path': 'a'}}"#, &one);
        check(r#"{tool: "read", arguments: {path: "a",},}"#, &one);
        check(r#"{"tool": "read", "arguments": {"path": "a"}"#, &one);
    }

    #[test]
    fn an_answer_is_no_call() {
        for text in [
            "It is in `read`.",
            r#"{"tool": "launch", "arguments": {}}"#,
            r#"{"result": 42}"#,
            r#"{"tool": "read", "arguments": {"path": "a"#,
            "```sh\nread a\n```",
            "",
        ] {
            check(text, &[]);
        }
    }

    #[test]
    fn a_conversation_with_tools_becomes_one_of_texts_in_turns() {
        let messages = [
            json!({"role": "system", "content": "S"}),
            json!({"role": "user", "content": "U"}),
            json!({"role": "assistant", "content": "", "tool_calls": [
                {"id": "c1", "function": {"name": "read", "arguments": "{\"path\":\"a\"}"}},
            ]}),
            json!({"role": "tool", "tool_call_id": "c1", "content": "one"}),
            json!({"role": "tool", "tool_call_id": "c2", "content": "two"}),
        ];
        let told = as_text(&messages, &tools());
        let roles: Vec<_> = told.iter().map(|message| message["role"].as_str().unwrap()).collect();
        assert_eq!(roles, ["system", "user", "assistant", "user"]);
        assert!(told[0]["content"].as_str().unwrap().contains("\"name\":\"read\""));
        assert_eq!(told[3]["content"], "Result of c1:\none\n\nResult of c2:\ntwo");
        let call = told[2]["content"].as_str().unwrap();
        assert_eq!(calls_in(call, &tools(), false)[0].arguments, r#"{"path":"a"}"#);
    }

    #[test]
    fn a_text_is_held_back_only_while_it_may_be_a_call() {
        for (beginning, native, lenient) in [
            ("", true, true),
            ("{", false, true),
            ("<tool", true, true),
            ("``", false, true),
            ("It", false, false),
            ("<b>", false, false),
        ] {
            assert_eq!(may_be_calls(beginning, false), native, "{beginning}");
            assert_eq!(may_be_calls(beginning, true), lenient, "{beginning}");
        }
    }
}
