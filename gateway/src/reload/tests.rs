//! What edits come to, with a file on disk and tables in memory.

use std::collections::BTreeMap;
use std::path::Path;

mod edits;

use super::*;
use crate::discovery::listed;
use crate::discovery::managed::{Fleet, ManagedAgent, Replica};
use crate::metrics::Metrics;

const LIMIT: Duration = Duration::from_secs(20);

fn text(port: u16) -> String {
    format!("[agents.qa]\nendpoints = [\"http://127.0.0.1:{port}\"]\n")
}

/// A file, and what follows it.
struct Yard {
    _folder: tempfile::TempDir,
    file: PathBuf,
    tables: Arc<Tables>,
    metrics: Arc<Metrics>,
}

impl Yard {
    fn new(first: &str) -> (Self, Reload) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("t.toml");
        std::fs::write(&file, first).unwrap();
        let table = Arc::new(config::parse(first, "t.toml").unwrap().table);
        let metrics = Arc::new(Metrics::new());
        let found = listed::find(&table);
        let tables = Tables::new(Arc::clone(&table), &found, Arc::clone(&metrics)).unwrap();
        let tables = Arc::new(tables);
        let reload = Reload::new(file.clone(), Arc::clone(&tables), table);
        (Self { _folder: folder, file, tables, metrics }, reload)
    }

    fn write(&self, text: &str) {
        std::fs::write(&self.file, text).unwrap();
    }

    fn generation(&self) -> u64 {
        self.tables.current().generation
    }

    fn problems(&self) -> Option<Vec<String>> {
        self.tables.refused().as_ref().as_ref().map(|refused| refused.problems.clone())
    }

    /// Edits taken and refused, as the metrics have them.
    fn counted(&self) -> (u64, u64) {
        let text = self.metrics.render().into_string();
        let of = |result: &str| {
            let series = format!("switchyard_reloads_total{{result=\"{result}\"}} ");
            text.lines().find_map(|line| line.strip_prefix(&series)).unwrap().parse().unwrap()
        };
        (of("ok"), of("refused"))
    }

    fn ports(&self) -> Vec<u16> {
        let current = self.tables.current();
        current.agents[0].places().map(|place| place.endpoint.address.port).collect()
    }
}

async fn read(reload: &mut Reload) {
    reload.read(&mut Source::Listed, false).await;
}

async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let wait = async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(LIMIT, wait).await.unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test]
async fn an_edit_is_taken_told_and_counted() {
    let (yard, reload) = Yard::new(&text(1));
    let mut tables = reload.tables();
    let following = tokio::spawn(reload.run(Source::Listed, false));
    for (generation, write_over) in [(2, true), (3, false)] {
        let edited = text(generation as u16);
        if write_over {
            yard.write(&edited);
        } else {
            let beside = yard.file.with_extension("new");
            std::fs::write(&beside, &edited).unwrap();
            std::fs::rename(beside, &yard.file).unwrap();
        }
        tokio::time::timeout(LIMIT, tables.changed()).await.expect("it is told").unwrap();
        assert_eq!(yard.generation(), generation);
        assert_eq!(tables.borrow_and_update().hash, yard.tables.current().table.hash);
        assert_eq!(yard.ports(), [generation as u16]);
    }
    assert_eq!(yard.counted(), (2, 0));
    following.abort();
}

#[tokio::test]
async fn an_edit_between_the_start_and_the_first_look_is_taken() {
    let (yard, reload) = Yard::new(&text(1));
    yard.write(&text(2));
    let following = tokio::spawn(reload.run(Source::Listed, false));
    until("it is taken", || yard.generation() == 2).await;
    following.abort();
}

#[tokio::test]
async fn what_is_refused_is_refused_once_and_forgotten_when_it_is_gone() {
    let (yard, mut reload) = Yard::new(&text(1));
    yard.write("nonsense = 1\n");
    read(&mut reload).await;
    read(&mut reload).await;
    let problems = yard.problems().expect("it is refused");
    assert!(problems[0].contains("t.toml:1:1: ") && problems[0].contains("nonsense"));
    assert_eq!((yard.generation(), yard.counted()), (1, (0, 1)));
    yard.write(&text(1));
    read(&mut reload).await;
    assert_eq!((yard.generation(), yard.problems()), (1, None));
    yard.write("nonsense = 1\n");
    read(&mut reload).await;
    assert_eq!(yard.counted(), (0, 2), "the same mistake again is an edit again");
}

#[tokio::test]
async fn a_file_that_is_gone_or_empty_does_no_harm() {
    let (yard, mut reload) = Yard::new(&text(1));
    std::fs::remove_file(&yard.file).unwrap();
    for _ in 0..3 {
        read(&mut reload).await;
    }
    assert!(yard.problems().unwrap()[0].contains("can't be read"));
    assert_eq!(yard.counted(), (0, 1));
    for empty in ["", "\n\n"] {
        yard.write(empty);
        read(&mut reload).await;
        assert!(yard.problems().unwrap()[0].contains("there are no agents"));
    }
    yard.write(&text(2));
    read(&mut reload).await;
    assert_eq!((yard.ports(), yard.problems()), (vec![2], None));
}

