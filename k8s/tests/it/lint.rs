//! The linter: it finds each seeded fault and nothing else, and nothing at all in good manifests.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use k8s::File;
use k8s::lint::{Finding, invariants, lint};
use serde_json::{Value, json};

use crate::faults::{self, Row, Set};
use crate::{here, render, table};

fn own_table() -> String {
    std::fs::read_to_string(here("../config/switchyard.toml")).unwrap()
}

fn file(path: &str, contents: impl Into<String>) -> File {
    File { path: path.to_owned(), contents: contents.into() }
}

/// Objects as a file, each a document in JSON, which is YAML.
fn stream(objects: &[Value]) -> String {
    objects.iter().map(|object| format!("---\n{object:#}\n")).collect()
}

/// Every file below a folder of this crate.
fn files(folder: &str) -> Vec<File> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(here(folder)).unwrap() {
        let path = entry.unwrap().path();
        let inner = path.strip_prefix(here("")).unwrap().display().to_string();
        if path.is_dir() {
            found.extend(files(&inner));
        } else {
            found.push(file(&inner, std::fs::read_to_string(path).unwrap()));
        }
    }
    found
}

#[track_caller]
fn no_findings(text: &str, files: &[File]) {
    let findings = lint(&table(text), files);
    assert!(findings.is_empty(), "{findings:#?}");
}

/// The findings in the base of a table, after something was done to it.
fn spoilt(text: &str, seed: impl Fn(&mut Set)) -> Vec<Finding> {
    let mut set = Set { table: text.to_owned(), objects: render(text).objects() };
    seed(&mut set);
    lint(&table(&set.table), &[file("base/all.yaml", stream(&set.objects))])
}

fn rows() -> impl Iterator<Item = &'static Row> {
    let all = [
        faults::ENDING,
        faults::SCALING,
        faults::RESOURCES,
        faults::NETWORK,
        faults::SECURITY,
        faults::IDENTITY,
    ];
    all.into_iter().flatten()
}

#[test]
fn each_seeded_fault_gives_its_finding_and_no_other() {
    let text = own_table();
    let mut wrong = String::new();
    for (n, (id, seed)) in rows().enumerate() {
        let findings = spoilt(&text, seed);
        if findings.iter().map(|finding| finding.id).collect::<Vec<_>>() != [*id] {
            writeln!(wrong, "row {n}, {id}: {findings:#?}").unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn each_invariant_has_a_fault_that_it_catches_and_its_own_name() {
    let seeded: BTreeSet<_> = rows().map(|(id, _)| *id).collect();
    let known: Vec<_> = invariants().map(|invariant| invariant.id).collect();
    let unique: BTreeSet<_> = known.iter().copied().collect();
    assert_eq!(known.len(), unique.len(), "two invariants have one id");
    assert_eq!(seeded, unique);
    assert!(known.len() >= 24);
    for invariant in invariants() {
        let source = &invariant.source;
        assert!(source.url.starts_with("https://") && !source.title.is_empty(), "{}", invariant.id);
    }
}

#[test]
fn the_committed_manifests_have_no_findings() {
    let all: Vec<_> = ["base", "components", "overlays"].into_iter().flat_map(files).collect();
    assert!(k8s::lint::count(&table(&own_table()), &all) > 20);
    no_findings(&own_table(), &all);
}

const LIMITS: &str = "limits = { cpu = \"1\", memory = \"512Mi\" }";

fn agent(name: &str, keys: &str, deployment: &str) -> String {
    format!(
        "[agents.{name}]\nservice = \"{name}-agent\"\n{keys}\n[agents.{name}.deployment]\n\
         image = \"r.example.com:5000/{name}:1.2.3\"\n{LIMITS}\n{deployment}\n"
    )
}

#[test]
fn renderings_of_other_tables_have_no_findings() {
    let range = "scale = { min = 0, max = 7, load = 3, idle = \"5m\" }";
    let tables = [
        agent("one", "", ""),
        agent("ranged", range, ""),
        agent("fast", "protocol = \"h2c\"\nhealth = { path = \"/up\" }", ""),
        agent("slow", "timeout = \"90m\"\nidle_timeout = \"5m\"\non_disconnect = \"continue\"", ""),
        agent("secret", "", "env = { A = \"$(B)\" }\nsecrets = { KEY = \"agent-secrets/key\" }"),
        agent("shared", "", "") + "[agents.more]\nshares = \"shared\"\ntimeout = \"20m\"\n",
        agent("v1", "", "")
            + &agent("v2", "", "")
            + "[agents.split]\nversions = [\
            { service = \"v1-agent\", weight = 9 }, { service = \"v2-agent\", weight = 1 }]\n",
        agent("here", "", "")
            + &agent("there", "", "").replace("there-agent", "there.elsewhere")
            + &agent("there2", range, "").replace("there2-agent", "here-agent.elsewhere"),
        "[kubernetes]\nnamespace = \"other\"\n[gateway.scale]\nmin = 3\nmax = 3\n".to_owned()
            + &agent("one", "", ""),
        "[gateway]\ndrain_delay = \"300ms\"\ndrain_timeout = \"1500ms\"\n".to_owned()
            + &agent("brief", "timeout = \"1s\"\nidle_timeout = \"1s\"", ""),
        "[agents.listed]\nendpoints = [\"http://127.0.0.1:1\"]\n".to_owned(),
        (0..100).map(|n| agent(&format!("agent-number-{n}"), range, "")).collect(),
    ];
    for text in tables {
        no_findings(&text, &render(&text).files);
    }
    for example in std::fs::read_dir(here("../config/examples")).unwrap() {
        let text = std::fs::read_to_string(example.unwrap().path()).unwrap();
        no_findings(&text, &render(&text).files);
    }
}

#[test]
fn only_whole_objects_are_judged() {
    let patch = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "qa-agent" },
        "spec": { "replicas": 3, "template": { "spec": { "containers": [{ "name": "agent" }] } } },
    });
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "qa-agent" },
        "spec": { "selector": { "app": "nobody" } },
    });
    let text = own_table();
    let mut all = render(&text).files;
    all.extend([
        file("overlays/mine/kustomization.yaml", "patches: [{path: ../patches/service.yaml}]\n"),
        file("overlays/patches/service.yaml", stream(&[service])),
        file("overlays/mine/replicas.yaml", stream(&[patch])),
        file("overlays/mine/values.yaml", "replicas: 3\nimage: {tag: latest}\n"),
        file("overlays/mine/json6902.yaml", "- {op: remove, path: /spec}\n"),
    ]);
    no_findings(&text, &all);
}

