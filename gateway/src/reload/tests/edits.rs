//! Edits from elsewhere than the file: what counts, and who hears of it.

use tokio::sync::mpsc;

use super::*;

/// A yard whose file is a late copy of an object.
struct Copy {
    yard: Yard,
    reload: Reload,
    told: Option<mpsc::Sender<Told>>,
    verdicts: mpsc::Receiver<Verdict>,
    versions: u64,
}

impl Copy {
    fn new(first: &str) -> Self {
        let (yard, mut reload) = Yard::new(first);
        let (told, heard) = mpsc::channel(9);
        let (tell, verdicts) = mpsc::channel(9);
        reload.follow(Elsewhere { told: heard, verdicts: tell });
        Self { yard, reload, told: Some(told), verdicts, versions: 0 }
    }

    async fn hear(&mut self, told: Told) {
        self.reload.hear(told, &mut Source::Listed).await;
    }

    /// The object holds this.
    async fn object(&mut self, text: &str) {
        self.versions += 1;
        let told = self.edit(text);
        self.hear(told).await;
    }

    fn edit(&self, text: &str) -> Told {
        let version = Version { uid: "u".into(), resource_version: self.versions.to_string() };
        let bytes = Ok(text.as_bytes().to_vec());
        Told::Edit(Edit { name: "ConfigMap a/switchyard, t.toml".into(), bytes, version })
    }

    /// The file holds this.
    async fn file(&mut self, text: &str) {
        self.yard.write(text);
        read(&mut self.reload).await;
    }

    /// What came of the edits since the last time: generations, or first problems.
    fn heard(&mut self) -> Vec<String> {
        let result = |verdict: Verdict| match verdict.result {
            Ok((generation, _)) => format!("{}: {generation}", verdict.version.resource_version),
            Err(problems) => format!("{}: {}", verdict.version.resource_version, problems[0]),
        };
        std::iter::from_fn(|| self.verdicts.try_recv().ok()).map(result).collect()
    }

    fn check(&self, port: u16, generation: u64) {
        assert_eq!((self.yard.ports(), self.yard.generation()), (vec![port], generation));
    }
}

#[tokio::test]
async fn an_edit_is_in_force_before_the_file_has_it_and_is_not_undone_by_it() {
    let mut copy = Copy::new(&text(1));
    copy.object(&text(1)).await;
    assert_eq!(copy.heard(), [""; 0], "nothing has changed");
    copy.object(&text(2)).await;
    copy.check(2, 2);
    copy.file(&text(1)).await;
    copy.check(2, 2);
    copy.file(&text(2)).await;
    copy.check(2, 2);
    assert_eq!(copy.heard(), ["2: 2"], "told once");
}

#[tokio::test]
async fn a_start_with_an_older_file_takes_the_object() {
    let mut copy = Copy::new(&text(1));
    copy.file(&text(1)).await;
    copy.object(&text(2)).await;
    copy.check(2, 2);
    copy.hear(Told::Away).await;
    copy.check(2, 2);
}

#[tokio::test]
async fn a_file_that_comes_to_the_first_of_two_edits_changes_nothing() {
    let mut copy = Copy::new(&text(1));
    copy.object(&text(2)).await;
    copy.object(&text(3)).await;
    copy.file(&text(2)).await;
    copy.check(3, 3);
    copy.hear(Told::Away).await;
    copy.check(3, 3);
    copy.file(&text(1)).await;
    copy.check(3, 3);
    copy.file(&text(3)).await;
    copy.check(3, 3);
}

#[tokio::test]
async fn while_nobody_can_be_asked_the_file_counts_and_then_the_object_again() {
    let mut copy = Copy::new(&text(1));
    copy.object(&text(1)).await;
    copy.hear(Told::Away).await;
    copy.file(&text(2)).await;
    copy.check(2, 2);
    assert_eq!(copy.heard(), [""; 0], "an edit of the file is no edit of the object");
    copy.hear(Told::Follows).await;
    copy.check(2, 2);
    copy.object(&text(2)).await;
    copy.check(2, 2);
    assert_eq!(copy.heard(), ["2: 2"], "now it is known to be the object's");
    copy.object(&text(2)).await;
    copy.object(&text(3)).await;
    copy.check(3, 3);
    assert_eq!(copy.heard(), ["4: 3"]);
}

