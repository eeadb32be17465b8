//! Following the table: its file, the object that the file is a copy of, SIGHUP, and what `up` runs.
//!
//! One task does all of it, so that addresses are always found for the table in force.

mod elsewhere;
mod file;
mod order;
mod restart;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use config::{Checked, Problem, Table, problem_at};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch as channel;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

pub use self::elsewhere::{Edit, Elsewhere, Told, Verdict, Version};
use self::file::{Contents, Stamp};
use self::order::Order;
pub use self::restart::NeedsRestart;
use self::watch::Watch;
use crate::discovery::{Found, Source};
use crate::table::{Refused, Tables};

/// How often the file is looked at though nothing was told of it: not every file system tells.
const POLL: Duration = Duration::from_secs(2);
/// How long a change that only such a look found has to stand before it is read.
const UNTOLD_SETTLE: Duration = Duration::from_millis(100);
/// Longest that a file is left to those who write it; then it is read as it is.
const SETTLE_MAX: Duration = Duration::from_secs(2);
/// Problems of one file that are kept and logged; a large file of rubbish has no end of them.
const PROBLEMS_MAX: usize = 100;

/// What is said of a file that doesn't count.
const OLDER: &str = "the table's file is an older copy, or may be one: it is left alone";

/// The table's file and what was last taken from it.
pub struct Reload {
    file: PathBuf,
    tables: Arc<Tables>,
    accepted: channel::Sender<Arc<Table>>,
    /// The file as it was when it was last read.
    stamp: Option<Stamp>,
    /// What else tells of edits.
    elsewhere: Option<Elsewhere>,
    /// What that told last.
    object: Option<Contents>,
    order: Order,
    /// What came last of an edit wasn't told to whoever tells of edits: it came by the file.
    untold: bool,
    /// What was last refused, if nothing was taken since.
    refused: Option<String>,
    /// What was last found, once something was.
    found: Option<Found>,
}

/// A change that is left to settle.
struct Pending {
    since: Instant,
    due: Instant,
    stamp: Option<Stamp>,
}

impl Reload {
    /// Follows `file`, which held `table` at the start. From here on SIGHUP does not end the
    /// process.
    #[must_use]
    pub fn new(file: PathBuf, tables: Arc<Tables>, table: Arc<Table>) -> Self {
        survive_hangups();
        let order = Order::of_file(&table.hash);
        let accepted = channel::Sender::new(table);
        Self {
            file,
            tables,
            accepted,
            stamp: None,
            elsewhere: None,
            object: None,
            order,
            untold: false,
            refused: None,
            found: None,
        }
    }

    /// Follows this, too: the file is a late copy of what stands there.
    pub fn follow(&mut self, elsewhere: Elsewhere) {
        self.elsewhere = Some(elsewhere);
    }

    /// Every table in force.
    #[must_use]
    pub fn tables(&self) -> channel::Receiver<Arc<Table>> {
        self.accepted.subscribe()
    }

    /// Follows it until dropped. `sighup`: reads it again at each such signal.
    pub async fn run(mut self, mut source: Source, sighup: bool) {
        let mut hangups = sighup.then(hangups).flatten();
        let mut watch = Watch::new(&self.file);
        let mut poll = interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first look is due at once: the file may have been edited since the start.
        let mut pending: Option<Pending> = None;
        loop {
            let due = pending.as_ref().map(|pending| pending.due);
            tokio::select! {
                settle = watch.changed() => self.wait(&mut pending, settle),
                () = at(due) => self.settled(&mut pending, &mut watch, &mut source).await,
                _ = poll.tick() => self.look(&mut pending, &mut watch),
                () = hangup(&mut hangups) => {
                    pending = None;
                    watch.rearm();
                    self.read(&mut source, true).await;
                }
                () = source.changed() => self.rediscover(&mut source),
                told = told(&mut self.elsewhere) => self.hear(told, &mut source).await,
            }
        }
    }

    /// Something else may be found: a new snapshot, unless it is about Services of others.
    fn rediscover(&mut self, source: &mut Source) {
        let found = source.find(&self.tables.current().table);
        if self.found.as_ref() != Some(&found) {
            self.tables.rediscover(&found);
            self.found = Some(found);
        }
        source.in_force();
    }

    /// Something happened to the file: it is read when it has been left alone for `settle`.
    fn wait(&self, pending: &mut Option<Pending>, settle: Duration) {
        let now = Instant::now();
        let since = pending.as_ref().map_or(now, |pending| pending.since);
        let due = (now + settle).min(since + SETTLE_MAX);
        *pending = Some(Pending { since, due, stamp: Stamp::of(&self.file) });
    }

    fn look(&self, pending: &mut Option<Pending>, watch: &mut Watch) {
        watch.rearm();
        if pending.is_none() && Stamp::of(&self.file) != self.stamp {
            self.wait(pending, UNTOLD_SETTLE);
        }
    }

    async fn settled(
        &mut self,
        pending: &mut Option<Pending>,
        watch: &mut Watch,
        source: &mut Source,
    ) {
        // Links are followed before the file is read: what changes after that is told.
        watch.rearm();
        let moved = pending.as_ref().is_some_and(|pending| {
            Stamp::of(&self.file) != pending.stamp && Instant::now() < pending.since + SETTLE_MAX
        });
        if moved {
            return self.wait(pending, watch::SETTLE);
        }
        *pending = None;
        self.read(source, false).await;
    }

    async fn hear(&mut self, told: Told, source: &mut Source) {
        match told {
            Told::Edit(edit) => {
                let contents = Contents::edit(edit);
                self.order.object_is(contents.mark());
                self.object = Some(contents.clone());
                self.judge(contents, source, false).await;
            }
            Told::Follows => self.order.follow(),
            Told::Away => {
                self.order.lose();
                self.read(source, false).await;
            }
        }
    }

