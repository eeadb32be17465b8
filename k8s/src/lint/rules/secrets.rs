//! Secrets, credentials, and whose code runs.

use std::collections::BTreeSet;

use super::{Invariant, Source};
use crate::lint::node::Node;
use crate::lint::yard::{Fault, Object, Yard};

pub(super) const INVARIANTS: &[Invariant] = &[
    Invariant {
        id: "secret-in-the-clear",
        catches: "what looks like a key (`sk-…`, `AKIA…`, `ghp_…`, a private key) in the environment, a command or a ConfigMap",
        why: "everybody who may read the manifests or the pods has it, and it stays in Git for ever",
        source: Source {
            title: "Kubernetes documentation, Good practices for Kubernetes Secrets",
            url: "https://kubernetes.io/docs/concepts/security/secrets-good-practices/",
        },
        check: in_the_clear,
    },
    Invariant {
        id: "secret-not-in-the-table",
        catches: "the gateway or an agent with a Secret, or a key of one, that the table doesn't name",
        why: "`check` doesn't ask for it, nobody makes it, and the container never starts (CreateContainerConfigError)",
        source: Source {
            title: "Kubernetes documentation, Secrets: Optional Secrets",
            url: "https://kubernetes.io/docs/concepts/configuration/secret/#restriction-secret-must-exist",
        },
        check: not_in_the_table,
    },
    Invariant {
        id: "image-floats",
        catches: "an image without a tag or digest, or with the tag `latest`",
        why: "the pods of one Deployment run different programs, and a roll-back brings back the same one",
        source: Source {
            title: "Kubernetes documentation, Images: Image names",
            url: "https://kubernetes.io/docs/concepts/containers/images/#image-names",
        },
        check: image_floats,
    },
    Invariant {
        id: "token-mounted",
        catches: "an agent's pod that is given a token for the API server",
        why: "agents run what a model wrote: a token in the file system is one that it can read",
        source: Source {
            title: "Kubernetes documentation, Configure Service Accounts for Pods: Opt out of API credential automounting",
            url: "https://kubernetes.io/docs/tasks/configure-pod-container/configure-service-account/#opt-out-of-api-credential-automounting",
        },
        check: token_mounted,
    },
    Invariant {
        id: "service-links",
        catches: "the gateway or an agent without `enableServiceLinks: false`",
        why: "each Service of the namespace is seven more variables: with hundreds of agents programs can't start (\"argument list too long\")",
        source: Source {
            title: "kubernetes/kubernetes#84539: exec user process caused \"argument list too long\"",
            url: "https://github.com/kubernetes/kubernetes/issues/84539",
        },
        check: service_links,
    },
    Invariant {
        id: "rbac-wildcard",
        catches: "a Role or ClusterRole with `*` as verb or API group",
        why: "it also grants what will exist only later",
        source: Source {
            title: "Kubernetes documentation, Role Based Access Control Good Practices: Least privilege",
            url: "https://kubernetes.io/docs/concepts/security/rbac-good-practices/#least-privilege",
        },
        check: rbac_wildcard,
    },
];

/// How keys begin, and how many characters follow at least.
const KEYS: [(&str, usize); 9] = [
    ("sk-", 20),
    ("AKIA", 16),
    ("ASIA", 16),
    ("AIza", 35),
    ("ghp_", 36),
    ("github_pat_", 22),
    ("glpat-", 20),
    ("xoxb-", 20),
    ("xoxp-", 20),
];

/// What a text has that looks like a secret: how it begins, never the secret.
fn secret(text: &str) -> Option<&'static str> {
    if text.contains("-----BEGIN") && text.contains("PRIVATE KEY-----") {
        return Some("-----BEGIN PRIVATE KEY-----");
    }
    let is_inner = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let words = text.split(|c| !is_inner(c));
    let is_key = |word: &str, (prefix, least): &(&str, usize)| {
        word.strip_prefix(prefix)
            .is_some_and(|rest| rest.len() >= *least && rest.contains(|c: char| c.is_ascii_digit()))
    };
    words.into_iter().find_map(|word| KEYS.iter().find(|key| is_key(word, key)).map(|key| key.0))
}

fn in_the_clear<'y>(yard: &'y Yard<'y>) -> Vec<Fault<'y>> {
    let mut faults = Vec::new();
    let mut look = |object: &'y Object<'y>, node: &'y Node| {
        if let Some(begins) = node.text().and_then(secret) {
            let message = format!("what begins with {begins} looks like a secret");
            let hint = "a Secret and a secretKeyRef; in the table deployment.secrets. And change it: it is known";
            faults.push(object.fault(node, message, hint));
        }
    };
    for object in yard.workloads() {
        for container in object.all_containers() {
            let values = container.list_at("env").iter().filter_map(|entry| entry.key("value"));
            let words = container.list_at("command").iter().chain(container.list_at("args"));
            values.chain(words).for_each(|node| look(object, node));
        }
    }
    for map in yard.kind("ConfigMap") {
        let values = map.root.key("data").map_or(&[][..], Node::entries);
        values.iter().for_each(|(_, value)| look(map, value));
    }
    faults
}

