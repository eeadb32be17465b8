//! The documentation says what the code does where the two can be compared: every error code has its row
//! in `docs/http.md`, with its status and its token.

use std::path::Path;

use switchyard::error::Code;

/// The rows of the error table: status, code, token.
fn rows() -> Vec<(u16, String, String)> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/http.md");
    let text = std::fs::read_to_string(file).expect("docs/http.md");
    let (_, after) = text.split_once("## Errors\n").expect("a section on errors");
    let (section, _) = after.split_once("\n## ").expect("a section behind it");
    section.lines().filter_map(row).collect()
}

/// `| 400 | `code` | `token` | …`.
fn row(line: &str) -> Option<(u16, String, String)> {
    let mut cells = line.strip_prefix("| ")?.split(" | ");
    let status = cells.next()?.parse().ok()?;
    let mut name = || Some(cells.next()?.trim_matches('`').to_owned());
    Some((status, name()?, name()?))
}

#[test]
fn every_error_code_stands_in_the_table_with_its_status_and_token() {
    let documented = rows();
    let coded = Code::ALL.map(|code| {
        (code.status().as_u16(), code.as_str().to_owned(), code.proxy_error().to_owned())
    });
    for row in &coded {
        assert!(documented.contains(row), "docs/http.md, Errors: no row for {row:?}");
    }
    for row in &documented {
        assert!(coded.contains(row), "docs/http.md, Errors: there is no such error: {row:?}");
    }
    assert_eq!(documented.len(), coded.len(), "docs/http.md, Errors: a code has two rows");
}
