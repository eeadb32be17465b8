//! Following the table: its file, SIGHUP, and what `up` runs.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;

use crate::discovery::managed::Managed;
use crate::table::Tables;

/// The table's file and what was last taken from it.
pub struct Reload {
    _file: PathBuf,
    _tables: Arc<Tables>,
    accepted: watch::Sender<Arc<config::Table>>,
}

impl Reload {
    /// Follows `file`, whose text at the start was `text`.
    #[must_use]
    pub fn new(file: PathBuf, _text: &str, tables: Arc<Tables>, table: Arc<config::Table>) -> Self {
        Self { _file: file, _tables: tables, accepted: watch::Sender::new(table) }
    }

    /// Every table in force.
    #[must_use]
    pub fn tables(&self) -> watch::Receiver<Arc<config::Table>> {
        self.accepted.subscribe()
    }

    /// Follows it until dropped.
    pub async fn run(self, _managed: Option<Managed>, _sighup: bool) {
        std::future::pending::<()>().await;
    }
}
