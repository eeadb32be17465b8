//! The objects of a folder, and who of them belongs to whom: pods to workloads, workloads to the
//! table, selectors to pods.

use config::Table;

use super::kustomize::{self, Patch};
use super::node::{self, Node};
use super::{ALLOW, Finding, UNREADABLE};
use crate::plan::{self, Run, Workload};
use crate::{File, GATEWAY};

/// A whole object: it has a kind and a name, and its pods, if it makes any, have containers with
/// images.
pub(crate) struct Object<'a> {
    pub(crate) file: &'a str,
    pub(crate) root: Node,
    pub(crate) api: String,
    pub(crate) kind: String,
    pub(crate) name: String,
    /// The table's, where the object names none.
    pub(crate) namespace: String,
}

/// Something that is wrong with an object, and where.
pub(crate) struct Fault<'a> {
    pub(crate) object: &'a Object<'a>,
    pub(crate) at: &'a Node,
    pub(crate) message: String,
    pub(crate) hint: String,
}

/// What a Deployment is to the table.
#[derive(Clone, Copy)]
pub(crate) enum Role<'a> {
    Gateway,
    Agent(&'a Run<'a>),
}

/// All there is to judge.
pub(crate) struct Yard<'a> {
    pub(crate) table: &'a Table,
    pub(crate) gateway: Workload<'a>,
    pub(crate) runs: Vec<Run<'a>>,
    pub(crate) objects: Vec<Object<'a>>,
    patches: Vec<Patch>,
}

impl<'a> Yard<'a> {
    /// The objects of these files, and the files that are no YAML.
    pub(crate) fn read(table: &'a Table, files: &'a [File]) -> (Self, Vec<Finding>) {
        let (mut read, mut unreadable) = (Vec::new(), Vec::new());
        for file in files {
            match node::read(&file.contents) {
                Ok(documents) => read.push((file.path.as_str(), documents)),
                Err(error) => unreadable.push(Finding {
                    file: file.path.clone(),
                    line: error.line,
                    col: error.col,
                    id: UNREADABLE,
                    message: format!("no YAML: {}", error.why),
                    hint: "`kubectl apply` would refuse it, too".to_owned(),
                    source: None,
                }),
            }
        }
        let (files, mut patches) = kustomize::patches(&read);
        let mut objects = Vec::new();
        for (path, documents) in read {
            let named = files.contains(path);
            for document in documents {
                let partial = if named {
                    Some(document)
                } else {
                    collect(document, path, table, &mut objects)
                };
                patches.extend(partial.map(Patch::of));
            }
        }
        let (gateway, runs) = (plan::gateway(table), plan::runs(table));
        (Self { table, gateway, runs, objects, patches }, unreadable)
    }

