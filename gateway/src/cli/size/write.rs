//! Putting the sizes into the table: the keys that they belong to are set where they stand, everything else
//! stays as it was written, comments too.

use std::fs;
use std::io::Write;
use std::path::Path;

use config::units::{show_cpu, show_size};
use similar::TextDiff;
use toml_edit::{DocumentMut, InlineTable, Item, TableLike, Value};

use super::verdict::Sizes;

/// Lines around a change that are shown with it.
const CONTEXT: usize = 2;

/// Sets an agent's sizes in the table at `path`; gives the change as a unified diff, empty when there is
/// none. The file is replaced in one step, and only by a table that is valid.
pub(super) fn write(path: &Path, agent: &str, sizes: &Sizes) -> Result<String, String> {
    let named = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    // What a link leads to is replaced, not the link.
    let file = path.canonicalize().map_err(|error| named(&error))?;
    let before = fs::read_to_string(&file).map_err(|error| named(&error))?;
    let after = patched(&before, agent, sizes).map_err(|why| named(&why))?;
    config::parse(&after, &path.display().to_string()).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        format!("nothing was written: the table would not be valid\n{}", lines.join("\n"))
    })?;
    if after != before {
        replace(&file, &after).map_err(|error| named(&error))?;
    }
    let name = path.display().to_string();
    let diff = TextDiff::from_lines(&before, &after);
    Ok(diff.unified_diff().context_radius(CONTEXT).header(&name, &name).to_string())
}

/// Writes beside it and renames, with the permissions that it had.
fn replace(file: &Path, text: &str) -> std::io::Result<()> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let beside = file.with_file_name(format!(".{name}.{}", std::process::id()));
    let written = (|| {
        let mut to = fs::File::create_new(&beside)?;
        to.set_permissions(fs::metadata(file)?.permissions())?;
        to.write_all(text.as_bytes())?;
        to.sync_all()?;
        fs::rename(&beside, file)
    })();
    if written.is_err() {
        // What is left of it is of no use to anybody.
        let _ = fs::remove_file(&beside);
    }
    written
}

fn patched(text: &str, agent: &str, sizes: &Sizes) -> Result<String, String> {
    let mut document: DocumentMut =
        text.parse().map_err(|error: toml_edit::TomlError| error.to_string())?;
    let agents = document.get_mut("agents").and_then(Item::as_table_like_mut);
    let own = agents.and_then(|agents| agents.get_mut(agent)?.as_table_like_mut());
    let own = own.ok_or_else(|| format!("there is no [agents.{agent}] any more"))?;
    if let Some(most) = sizes.max_in_flight {
        set(own, "max_in_flight", i64::from(most).into());
    }
    let runs_here = own.contains_key("deployment");
    if runs_here {
        let deployment = below(own, "deployment")?;
        let (memory, cpu) = (sizes.request_memory, sizes.request_cpu_millis);
        resources(below(deployment, "requests")?, memory, cpu);
        let (memory, cpu) = (sizes.limit_memory, sizes.limit_cpu_millis);
        resources(below(deployment, "limits")?, memory, cpu);
    }
    if let Some(base) = sizes.memory_base {
        let memory = below(own, "memory")?;
        set(memory, "base", show_size(base).into());
        set(memory, "per_body_byte", number(sizes.memory_per_body_byte.unwrap_or(0.0)));
        // Without a deployment of its own, nothing else says what a replica has.
        if let Some(limit) = sizes.limit_memory.filter(|_| !runs_here) {
            set(memory, "limit", show_size(limit).into());
        }
        tidy(memory_item(own));
    }
    keep_head(&mut document, agent);
    Ok(document.to_string())
}

/// Where only `[agents.x.deployment]` was written, `[agents.x]` now stands before it: what stood above, such
/// as the head of the file, stays above.
fn keep_head(document: &mut DocumentMut, agent: &str) {
    let own = document["agents"].get_mut(agent).and_then(Item::as_table_mut);
    let Some(own) =
        own.filter(|own| own.is_implicit() && own.iter().any(|(_, item)| item.is_value()))
    else {
        return;
    };
    let first = own.iter_mut().filter_map(|(_, item)| item.as_table_mut());
    let Some(first) = first.min_by_key(|table| table.position()) else { return };
    let above = first.decor().prefix().cloned().unwrap_or_default();
    first.decor_mut().set_prefix("\n");
    own.decor_mut().set_prefix(above);
}

fn memory_item(own: &mut dyn TableLike) -> Option<&mut Item> {
    own.get_mut("memory")
}

fn resources(of: &mut dyn TableLike, memory: Option<u64>, cpu_millis: Option<u64>) {
    if let Some(millis) = cpu_millis {
        set(of, "cpu", show_cpu(millis).into());
    }
    if let Some(bytes) = memory {
        set(of, "memory", show_size(bytes).into());
    }
}

/// A whole number is written as one.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 { (value as i64).into() } else { value.into() }
}

/// Sets a key to a value, with the spaces and the comment that were around the one before.
fn set(table: &mut dyn TableLike, key: &str, mut value: Value) {
    match table.get_mut(key).and_then(Item::as_value_mut) {
        Some(there) => {
            *value.decor_mut() = there.decor().clone();
            *there = value;
        }
        None => drop(table.insert(key, Item::Value(value))),
    }
}