#[test]
fn a_port_that_a_patch_adds_is_there() {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "debug" },
        "spec": { "selector": { "app": "qa-agent" }, "ports": [{ "port": 1, "targetPort": "debug" }] },
    });
    let adds = |patch: &str| {
        let text = own_table();
        let mut all = render(&text).files;
        all.push(file("overlays/mine/debug.yaml", stream(std::slice::from_ref(&service))));
        all.push(file("overlays/mine/kustomization.yaml", patch));
        lint(&table(&text), &all).into_iter().map(|finding| finding.id).collect::<Vec<_>>()
    };
    let merged = json!({ "kind": "Deployment", "metadata": { "name": "qa-agent" }, "spec": {
        "template": { "spec": { "containers": [{ "name": "agent", "ports": [
            { "name": "debug", "containerPort": 9229 },
        ]}]}},
    }});
    let operations = json!([{ "op": "add", "path": "/spec/template/spec/containers/0/ports/-",
        "value": { "name": "debug", "containerPort": 9229 } }]);
    let target = json!({ "kind": "Deployment", "name": "qa-agent" });
    let other = json!({ "kind": "Deployment", "name": "coding-agent" });
    let inline = |patch: &Value| json!({ "patches": [{ "patch": patch.to_string() }] });
    let aimed = |target: &Value| json!({ "patches": [{ "target": target, "patch": operations.to_string() }] });
    assert!(adds(&inline(&merged).to_string()).is_empty());
    assert!(adds(&aimed(&target).to_string()).is_empty());
    assert_eq!(adds(&aimed(&other).to_string()), ["service-port-unknown"]);
}

#[test]
fn an_object_of_anybodys_making_is_judged_and_may_make_an_exception() {
    let redis = |annotations: Value| {
        let container = json!({
            "name": "redis", "image": "redis:8.2.1",
            "resources": { "limits": { "memory": "256Mi" } },
            "securityContext": {
                "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] },
            },
        });
        let labels = json!({ "app": "redis" });
        let context =
            json!({ "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } });
        json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet",
            "metadata": { "name": "redis", "namespace": "ai-agents", "annotations": annotations },
            "spec": {
                "selector": { "matchLabels": labels },
                "template": {
                    "metadata": { "labels": labels },
                    "spec": { "securityContext": context, "containers": [container] },
                },
            },
        })
    };
    let text = own_table();
    let found = |annotations: Value| -> Vec<_> {
        let mut all = render(&text).files;
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": [redis(annotations)] });
        all.push(file("redis.yaml", stream(&[list])));
        lint(&table(&text), &all).into_iter().map(|finding| finding.id).collect()
    };
    assert_eq!(found(json!({})), ["writable-root"]);
    assert!(found(json!({ "switchyard.dev/allow": "host-access, writable-root" })).is_empty());
}

#[test]
fn a_finding_says_where_what_and_who_says_so() {
    let text = own_table();
    let mut files = render(&text).files;
    let qa = files.iter_mut().find(|file| file.path == "base/30-qa-agent.yaml").unwrap();
    qa.contents = qa.contents.replace("GracePeriodSeconds: 345", "GracePeriodSeconds: 60");
    let line = qa.contents.lines().position(|line| line.contains("GracePeriod")).unwrap() + 1;
    let findings = lint(&table(&text), &files);
    let [finding] = findings.as_slice() else { panic!("{findings:#?}") };
    assert_eq!((finding.file.as_str(), finding.line), ("base/30-qa-agent.yaml", line));
    assert_eq!(finding.col, "      terminationGracePeriodSeconds: ".len() + 1);
    assert_eq!(
        finding.message,
        "Deployment qa-agent: a grace of 60 s is less than preStop 5 s + the longest timeout and 30 s, 330 s"
    );
    assert_eq!(finding.hint, "terminationGracePeriodSeconds: 335 or more");
    assert!(finding.source.as_deref().unwrap().contains("https://kubernetes.io/"));
}

#[test]
fn what_is_no_yaml_is_a_finding_with_its_place() {
    let text = own_table();
    let mut files = render(&text).files;
    files.push(file("chart.yaml", "kind: Service\nname: {{ .Values.name }}-1\n"));
    let findings = lint(&table(&text), &files);
    let [finding] = findings.as_slice() else { panic!("{findings:#?}") };
    assert_eq!((finding.id, finding.file.as_str(), finding.line), ("unreadable", "chart.yaml", 2));
}

#[test]
fn checks_are_documented() {
    let path = here("../docs/kubernetes-checks.md");
    let page = k8s::lint::page();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let was = std::fs::read_to_string(Path::new(&path)).unwrap_or_default();
    assert!(was == page, "`UPDATE=1 cargo test -p k8s checks` refreshes docs/kubernetes-checks.md");
    for invariant in invariants() {
        assert!(page.contains(&format!("\n| `{}` | ", invariant.id)), "{}", invariant.id);
    }
}