    pub(crate) fn kind<'s>(&'s self, kind: &'s str) -> impl Iterator<Item = &'s Object<'a>> {
        self.objects.iter().filter(move |object| object.kind == kind)
    }

    /// What makes pods.
    pub(crate) fn workloads(&self) -> impl Iterator<Item = &Object<'a>> {
        self.objects.iter().filter(|object| object.pod().is_some())
    }

    /// What makes the pods that a Service leads to; none for one without a selector.
    pub(crate) fn behind<'s>(
        &'s self,
        service: &'s Object<'a>,
    ) -> impl Iterator<Item = &'s Object<'a>> {
        let wanted = service.root.at("spec/selector").map_or(&[][..], Node::entries);
        self.workloads().filter(move |workload| {
            let labels = workload.pod_labels();
            !wanted.is_empty()
                && workload.namespace == service.namespace
                && wanted.iter().all(|(key, value)| has(labels, key, value))
        })
    }

    /// What makes the pods that an object's label selector at `path` selects.
    pub(crate) fn chosen<'s>(
        &'s self,
        object: &'s Object<'a>,
        path: &'s str,
    ) -> impl Iterator<Item = &'s Object<'a>> {
        self.workloads().filter(move |workload| object.chooses(path, workload))
    }

    /// What a workload is to the table.
    pub(crate) fn role(&self, object: &Object<'_>) -> Option<Role<'_>> {
        if object.kind != "Deployment" {
            return None;
        }
        let is = |workload: Workload<'_>| {
            workload.name == object.name && workload.namespace == object.namespace
        };
        if is(self.gateway) {
            return Some(Role::Gateway);
        }
        self.runs.iter().find(|run| is(run.workload)).map(Role::Agent)
    }

    /// The table's workloads.
    pub(crate) fn ours(&self) -> impl Iterator<Item = (&Object<'a>, Role<'_>)> {
        self.workloads().filter_map(|object| Some((object, self.role(object)?)))
    }

    /// The agents' workloads.
    pub(crate) fn agents(&self) -> impl Iterator<Item = (&Object<'a>, &Run<'_>)> {
        self.ours().filter_map(|(object, role)| match role {
            Role::Agent(run) => Some((object, run)),
            Role::Gateway => None,
        })
    }

    /// The labels that the gateway's pods are given.
    pub(crate) fn gateway_labels(&self) -> Vec<(String, String)> {
        let labels = |object: &Object<'_>| {
            let labels = object.pod_labels().iter();
            labels.map(|(key, value)| (key.to_string(), value.to_string())).collect()
        };
        let gateway = self.ours().find(|(_, role)| matches!(role, Role::Gateway));
        gateway.map_or_else(|| vec![("app".into(), GATEWAY.into())], |(object, _)| labels(object))
    }

    /// The ports of a workload's containers, also those that a patch gives them.
    pub(crate) fn ports<'s>(&'s self, workload: &'s Object<'a>) -> impl Iterator<Item = &'s Node> {
        let its = |patch: &&Patch| patch.is_of(&workload.kind, &workload.name);
        workload.ports().chain(self.patches.iter().filter(its).flat_map(Patch::ports))
    }

    /// The autoscalers of a workload.
    pub(crate) fn autoscalers<'s>(
        &'s self,
        workload: &'s Object<'a>,
    ) -> impl Iterator<Item = &'s Object<'a>> {
        self.kind("HorizontalPodAutoscaler").filter(move |hpa| hpa.scales(workload))
    }
}

impl<'a> Object<'a> {
    /// `Deployment coding-agent`.
    pub(crate) fn title(&self) -> String {
        format!("{} {}", self.kind, self.name)
    }

