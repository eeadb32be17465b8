//! The documentation says what the code does where the two can be compared: error codes in
//! `docs/http.md`, modules and bounds in `docs/architecture.md`, faults and what proves them in
//! `docs/operations.md`, and links between pages.

use std::path::{Path, PathBuf};

use switchyard::error::Code;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The rows of the error table: status, code, token.
fn rows() -> Vec<(u16, String, String)> {
    let text = read("docs/http.md");
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

/// What stands in backquotes in a cell.
fn names(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

#[test]
fn every_bound_that_is_documented_is_in_the_code() {
    let text = read("docs/architecture.md");
    let (_, bounds) = text.split_once("\n## Bounds\n").expect("a section on bounds");
    let mut documented = 0;
    for line in bounds.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<_> = line.split(" | ").collect();
        let (file, constants) = (names(cells[0])[0], names(cells[1]));
        let source = read(Path::new("gateway/src").join(file));
        for constant in &constants {
            let there = source.contains(&format!("const {constant}: "));
            assert!(there, "docs/architecture.md: {file} has no {constant}");
        }
        let values = cells[2].split(", ").count();
        assert_eq!(values, constants.len(), "docs/architecture.md: a value each: {line}");
        documented += constants.len();
    }
    assert!(documented > 40, "only {documented} bounds were found");
}

/// Constants of these types that bound nothing.
const NO_BOUNDS: &[&str] = &["TCP_SYN", "HASH_DIGITS", "NEVER_HAD", "HAS_ONE"];

/// A constant's name, where the line makes one that may be a bound.
fn bound(line: &str) -> Option<&str> {
    let line = line.split_once("const ").filter(|(before, _)| !before.contains("//"))?.1;
    let (name, rest) = line.split_once(": ")?;
    let kind = rest.split(' ').next()?;
    let counts = matches!(kind, "usize" | "u64" | "u32" | "i32" | "Duration");
    (counts && !NO_BOUNDS.contains(&name)).then_some(name)
}

#[test]
fn every_bound_of_the_data_path_is_documented() {
    let text = read("docs/architecture.md");
    let (_, bounds) = text.split_once("\n## Bounds\n").expect("a section on bounds");
    let mut folders = vec![root().join("gateway/src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let file = path.strip_prefix(root().join("gateway/src")).expect("below").to_owned();
            if path.is_dir() {
                folders
                    .extend((file != Path::new("cli") && !file.ends_with("tests")).then_some(path));
                continue;
            }
            if file.ends_with("tests.rs") {
                continue;
            }
            let source = read(&path);
            let tests = |line: &&str| line.starts_with("mod tests {");
            for name in source.lines().take_while(|line| !tests(line)).filter_map(bound) {
                let its = format!("| `{}` | ", file.display());
                let mut rows = bounds.lines().filter(|row| row.starts_with(&its));
                let there = rows.any(|row| row.contains(&format!("`{name}`")));
                assert!(there, "docs/architecture.md, Bounds: no row for {its}`{name}`");
            }
        }
    }
}

#[test]
fn every_module_stands_in_the_code_map_in_its_order() {
    let modules = read("gateway/src/lib.rs");
    let modules = modules.lines().filter_map(|l| l.strip_prefix("pub mod ")?.strip_suffix(';'));
    let text = read("docs/architecture.md");
    let rows: Vec<_> = text.lines().filter(|line| line.starts_with("| `")).collect();
    let mut last = 0;
    for module in modules {
        let is_its = |row: &&str| names(row)[0].trim_end_matches('/') == module;
        let place = rows.iter().position(is_its);
        let place = place.unwrap_or_else(|| panic!("docs/architecture.md: no row for {module}"));
        assert!(place >= last, "docs/architecture.md: {module} is not where lib.rs has it");
        last = place;
    }
}

/// The Markdown files of the project, from its root.
fn pages() -> Vec<PathBuf> {
    let below = |folder: &str| {
        let entries = std::fs::read_dir(root().join(folder)).expect("a folder");
        entries.map(|entry| entry.expect("an entry").path()).collect::<Vec<_>>()
    };
    let all = ["", "docs", "docs/decisions"].into_iter().flat_map(below);
    all.filter(|path| path.extension().is_some_and(|ext| ext == "md")).collect()
}

#[test]
fn links_between_pages_lead_somewhere() {
    for page in pages() {
        let text = read(&page);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or("");
            if file.is_empty() || file.contains("://") {
                continue;
            }
            let target = page.parent().expect("a file has a folder").join(file);
            assert!(target.exists(), "{}: nothing at {link}", page.display());
        }
    }
}

/// What proves a row of the fault page: the last cell's names.
fn proofs(line: &str) -> Option<Vec<(String, String)>> {
    let last = line.strip_suffix(" |")?.rsplit(" | ").next()?;
    let named = |part: &str| {
        let part = part.trim();
        match part.strip_prefix("proof `") {
            Some(name) => Some(("proof".to_owned(), name.trim_end_matches('`').to_owned())),
            None => {
                let (program, test) = part.trim_matches('`').split_once(' ')?;
                Some((program.to_owned(), test.to_owned()))
            }
        }
    };
    last.split(", ").map(named).collect()
}

/// Whether a test is there: `module::module::function` of one of the programs in `gateway/tests/`, or
/// a proof of `k8s/e2e`.
fn is_there(program: &str, name: &str) -> bool {
    if program == "proof" {
        return read("k8s/e2e/src/prove/proofs.rs").contains(&format!("name: \"{name}\""));
    }
    let Some((module, function)) = name.rsplit_once("::") else { return false };
    let path = format!("gateway/tests/{program}/{}.rs", module.replace("::", "/"));
    let source = std::fs::read_to_string(root().join(path)).unwrap_or_default();
    ["", "async "].iter().any(|kind| source.contains(&format!("]\n{kind}fn {function}(")))
}

#[test]
fn every_fault_is_proven_by_tests_that_there_are() {
    let text = read("docs/operations.md");
    let (_, after) = text.split_once("\n## What happens when…\n").expect("a page of faults");
    let (page, _) = after.split_once("\n## ").expect("a section behind it");
    let page = page.split("<!--").map(|part| part.rsplit("-->").next().unwrap_or(part));
    let page: String = page.collect();
    let is_row = |line: &&str| {
        line.starts_with("| ") && !line.starts_with("| fault |") && !line.starts_with("| ---")
    };
    let mut count = 0;
    for row in page.lines().filter(is_row) {
        let proofs = proofs(row).unwrap_or_else(|| panic!("by what is this proven? {row}"));
        for (program, name) in &proofs {
            assert!(is_there(program, name), "there is no {program} {name}: {row}");
        }
        count += 1;
    }
    assert!(count > 25, "only {count} rows were found");
    for name in fault_tests() {
        assert!(page.contains(&format!("::{name}`")), "docs/operations.md has no row for {name}");
    }
}

/// The tests of the fault suite.
fn fault_tests() -> Vec<String> {
    let folder = root().join("gateway/tests/it/faults");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let source = read(entry.expect("an entry").path());
        let tests = source.split("#[tokio::test").skip(1);
        let name = |test: &str| Some(test.split_once("async fn ")?.1.split_once('(')?.0.to_owned());
        names.extend(tests.filter_map(name));
    }
    assert!(names.len() > 8, "only {names:?}");
    names
}
