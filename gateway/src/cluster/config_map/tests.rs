//! Which ConfigMaps are followed, what counts of them, and what is told when.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;

use super::*;

fn object(data: &[(&str, &str)]) -> v1::ConfigMap {
    let data: BTreeMap<_, _> =
        data.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    v1::ConfigMap { data: Some(data), ..v1::ConfigMap::default() }
}

fn bytes(object: &v1::ConfigMap) -> Result<Vec<u8>, String> {
    Object::of(object).unwrap().bytes
}

#[test]
fn the_text_is_that_of_the_key() {
    let both = object(&[("switchyard.toml", "x"), ("other", "y")]);
    assert_eq!(bytes(&both), Ok(b"x".to_vec()));
    let why = bytes(&object(&[("table.toml", "x")])).unwrap_err();
    assert!(why.ends_with("(there is table.toml)"), "{why}");
    assert!(bytes(&object(&[])).unwrap_err().ends_with("(it is empty)"));
    assert!(bytes(&v1::ConfigMap::default()).unwrap_err().ends_with("(it is empty)"));
}

#[test]
fn bytes_that_are_no_text_stand_elsewhere_in_the_object() {
    let data = k8s_openapi::ByteString(vec![0xff]);
    let binary = BTreeMap::from([("switchyard.toml".to_owned(), data)]);
    let object = v1::ConfigMap { binary_data: Some(binary), ..v1::ConfigMap::default() };
    assert_eq!(bytes(&object), Ok(vec![0xff]));
}

#[test]
fn only_a_file_of_a_volume_has_a_config_map() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let table = config::parse("[agents.qa]\nendpoints = [\"http://127.0.0.1:1\"]\n", "t");
    let table = table.unwrap().table;
    let mounted = |file: &Path, credentials| ConfigMap::mounted(file, &table, credentials);
    std::fs::write(at("plain.toml"), "").unwrap();
    symlink("..data/switchyard.toml", at("switchyard.toml")).unwrap();
    symlink("..data/other.toml", at("other.toml")).unwrap();
    let credentials = Some(Credentials::Kubeconfig);
    assert!(mounted(&at("plain.toml"), credentials).is_none());
    assert!(mounted(&at("other.toml"), credentials).is_none(), "of another ConfigMap");
    assert!(mounted(&at("switchyard.toml"), None).is_none(), "there is no cluster");
    let found = mounted(&at("switchyard.toml"), credentials).unwrap();
    assert_eq!(found.status().json()["name"], "ai-agents/switchyard");
}

#[test]
fn what_is_lost_is_told_once_and_ages() {
    let status = Status::new("a/b".into());
    let away = |error: &str| State::Away { since_ms: now_ms(), error: error.into() };
    assert!(matches!(status.found(), Some(Told::Follows)));
    assert_eq!((status.age_seconds(), &status.json()["state"]), (0.0, &json!("followed")));
    assert!(status.lost(away("one")).is_some());
    assert!(status.lost(away("two")).is_none());
    assert_eq!(status.json()["state"], "away");
    assert_eq!(status.json()["error"], "two", "the last reason is told");
    assert!(status.lost(State::Absent).is_some(), "it is gone: another thing");
    assert!(status.lost(State::Absent).is_none());
    status.found();
    assert_eq!(status.json()["error"], Value::Null);
}

/// What is passed on for these news, and the state after all of them.
async fn passed(news: Vec<News<Object>>) -> (Vec<String>, Value) {
    let (sender, heard) = mpsc::channel(EDITS_MAX);
    let (told, mut tells) = mpsc::channel(EDITS_MAX);
    let status = Status::new("a/b".into());
    for one in news {
        assert!(sender.try_send(("a".into(), 0, one)).is_ok());
    }
    drop(sender);
    pass_on(heard, &told, &status).await;
    drop(told);
    let mut passed = Vec::new();
    while let Some(tell) = tells.recv().await {
        passed.push(match tell {
            Told::Edit(edit) => String::from_utf8(edit.bytes.unwrap()).unwrap(),
            Told::Follows => "follows".to_owned(),
            Told::Away => "away".to_owned(),
        });
    }
    (passed, status.json()["state"].clone())
}

fn kept(text: &str) -> (String, Object) {
    ("b".to_owned(), Object::of(&object(&[("switchyard.toml", text)])).unwrap())
}

#[tokio::test]
async fn what_is_heard_is_passed_on_in_order() {
    let (name, two) = kept("2");
    let news = vec![News::Listed(vec![kept("1")]), News::Follows, News::Changed(name, two)];
    let (passed, state) = passed(news).await;
    assert_eq!(
        (passed, state),
        (vec!["1".into(), "follows".into(), "2".into()], json!("followed"))
    );
}

#[tokio::test]
async fn an_object_that_is_gone_is_not_followed_though_the_api_answers() {
    let away = || News::Away("why".into());
    let gone = || News::Gone("b".into());
    let (heard, state) = passed(vec![News::Listed(vec![kept("1")]), gone(), News::Follows]).await;
    assert_eq!((heard, state), (vec!["1".into(), "away".into()], json!("absent")));
    let news = vec![News::Listed(vec![]), away(), away(), News::Follows];
    let (heard, state) = passed(news).await;
    assert_eq!((heard.len(), state), (3, json!("absent")));
    let news = vec![News::Listed(vec![]), away(), News::Listed(vec![kept("1")]), News::Follows];
    let (heard, state) = passed(news).await;
    assert_eq!((heard.last().unwrap().as_str(), state), ("follows", json!("followed")));
}