    /// Something that is wrong at `at`.
    pub(crate) fn fault(
        &'a self,
        at: &'a Node,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Fault<'a> {
        Fault { object: self, at, message: message.into(), hint: hint.into() }
    }

    /// Something that is wrong at a path, whether it is written or missing.
    pub(crate) fn fault_at(
        &'a self,
        path: &str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Fault<'a> {
        self.fault(self.root.nearest(path), message, hint)
    }

    /// Whether its annotation says that this is deliberate.
    pub(crate) fn allows(&self, id: &str) -> bool {
        self.allowed().any(|(allowed, _)| allowed == id)
    }

    /// What its annotation allows, and where that stands.
    pub(crate) fn allowed(&self) -> impl Iterator<Item = (&str, &Node)> {
        let annotation = self.root.at("metadata/annotations").and_then(|all| all.key(ALLOW));
        annotation.into_iter().flat_map(|node| {
            let ids = node.text().unwrap_or_default().split(',').map(str::trim);
            ids.filter(|id| !id.is_empty()).map(move |id| (id, node))
        })
    }

    /// The template of its pods, or itself if it is one.
    fn template(&self) -> Option<&Node> {
        template(&self.kind, &self.root)
    }

    /// The specification of its pods.
    pub(crate) fn pod(&self) -> Option<&Node> {
        self.template()?.key("spec")
    }

    pub(crate) fn pod_labels(&self) -> &[(Node, Node)] {
        self.template().and_then(|pod| pod.at("metadata/labels")).map_or(&[], Node::entries)
    }

    /// Its containers, without those that only prepare.
    pub(crate) fn containers(&self) -> &[Node] {
        self.pod().map_or(&[], |pod| pod.list_at("containers"))
    }

    /// Its containers, also those that only prepare.
    pub(crate) fn all_containers(&self) -> impl Iterator<Item = &Node> {
        let first = self.pod().map_or(&[][..], |pod| pod.list_at("initContainers"));
        first.iter().chain(self.containers())
    }

    /// The ports of its containers.
    pub(crate) fn ports(&self) -> impl Iterator<Item = &Node> {
        self.containers().iter().flat_map(|container| container.list_at("ports"))
    }

    /// Whether its label selector at `path` selects a workload's pods.
    pub(crate) fn chooses(&self, path: &str, workload: &Object<'_>) -> bool {
        let selector = self.root.at(path);
        self.namespace == workload.namespace
            && selector.is_some_and(|selector| selects(selector, workload.pod_labels()))
    }

    /// Whether this autoscaler is that of a workload.
    pub(crate) fn scales(&self, workload: &Object<'_>) -> bool {
        let target = |key: &str| self.root.text_at(&format!("spec/scaleTargetRef/{key}"));
        self.namespace == workload.namespace
            && target("name") == Some(&workload.name)
            && target("kind").unwrap_or("Deployment") == workload.kind
    }

    /// Whether the two are surely applied together: they stand in one set.
    pub(crate) fn beside(&self, other: &Object<'_>) -> bool {
        set(self.file) == set(other.file)
    }
}

/// Which set of a Kustomize folder a file is in: `base`, `overlays/local`; nothing elsewhere.
fn set(path: &str) -> &str {
    let end = |n: usize| path.match_indices('/').nth(n).map_or(0, |(at, _)| at);
    match path.split('/').next() {
        Some("base") => "base",
        Some("components" | "overlays") => &path[..end(1)],
        _ => "",
    }
}

/// Whether labels fulfil a label selector. An empty one selects everything.
pub(crate) fn selects(selector: &Node, labels: &[(Node, Node)]) -> bool {
    let wanted = selector.key("matchLabels").map_or(&[][..], Node::entries);
    let value = |key: &str| labels.iter().find(|(name, _)| name.text() == Some(key));
    let holds = |expression: &Node| {
        let found = expression.text_at("key").and_then(value).map(|(_, value)| value.to_string());
        let listed = found.as_ref().is_some_and(|found| {
            expression.list_at("values").iter().any(|value| value.to_string() == *found)
        });
        match expression.text_at("operator") {
            Some("In") => listed,
            Some("NotIn") => !listed,
            Some("Exists") => found.is_some(),
            Some("DoesNotExist") => found.is_none(),
            _ => false,
        }
    };
    wanted.iter().all(|(key, value)| has(labels, key, value))
        && selector.list_at("matchExpressions").iter().all(holds)
}

fn has(labels: &[(Node, Node)], key: &Node, value: &Node) -> bool {
    labels.iter().any(|(name, label)| name.text() == key.text() && same(label, value))
}

/// Whether two scalars are written alike. (A number that somebody forgot to quote is no label.)
fn same(one: &Node, other: &Node) -> bool {
    match (one.text(), other.text()) {
        (Some(one), Some(other)) => one == other,
        _ => one.to_string() == other.to_string(),
    }
}

fn template<'n>(kind: &str, root: &'n Node) -> Option<&'n Node> {
    match kind {
        "Pod" => Some(root),
        "Deployment"
        | "StatefulSet"
        | "DaemonSet"
        | "ReplicaSet"
        | "Job"
        | "ReplicationController" => root.at("spec/template"),
        "CronJob" => root.at("spec/jobTemplate/spec/template"),
        _ => None,
    }
}

/// Adds a document if it is a whole object, or those that it lists; gives it back otherwise.
fn collect<'a>(
    root: Node,
    file: &'a str,
    table: &Table,
    objects: &mut Vec<Object<'a>>,
) -> Option<Node> {
    let text = |path: &str| root.text_at(path).map(str::to_owned);
    let (Some(api), Some(kind)) = (text("apiVersion"), text("kind")) else { return Some(root) };
    if kind == "List" {
        for item in root.list_at("items") {
            collect(item.clone(), file, table, objects);
        }
        return None;
    }
    let Some(name) = text("metadata/name") else { return Some(root) };
    let partial = root.key("$patch").is_some() || !makes_whole_pods(&kind, &root);
    if api.starts_with("kustomize.config.k8s.io/") || partial {
        return Some(root);
    }
    let namespace = text("metadata/namespace").unwrap_or(table.kubernetes.namespace.clone());
    objects.push(Object { file, root, api, kind, name, namespace });
    None
}

/// Whether what makes pods says which: a patch of one names only what it changes.
fn makes_whole_pods(kind: &str, root: &Node) -> bool {
    const MAKERS: [&str; 8] = [
        "Pod",
        "Deployment",
        "StatefulSet",
        "DaemonSet",
        "ReplicaSet",
        "Job",
        "ReplicationController",
        "CronJob",
    ];
    if !MAKERS.contains(&kind) {
        return true;
    }
    let pod = template(kind, root).and_then(|template| template.key("spec"));
    let containers = pod.map_or(&[][..], |pod| pod.list_at("containers"));
    !containers.is_empty() && containers.iter().all(|one| one.key("image").is_some())
}
