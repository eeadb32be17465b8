//! A text from elsewhere than the file: what the one who follows it tells, and hears back.

use tokio::sync::mpsc;

/// A text that was put where the gateways look for it: an edit, unless it is known already.
#[derive(Debug, Clone)]
pub struct Edit {
    /// What its problems are called by, in place of a file's path.
    pub name: String,
    /// The bytes; or why there are none.
    pub bytes: Result<Vec<u8>, String>,
    /// Which state of which object it is.
    pub version: Version,
}

/// One state of one object of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// The object's.
    pub uid: String,
    /// Its `resourceVersion`.
    pub resource_version: String,
}

/// What is told of the place.
#[derive(Debug)]
pub enum Told {
    /// This stands there now.
    Edit(Edit),
    /// It will be told what stands there next.
    Follows,
    /// It can't be asked, or nothing stands there: the file counts.
    Away,
}

/// What came of an edit.
#[derive(Debug)]
pub struct Verdict {
    /// Which one.
    pub version: Version,
    /// The generation in force and its hash; or the problems, a line each.
    pub result: Result<(u64, String), Vec<String>>,
}

/// Both directions.
pub struct Elsewhere {
    /// What is told, in the order in which it happened.
    pub told: mpsc::Receiver<Told>,
    /// Who hears what came of it; what finds no room is dropped.
    pub verdicts: mpsc::Sender<Verdict>,
}