    /// Reads the file and judges what it holds, if it counts. `asked`: somebody wants to hear of
    /// what counts in any case.
    async fn read(&mut self, source: &mut Source, asked: bool) {
        self.stamp = Stamp::of(&self.file);
        let path = self.file.clone();
        let read = tokio::task::spawn_blocking(move || Contents::read(&path));
        let contents = read.await.expect("reading doesn't panic");
        if self.order.file_is(contents.mark()) {
            return self.judge(contents, source, asked).await;
        }
        let object = self.object.clone().filter(|_| asked && self.order.object_counts());
        match object {
            Some(object) => self.judge(object, source, true).await,
            None if asked => tracing::info!(file = contents.name, "{OLDER}"),
            None => tracing::debug!(file = contents.name, "{OLDER}"),
        }
    }

    async fn judge(&mut self, contents: Contents, source: &mut Source, asked: bool) {
        let in_force = Arc::clone(&self.tables.current().table);
        if contents.hash == in_force.hash {
            return self.unchanged(&contents, asked);
        }
        if self.refused.as_deref() == Some(contents.mark()) && !asked {
            return self.refused_before(&contents);
        }
        match self.check(contents.clone(), in_force).await {
            Ok(checked) => self.take(checked, source, &contents),
            Err(problems) => self.refuse(&contents, &problems),
        }
    }

    /// The new table, if it may be taken without a restart.
    async fn check(
        &self,
        contents: Contents,
        in_force: Arc<Table>,
    ) -> Result<Checked, Vec<Problem>> {
        let checking = tokio::task::spawn_blocking(move || {
            let (file, text) = (contents.name, contents.text.map_err(|problem| vec![problem])?);
            let checked = config::parse(&text, &file)?;
            let problems = restart::problems(&in_force, &checked.table, &text, &file);
            if problems.is_empty() { Ok(checked) } else { Err(problems) }
        });
        checking.await.expect("checking doesn't panic")
    }

    fn take(&mut self, checked: Checked, source: &mut Source, contents: &Contents) {
        let table = Arc::new(checked.table);
        let found = source.find(&table);
        let generation = match self.tables.replace(Arc::clone(&table), &found) {
            Ok(generation) => generation,
            Err(error) => {
                let text = contents.text.as_deref().unwrap_or_default();
                let problem =
                    problem_at(text, &contents.name, &["agents"], error.to_string(), None);
                self.refuse(contents, &[problem]);
                // What was found since may be news for the table in force as well.
                return self.rediscover(source);
            }
        };
        source.in_force();
        self.found = Some(found);
        self.refused = None;
        tracing::info!(generation, hash = table.hash, from = contents.name, "table taken");
        self.tell(contents, Ok((generation, table.hash.clone())));
        for warning in checked.warnings.iter().take(PROBLEMS_MAX) {
            tracing::warn!(problem = %warning, "unwise in the table");
        }
        self.accepted.send_replace(table);
    }

    fn refuse(&mut self, contents: &Contents, problems: &[Problem]) {
        let mut lines: Vec<_> =
            problems.iter().take(PROBLEMS_MAX).map(ToString::to_string).collect();
        if problems.len() > PROBLEMS_MAX {
            lines.push(format!("and {} more", problems.len() - PROBLEMS_MAX));
        }
        for problem in &lines {
            tracing::error!(%problem, "edit of the table refused");
        }
        self.refused = Some(contents.mark().to_owned());
        self.tables.refuse(Refused { problems: lines.clone(), hash: contents.hash.clone() });
        self.tell(contents, Err(lines));
    }

    fn unchanged(&mut self, contents: &Contents, asked: bool) {
        let (hash, from) = (&contents.hash, &contents.name);
        if self.refused.take().is_some() {
            self.tables.forget_refused();
            tracing::info!(hash, from, "the table's text is the one in force again");
            self.untold = true;
        } else if asked {
            tracing::info!(hash, from, "the table was read again and is unchanged");
        }
        if self.untold {
            self.tell(contents, Ok((self.tables.current().generation, hash.clone())));
        }
    }

    /// The same text by another way: it may have been refused before anybody could be told.
    fn refused_before(&mut self, contents: &Contents) {
        if self.untold
            && let Some(refused) = &*self.tables.refused()
        {
            self.tell(contents, Err(refused.problems.clone()));
        }
    }

    /// Whoever wrote the edit may hear what came of it; nobody waits for that.
    fn tell(&mut self, contents: &Contents, result: Result<(u64, String), Vec<String>>) {
        self.untold = contents.version.is_none();
        if let (Some(elsewhere), Some(version)) = (&self.elsewhere, &contents.version) {
            let _ = elsewhere.verdicts.try_send(Verdict { version: version.clone(), result });
        }
    }
}

async fn told(elsewhere: &mut Option<Elsewhere>) -> Told {
    if let Some(elsewhere) = elsewhere
        && let Some(told) = elsewhere.told.recv().await
    {
        return told;
    }
    std::future::pending().await
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

fn hangups() -> Option<Signal> {
    signal(SignalKind::hangup())
        .inspect_err(|error| tracing::warn!(%error, "SIGHUP can't be followed"))
        .ok()
}

async fn hangup(hangups: &mut Option<Signal>) {
    if let Some(hangups) = hangups
        && hangups.recv().await.is_some()
    {
        return;
    }
    std::future::pending::<()>().await;
}

/// A first listener replaces what the signal does by default, for the rest of the process.
fn survive_hangups() {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return;
    };
    {
        let _inside = runtime.enter();
        drop(hangups());
    }
    runtime.shutdown_background();
}

#[cfg(test)]
mod tests;
