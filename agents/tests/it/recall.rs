//! How good the search is: questions about our own documents, and whether the passage that has the answer is among the
//! first three. By words alone it is asserted; with a real embedding model it is compared, by hand:
//!
//! ```sh
//! agents/tests/embeddings_server.py &     # prints how to install what it needs
//! AGENT_EMBEDDING_BASE_URL=http://127.0.0.1:8123/v1 AGENT_EMBEDDING_MODEL=all-MiniLM-L6-v2 \
//!   cargo test -p agents --test it recall -- --ignored --nocapture
//! ```

#![allow(clippy::print_stdout, reason = "what is measured is to be read")]

use std::time::Instant;

use serde_json::Value;

use crate::harness::{Agent, LONG, agent, project};

/// Of twenty, by words alone: 9 when it was set. Most of them are asked in other words than the documents have.
const FLOOR: usize = 8;

/// Question, file and heading.
fn questions() -> Vec<[&'static str; 3]> {
    let lines = include_str!("questions.txt").lines().filter(|line| !line.starts_with('#'));
    let parts = |line: &'static str| {
        let parts: Vec<&str> = line.split(" | ").collect();
        parts.try_into().unwrap_or_else(|_| panic!("{line} has not three parts"))
    };
    lines.map(parts).collect()
}

/// How many questions have their passage among the first three. Prints those that do not.
async fn recall(agent: &Agent, how: &str) -> usize {
    let mut found = 0;
    for [question, file, heading] in questions() {
        let metadata = &agent.ask(question).await["metadata"];
        assert_eq!(metadata["retrieval"], how);
        let sources = metadata["sources"].as_array().unwrap().clone();
        let is_it = |source: &Value| {
            let trail = source["heading"].as_str().unwrap();
            let path = source["file"].as_str().unwrap();
            path.ends_with(file) && trail.split(" › ").any(|part| part.trim_matches('`') == heading)
        };
        if sources.iter().take(3).any(is_it) {
            found += 1;
        } else {
            let trails: Vec<_> = sources.iter().map(|source| &source["heading"]).collect();
            println!("  {how}: not found: {question} ({file} › {heading}): {trails:?}");
        }
    }
    println!("{how}: {found} of {} among the first three", questions().len());
    found
}

#[tokio::test]
async fn recall_of_our_own_documents_by_words() {
    let agent = agent("qa").flag("--docs", project().join("docs")).start().await;
    for [_, file, heading] in questions() {
        let text = std::fs::read_to_string(project().join("docs").join(file)).unwrap();
        let there = text.lines().any(|line| line.starts_with('#') && line.ends_with(heading));
        assert!(there, "questions.txt names a heading that is not there: {file} › {heading}");
    }
    let found = recall(&agent, "bm25").await;
    assert!(found >= FLOOR, "{found} of 20 is under the floor of {FLOOR}");
}

#[tokio::test]
#[ignore = "needs a real embedding model: see the top of this file"]
async fn recall_with_a_real_embedding_model() {
    let alone = agent("qa").flag("--docs", project().join("docs")).start().await;
    let words = recall(&alone, "bm25").await;
    let mut both = agent("qa").flag("--docs", project().join("docs"));
    for name in ["AGENT_EMBEDDING_BASE_URL", "AGENT_EMBEDDING_MODEL", "AGENT_MIN_SIMILARITY"] {
        if let Ok(value) = std::env::var(name) {
            both = both.env(name, &value);
        }
    }
    let both = both.start().await;
    let begun = Instant::now();
    let gauge = |text: &str, name: &str| -> u64 {
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap()
    };
    loop {
        let (_, text) = both.get("/metrics").await;
        let passages = gauge(&text, "agent_index_passages ");
        if gauge(&text, "agent_index_vectors ") >= passages * 95 / 100 {
            break;
        }
        assert!(begun.elapsed() < 10 * LONG, "{}", both.log());
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    println!("embedded in {:.1} s", begun.elapsed().as_secs_f64());
    let hybrid = recall(&both, "hybrid").await;
    println!("by words {words}, by words and meaning {hybrid}");
    assert!(hybrid >= FLOOR);
}