#[tokio::test]
async fn who_asks_is_told_again() {
    let (yard, mut reload) = Yard::new(&text(1));
    yard.write("nonsense = 1\n");
    for _ in 0..2 {
        reload.read(&mut Source::Listed, true).await;
    }
    assert_eq!(yard.counted(), (0, 2));
    yard.write(&text(1));
    for _ in 0..2 {
        reload.read(&mut Source::Listed, true).await;
    }
    assert_eq!((yard.counted(), yard.generation()), ((0, 2), 1));
}

#[tokio::test]
async fn a_file_of_rubbish_has_not_more_problems_than_anyone_reads() {
    let (yard, mut reload) = Yard::new(&text(1));
    yard.write(&(0..1000).map(|n| format!("key-{n} = 1\n")).collect::<String>());
    read(&mut reload).await;
    let problems = yard.problems().unwrap();
    assert_eq!(problems.len(), PROBLEMS_MAX + 1);
    assert!(problems[PROBLEMS_MAX].starts_with("and 9"), "{}", problems[PROBLEMS_MAX]);
}

#[tokio::test]
async fn what_needs_a_restart_is_refused_by_name_and_place() {
    let (yard, mut reload) = Yard::new(&text(1));
    yard.write(&format!("[gateway]\nworkers = 7\n{}", text(1)));
    read(&mut reload).await;
    let problems = yard.problems().unwrap();
    assert!(problems[0].contains("t.toml:2:11: [gateway] workers needs a restart"));
    assert_eq!((problems.len(), yard.generation()), (1, 1));
}

#[tokio::test]
async fn an_edit_that_nobody_told_of_is_found_by_looking() {
    let (yard, mut reload) = Yard::new(&text(1));
    read(&mut reload).await;
    let mut watch = Watch::new(Path::new("/nowhere"));
    let mut pending = None;
    reload.look(&mut pending, &mut watch);
    assert!(pending.is_none(), "nothing has changed");
    yard.write(&text(2));
    reload.look(&mut pending, &mut watch);
    assert!(pending.is_some());
    reload.settled(&mut pending, &mut watch, &mut Source::Listed).await;
    assert_eq!((pending.is_none(), yard.ports()), (true, vec![2]));
}

#[tokio::test]
async fn what_is_still_being_written_is_left_alone_but_not_for_ever() {
    let (yard, mut reload) = Yard::new(&text(1));
    let mut watch = Watch::new(Path::new("/nowhere"));
    let mut pending = None;
    reload.wait(&mut pending, SETTLE_MAX * 9);
    let first = pending.as_ref().unwrap();
    assert_eq!(first.due, first.since + SETTLE_MAX);
    yard.write(&text(2));
    reload.settled(&mut pending, &mut watch, &mut Source::Listed).await;
    assert_eq!((pending.is_some(), yard.ports()), (true, vec![1]), "it has moved: wait");
    pending.as_mut().unwrap().since -= SETTLE_MAX;
    yard.write(&text(3));
    reload.settled(&mut pending, &mut watch, &mut Source::Listed).await;
    assert_eq!((pending.is_none(), yard.ports()), (true, vec![3]), "it has moved long enough");
}

#[tokio::test]
async fn what_runs_is_found_for_the_table_in_force() {
    let (yard, reload) = Yard::new(&text(1));
    let fleet = |ports: &[u16]| -> Arc<Fleet> {
        let replica = |port: &u16| Replica {
            endpoint: config::Endpoint { host: "127.0.0.1".into(), port: *port },
            memory_bytes: Arc::default(),
        };
        let agent = ManagedAgent { desired: 1, replicas: ports.iter().map(replica).collect() };
        Arc::new(BTreeMap::from([("qa".to_owned(), agent)]))
    };
    let (runs, managed) = channel::channel(Arc::default());
    let following = tokio::spawn(reload.run(Source::Managed(managed), false));
    runs.send_replace(fleet(&[7, 8]));
    until("what runs is found", || yard.ports() == [7, 8]).await;
    assert_eq!(yard.generation(), 1);
    yard.write(&format!("{}description = \"edited\"\n", text(1)));
    until("the edit is taken", || yard.generation() == 2).await;
    assert_eq!(yard.ports(), [7, 8]);
    runs.send_replace(fleet(&[8]));
    until("one has gone", || yard.ports() == [8]).await;
    assert_eq!(yard.tables.current().table.agents["qa"].description, "edited");
    drop(runs);
    yard.write(&text(1));
    until("the file is still followed", || yard.generation() == 3).await;
    assert_eq!(yard.ports(), [8]);
    following.abort();
}