#[tokio::test]
async fn what_the_file_had_refused_is_told_when_the_object_is_heard_of() {
    let mut copy = Copy::new(&text(1));
    copy.object(&text(1)).await;
    copy.hear(Told::Away).await;
    copy.file("nonsense = 1\n").await;
    assert_eq!(copy.heard(), [""; 0]);
    copy.object("nonsense = 1\n").await;
    assert!(copy.heard()[0].contains(":1:1: "), "told");
    copy.object("nonsense = 1\n").await;
    assert_eq!((copy.heard().len(), copy.yard.counted()), (0, (0, 1)), "once");
}

#[tokio::test]
async fn an_object_that_comes_back_as_it_was_undoes_the_file() {
    let mut copy = Copy::new(&text(1));
    copy.object(&text(1)).await;
    copy.hear(Told::Away).await;
    copy.file(&text(2)).await;
    copy.object(&text(1)).await;
    copy.check(1, 3);
}

#[tokio::test]
async fn a_refused_edit_stands_until_a_good_one_and_is_told_once() {
    let mut copy = Copy::new(&text(1));
    copy.object("nonsense = 1\n").await;
    let problems = copy.yard.problems().unwrap();
    let named = "ConfigMap a/switchyard, t.toml:1:1: ";
    assert!(problems[0].starts_with(named), "{problems:?}");
    copy.object("nonsense = 1\n").await;
    copy.hear(Told::Away).await;
    copy.file("nonsense = 1\n").await;
    copy.hear(Told::Follows).await;
    copy.check(1, 1);
    assert_eq!((copy.heard().len(), copy.yard.counted()), (1, (0, 1)));
    copy.file(&text(1)).await;
    assert!(copy.yard.problems().is_some(), "an older file doesn't excuse it");
    copy.object(&text(1)).await;
    assert_eq!((copy.yard.problems(), copy.heard()), (None, vec!["3: 1".to_owned()]));
}

#[tokio::test]
async fn an_object_without_the_text_is_refused_and_one_without_agents_too() {
    let mut copy = Copy::new(&text(1));
    let version = Version { uid: "u".into(), resource_version: "1".into() };
    let bytes = Err("there is no such key".to_owned());
    copy.hear(Told::Edit(Edit { name: "ConfigMap a/b, t.toml".into(), bytes, version })).await;
    assert_eq!(copy.yard.problems().unwrap(), ["ConfigMap a/b, t.toml:1:1: there is no such key"]);
    copy.object("").await;
    assert!(copy.yard.problems().unwrap()[0].contains("there are no agents"));
    copy.check(1, 1);
    assert_eq!(copy.heard().len(), 2);
}

#[tokio::test]
async fn who_asks_hears_of_the_object_while_it_counts() {
    let mut copy = Copy::new(&text(1));
    copy.object("nonsense = 1\n").await;
    copy.reload.read(&mut Source::Listed, true).await;
    assert_eq!(copy.yard.counted(), (0, 2), "the object, not the good file");
    copy.hear(Told::Away).await;
    copy.reload.read(&mut Source::Listed, true).await;
    assert!(copy.yard.problems().is_some(), "the file is still the older one");
}

#[tokio::test]
async fn what_needs_a_restart_is_refused_by_name_in_the_object_too() {
    let mut copy = Copy::new(&text(1));
    copy.object(&format!("[gateway]\nworkers = 7\n{}", text(1))).await;
    let heard = copy.heard();
    assert!(heard[0].contains("t.toml:2:11: [gateway] workers needs a restart"), "{heard:?}");
}

#[tokio::test]
async fn both_are_followed_at_once() {
    let mut copy = Copy::new(&text(1));
    let (first, second) = (copy.edit(&text(2)), copy.edit(&text(3)));
    let told = copy.told.take().unwrap();
    let following = tokio::spawn(copy.reload.run(Source::Listed, false));
    told.send(first).await.unwrap();
    until("the object's is in force", || copy.yard.ports() == [2]).await;
    told.send(second).await.unwrap();
    until("the next one is in force", || copy.yard.ports() == [3]).await;
    copy.yard.write(&text(2));
    told.send(Told::Away).await.unwrap();
    copy.yard.write(&text(4));
    until("the file's is in force", || copy.yard.ports() == [4]).await;
    assert_eq!(copy.yard.generation(), 4);
    following.abort();
}
