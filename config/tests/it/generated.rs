//! What is made from the list of keys is committed and true.

use crate::{committed, here};

#[test]
fn generated_schema_is_committed() {
    committed(&here("switchyard.schema.json"), &config::schema(), "generated");
}

#[test]
fn generated_reference_page_is_committed() {
    let docs = here("../docs");
    std::fs::create_dir_all(&docs).unwrap();
    committed(&docs.join("table.md"), &config::reference(), "generated");
}