/// The table under a key, made when there is none, or when it is a word such as "off".
fn below<'a>(table: &'a mut dyn TableLike, key: &str) -> Result<&'a mut dyn TableLike, String> {
    let is_table = table.get(key).is_some_and(Item::is_table_like);
    if !is_table {
        set(table, key, InlineTable::new().into());
    }
    let found = table.get_mut(key).and_then(Item::as_table_like_mut);
    found.ok_or_else(|| format!("`{key}` is no table"))
}

/// An inline table that got new keys has its spaces set anew.
fn tidy(item: Option<&mut Item>) {
    if let Some(inline) = item.and_then(Item::as_inline_table_mut) {
        let decor = inline.decor().clone();
        inline.fmt();
        *inline.decor_mut() = decor;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn sizes() -> Sizes {
        Sizes {
            request_memory: Some(96 * MIB),
            limit_memory: Some(160 * MIB),
            request_cpu_millis: Some(250),
            limit_cpu_millis: Some(1000),
            max_in_flight: Some(8),
            memory_base: Some(6 * MIB),
            memory_per_body_byte: Some(42.0),
        }
    }

    #[track_caller]
    fn check(before: &str, expected: &str) {
        let after = patched(before, "qa", &sizes()).unwrap();
        assert_eq!(after, expected);
        config::parse(&after, "t").unwrap_or_else(|problems| panic!("{problems:?}"));
    }

    #[test]
    fn comments_order_and_layout_are_kept() {
        check(
            "# Head.\n[agents.qa] # the first\nmax_in_flight = 16 # many\nmemory = \"off\" # yet\n\n\
             [agents.qa.deployment]\ncommand  = [\"agent\"]\nrequests = { cpu = \"500m\", memory = \"256Mi\" } # r\n\
             limits   = { cpu = \"1\", memory = \"512Mi\" }\n#image   = \"x\"\n\n[agents.other] # untouched\n\
             endpoints = [\"http://127.0.0.1:1\"]\n",
            "# Head.\n[agents.qa] # the first\nmax_in_flight = 8 # many\nmemory = { base = \"6MiB\", per_body_byte = 42 } # yet\n\n\
             [agents.qa.deployment]\ncommand  = [\"agent\"]\nrequests = { cpu = \"250m\", memory = \"96MiB\" } # r\n\
             limits   = { cpu = \"1\", memory = \"160MiB\" }\n#image   = \"x\"\n\n[agents.other] # untouched\n\
             endpoints = [\"http://127.0.0.1:1\"]\n",
        );
    }

    #[test]
    fn what_is_not_there_is_added_where_it_belongs() {
        check(
            "# Head.\n\n# Its own.\n[agents.qa.deployment]\ncommand = [\"agent\"]\n",
            "# Head.\n\n# Its own.\n[agents.qa]\nmax_in_flight = 8\nmemory = { base = \"6MiB\", per_body_byte = 42 }\n\n\
             [agents.qa.deployment]\ncommand = [\"agent\"]\n\
             requests = { cpu = \"250m\", memory = \"96MiB\" }\nlimits = { cpu = \"1\", memory = \"160MiB\" }\n",
        );
    }

    #[test]
    fn an_agent_that_runs_elsewhere_gets_what_a_replica_has_under_memory() {
        check(
            "[agents.qa]\nendpoints = [\"http://127.0.0.1:1\"]\n",
            "[agents.qa]\nendpoints = [\"http://127.0.0.1:1\"]\nmax_in_flight = 8\n\
             memory = { base = \"6MiB\", per_body_byte = 42, limit = \"160MiB\" }\n",
        );
    }

    #[test]
    fn tables_of_their_own_are_filled_in_place() {
        check(
            "[agents.qa.deployment]\ncommand = [\"agent\"]\n[agents.qa.deployment.limits]\nmemory = \"1Gi\"\n\
             [agents.qa.memory]\nbase = \"1MiB\" # old\n",
            "[agents.qa]\nmax_in_flight = 8\n\n[agents.qa.deployment]\ncommand = [\"agent\"]\n\
             requests = { cpu = \"250m\", memory = \"96MiB\" }\n[agents.qa.deployment.limits]\nmemory = \"160MiB\"\ncpu = \"1\"\n\
             [agents.qa.memory]\nbase = \"6MiB\" # old\nper_body_byte = 42\n",
        );
    }

    #[test]
    fn the_file_is_replaced_and_the_change_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.toml");
        fs::write(
            &path,
            "[agents.qa]\nmax_in_flight = 3 # few\nendpoints = [\"http://127.0.0.1:1\"]\n",
        )
        .unwrap();
        let only = Sizes { max_in_flight: Some(5), ..Sizes::default() };
        let diff = write(&path, "qa", &only).unwrap();
        assert!(diff.contains("-max_in_flight = 3 # few\n+max_in_flight = 5 # few\n"), "{diff}");
        assert_eq!(write(&path, "qa", &only).unwrap(), "");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_would_not_be_valid_is_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.toml");
        let text =
            "[agents.qa.deployment]\ncommand = [\"agent\"]\nrequests = { memory = \"1GiB\" }\n";
        fs::write(&path, text).unwrap();
        let under = Sizes { limit_memory: Some(64 * MIB), ..Sizes::default() };
        let error = write(&path, "qa", &under).unwrap_err();
        assert!(
            error.contains("nothing was written") && error.contains("under the request"),
            "{error}"
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        assert!(write(&path, "nobody", &under).unwrap_err().contains("no [agents.nobody]"));
    }
}
