//! Bad tables beside exactly what is said about them, and unwise ones beside their warnings.

use config::Problem;

use crate::{committed, files, name};

/// At least this many bad tables.
const FEWEST: usize = 25;

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("{problem}\n")).collect()
}

#[test]
fn refused_tables_give_exactly_these_problems() {
    let tables = files("refused", "toml");
    assert!(tables.len() >= FEWEST, "{} tables", tables.len());
    for path in tables {
        let text = std::fs::read_to_string(&path).unwrap();
        let problems = config::parse(&text, name(&path)).expect_err(name(&path));
        assert!(!problems.is_empty(), "{}", path.display());
        committed(&path.with_extension("txt"), &lines(&problems), "refused");
    }
}

#[test]
fn unwise_tables_are_taken_with_exactly_these_warnings() {
    for path in files("unwise", "toml") {
        let text = std::fs::read_to_string(&path).unwrap();
        let checked =
            config::parse(&text, name(&path)).map_err(|problems| lines(&problems)).unwrap();
        assert!(!checked.warnings.is_empty(), "{}", path.display());
        committed(&path.with_extension("txt"), &lines(&checked.warnings), "unwise");
    }
}

#[test]
fn every_expectation_has_its_table() {
    for folder in ["refused", "unwise"] {
        for path in files(folder, "txt") {
            assert!(path.with_extension("toml").exists(), "{}", path.display());
        }
    }
}

#[test]
fn problems_are_in_file_order() {
    for path in files("refused", "toml") {
        let text = std::fs::read_to_string(&path).unwrap();
        let problems = config::parse(&text, name(&path)).unwrap_err();
        let places: Vec<(usize, usize)> = problems.iter().map(|p| (p.line, p.col)).collect();
        assert!(places.is_sorted(), "{}: {places:?}", path.display());
    }
}
