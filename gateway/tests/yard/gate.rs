//! Work for the `coding` agent that goes on until the test lets it: its second block waits for a
//! file beside it.

use std::path::{Path, PathBuf};

use crate::harness::{Yard, until};
use crate::processes;
use crate::stream::{Event, Stream};

/// The input: one block that ends, one that waits.
pub const INPUT: &str = "\
```sh
echo first of two
```
```sh
while [ ! -e gate ]; do sleep 0.02; done; echo passed the gate
```
";

/// A stream whose second block runs, and waits.
pub struct Waiting {
    pub stream: Stream,
    pub events: Vec<Event>,
    folder: PathBuf,
}

/// Calls `agent` and reads until the second block runs.
pub async fn waiting(yard: &Yard, agent: &str) -> Waiting {
    let mut stream = yard.open(agent, INPUT).await;
    let mut events = stream.until("tool_result").await;
    assert!(events.last().unwrap().data["output"].as_str().unwrap().contains("first of two"));
    events.extend(stream.until("tool_call").await);
    Waiting { stream, events, folder: folder(&yard.tmp()).await }
}

impl Waiting {
    /// Opens the gate and reads the reply to its end; gives all events.
    pub async fn pass(mut self) -> Vec<Event> {
        open(&self.folder);
        self.stream.good(self.events).await
    }
}

/// Waits for the second block's process.
pub async fn process(yard: &Yard) -> u32 {
    let is_block = |pid: &u32| processes::arguments(*pid).iter().any(|word| word == "block-2.sh");
    let mut found = None;
    until("the second block runs", async || {
        found = processes::descendants(yard.pid()).into_iter().find(is_block);
        found.is_some()
    })
    .await;
    found.unwrap()
}

/// Waits for the second block; gives the folder in which it is.
pub async fn folder(below: &Path) -> PathBuf {
    let mut found = None;
    until("the second block is written", async || {
        found = find(below, "block-2.sh");
        found.is_some()
    })
    .await;
    found.unwrap()
}

pub fn open(folder: &Path) {
    std::fs::write(folder.join("gate"), "").unwrap();
}

/// The folder below `folder` that has a file of this name.
fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    let mut entries = std::fs::read_dir(folder).ok()?.flatten();
    entries.find_map(|entry| {
        if entry.file_name() == name { Some(folder.to_owned()) } else { find(&entry.path(), name) }
    })
}