/// The references of a container's environment to Secrets: where, name, and key (none: all of it).
fn references(container: &Node) -> Vec<(&Node, String, Option<String>)> {
    let reference = |node: &'_ Node, key: Option<&str>| {
        let name = node.text_at("name")?.to_owned();
        (!node.is_true("optional")).then(|| (name, key.map(str::to_owned)))
    };
    let single = container.list_at("env").iter().filter_map(|entry| {
        let node = entry.at("valueFrom/secretKeyRef")?;
        let (name, key) = reference(node, node.text_at("key"))?;
        Some((node, name, key))
    });
    let whole = container.list_at("envFrom").iter().filter_map(|entry| {
        let node = entry.key("secretRef")?;
        let (name, key) = reference(node, None)?;
        Some((node, name, key))
    });
    single.chain(whole).collect()
}

/// Every Secret and key that the manifests of the table name, and the Secrets that stand here.
fn known(yard: &Yard<'_>) -> BTreeSet<(String, Option<String>)> {
    let files = crate::render(yard.table, "");
    let (rendered, _) = Yard::read(yard.table, &files);
    let containers = rendered.workloads().flat_map(Object::containers);
    let named = containers.flat_map(references).map(|(_, name, key)| (name, key));
    let mut known: BTreeSet<_> = named.collect();
    known.extend(yard.kind("Secret").map(|secret| (secret.name.clone(), None)));
    known
}

fn not_in_the_table<'y>(yard: &'y Yard<'y>) -> Vec<Fault<'y>> {
    let containers = yard
        .ours()
        .flat_map(|(object, _)| object.all_containers().map(move |container| (object, container)));
    let named: Vec<_> = containers
        .flat_map(|(object, container)| {
            references(container).into_iter().map(move |reference| (object, reference))
        })
        .collect();
    if named.is_empty() {
        return Vec::new();
    }
    let known = known(yard);
    let fault =
        |(object, (node, name, key)): (&'y Object<'y>, (&'y Node, String, Option<String>))| {
            let here = known.contains(&(name.clone(), None));
            let said = key.as_ref().map_or(name.clone(), |key| format!("{name}/{key}"));
            let message = format!("the table names no secret {said}");
            let hint = format!("in the table deployment.secrets = {{ NAME = \"{said}\" }}");
            let unknown = !here && !known.contains(&(name, key));
            unknown.then(|| object.fault(node, message, hint))
        };
    named.into_iter().filter_map(fault).collect()
}

fn image_floats<'y>(yard: &'y Yard<'y>) -> Vec<Fault<'y>> {
    let images = yard.workloads().flat_map(|object| {
        object.all_containers().filter_map(move |one| Some((object, one.key("image")?)))
    });
    let floats = |(object, node): (&'y Object<'y>, &'y Node)| {
        let image = node.text()?;
        let tag = image.rsplit_once(':').map(|(_, tag)| tag).filter(|tag| !tag.contains('/'));
        let floats = !image.contains('@') && tag.is_none_or(|tag| tag == "latest");
        let message = || format!("{image} is another program tomorrow");
        floats.then(|| object.fault(node, message(), "a tag of a version, or a digest"))
    };
    images.filter_map(floats).collect()
}

fn token_mounted<'y>(yard: &'y Yard<'y>) -> Vec<Fault<'y>> {
    const KEY: &str = "automountServiceAccountToken";
    let mounted = |(object, _): (&'y Object<'y>, _)| {
        let pod = object.pod()?;
        let account = pod.text_at("serviceAccountName").unwrap_or("default");
        let account = yard
            .kind("ServiceAccount")
            .find(|one| one.name == account && one.namespace == object.namespace);
        let of_account = || account.and_then(|one| one.root.bool_at(KEY));
        let mounts = pod.bool_at(KEY).or_else(of_account).unwrap_or(true);
        let message = "its pods are given a token for the API server";
        mounts.then(|| object.fault(pod.nearest(KEY), message, format!("{KEY}: false")))
    };
    yard.agents().filter_map(mounted).collect()
}

fn service_links<'y>(yard: &'y Yard<'y>) -> Vec<Fault<'y>> {
    const KEY: &str = "enableServiceLinks";
    let linked = |(object, _): (&'y Object<'y>, _)| {
        let pod = object.pod()?;
        let message = "its environment has variables for each Service of the namespace";
        let off = pod.bool_at(KEY) == Some(false);
        (!off).then(|| object.fault(pod.nearest(KEY), message, format!("{KEY}: false")))
    };
    yard.ours().filter_map(linked).collect()
}

fn rbac_wildcard<'y>(yard: &'y Yard<'y>) -> Vec<Fault<'y>> {
    let mut faults = Vec::new();
    for role in yard.kind("Role").chain(yard.kind("ClusterRole")) {
        for rule in role.root.list_at("rules") {
            let listed = ["verbs", "apiGroups"].into_iter().flat_map(|key| rule.list_at(key));
            let all = listed.into_iter().find(|one| one.text() == Some("*"));
            let message = "it grants everything that there is and will be";
            faults.extend(all.map(|node| role.fault(node, message, "name what is needed")));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_key_is_found_and_prose_is_not() {
        let made_up = format!("sk-{}", "abc123".repeat(5));
        assert_eq!(secret(&made_up), Some("sk-"));
        assert_eq!(secret(&format!("key={made_up}")), Some("sk-"));
        assert_eq!(secret("AKIAIOSFODNN7EXAMPLE"), Some("AKIA"));
        assert!(secret("-----BEGIN RSA PRIVATE KEY-----\nMII\n").is_some());
        for prose in
            ["a task-runner-for-everything-there-is", "sk-short1", "-----BEGIN CERTIFICATE-----"]
        {
            assert_eq!(secret(prose), None, "{prose}");
        }
    }
}
