//! EndpointSlices (`discovery.k8s.io/v1`): what of them counts, and which addresses they come to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};

use super::watch::Kept;
use crate::table::Replicas;

/// The label that names a slice's Service.
pub(super) const SERVICE: &str = "kubernetes.io/service-name";
/// The port that agents are called on, where there are several; and that of gateways.
const PORT_NAME: &str = "http";
const PEERS_PORT_NAME: &str = "admin";

/// What counts of one slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slice {
    pub(super) service: String,
    port: Option<u16>,
    pods: Vec<Pod>,
}

/// One endpoint of a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pod {
    ip: IpAddr,
    uid: Option<String>,
    name: Option<String>,
    conditions: Conditions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Conditions {
    ready: bool,
    serving: bool,
    terminating: bool,
}

impl Kept for Slice {
    type Object = EndpointSlice;

    /// `None`: it is no Service's.
    fn of(slice: &EndpointSlice) -> Option<Self> {
        let service = slice.metadata.labels.as_ref()?.get(SERVICE)?.clone();
        let name = if service == k8s::PEERS_SERVICE { PEERS_PORT_NAME } else { PORT_NAME };
        let port = port(slice.ports.as_deref().unwrap_or_default(), name);
        let pods = slice.endpoints.iter().filter_map(Pod::of).collect();
        Some(Self { service, port, pods })
    }
}

impl Pod {
    /// `None`: its address is no IP address, as in slices of names.
    fn of(endpoint: &Endpoint) -> Option<Self> {
        let ip = endpoint.addresses.first()?.parse().ok()?;
        let target = endpoint.target_ref.as_ref();
        let uid = target.and_then(|target| target.uid.clone());
        let pod = target.filter(|target| target.kind.as_deref() == Some("Pod"));
        let name = pod.and_then(|pod| pod.name.clone());
        let given = endpoint.conditions.clone().unwrap_or_default();
        let conditions = Conditions {
            ready: given.ready.unwrap_or(true),
            serving: given.serving.unwrap_or(true),
            terminating: given.terminating.unwrap_or(false),
        };
        Some(Self { ip, uid, name, conditions })
    }
}

impl Conditions {
    /// In the first line. (With `publishNotReadyAddresses` `ready` is no promise.)
    fn is_ready(self) -> bool {
        self.ready && self.serving && !self.terminating
    }

    /// Where nobody is ready.
    fn is_last_resort(self) -> bool {
        self.serving && self.terminating
    }

    /// Of one pod in two slices, for a moment: nobody comes back from terminating.
    fn merged(self, other: Self) -> Self {
        Self {
            ready: self.ready || other.ready,
            serving: self.serving || other.serving,
            terminating: self.terminating || other.terminating,
        }
    }
}

/// The port of this name, else the only one that speaks TCP.
fn port(ports: &[EndpointPort], name: &str) -> Option<u16> {
    let tcp = |port: &&EndpointPort| port.protocol.as_deref().is_none_or(|name| name == "TCP");
    let tcp: Vec<_> = ports.iter().filter(tcp).collect();
    let named = tcp.iter().find(|port| port.name.as_deref() == Some(name));
    let port = match (named, tcp.as_slice()) {
        (Some(named), _) => named,
        (None, [only]) => only,
        _ => return None,
    };
    u16::try_from(port.port?).ok().filter(|port| *port != 0)
}

/// Where requests to one Service may go: pods that are ready, or, if there is none, those that
/// terminate and still serve (kube-proxy's rule, KEP-1669). Not so for a Service that `wakes`:
/// there who finds nobody ready waits for the next pod, and the one that goes may be the last, on
/// its way to zero. Of a pod with addresses of both families, the IPv4 one: two would be two
/// replicas.
pub(super) fn replicas<'a>(slices: impl Iterator<Item = &'a Slice>, wakes: bool) -> Replicas {
    let pods = pods(slices);
    let ready = one_address_each(&pods, Conditions::is_ready);
    if ready.is_empty() && !wakes {
        return Replicas::leaving(one_address_each(&pods, Conditions::is_last_resort));
    }
    Replicas::followed(ready)
}

/// The pods behind one Service's addresses, as far as they are pods.
pub(super) fn names<'a>(
    slices: impl Iterator<Item = &'a Slice>,
) -> impl Iterator<Item = (config::Endpoint, &'a str)> {
    slices.filter_map(|slice| Some((slice.port?, &slice.pods))).flat_map(|(port, pods)| {
        let named = pods.iter().filter_map(|pod| Some((pod.ip.to_string(), pod.name.as_deref()?)));
        named.map(move |(host, name)| (config::Endpoint { host, port }, name))
    })
}

/// Where the pods of one Service are, whatever their state.
pub(super) fn all<'a>(slices: impl Iterator<Item = &'a Slice>) -> Vec<config::Endpoint> {
    one_address_each(&pods(slices), |_| true)
}

/// By address, port and uid.
type Pods<'a> = BTreeMap<(IpAddr, u16, Option<&'a str>), Conditions>;

fn pods<'a>(slices: impl Iterator<Item = &'a Slice>) -> Pods<'a> {
    let mut pods = Pods::new();
    for slice in slices {
        let Some(port) = slice.port else { continue };
        for pod in &slice.pods {
            let known = pods.entry((pod.ip, port, pod.uid.as_deref())).or_insert(pod.conditions);
            *known = known.merged(pod.conditions);
        }
    }
    pods
}

fn one_address_each(pods: &Pods<'_>, fits: fn(Conditions) -> bool) -> Vec<config::Endpoint> {
    let (mut v4, mut found) = (BTreeSet::new(), BTreeSet::new());
    // IPv4 addresses come first.
    for ((ip, port, uid), _) in pods.iter().filter(|(_, conditions)| fits(**conditions)) {
        match (ip, uid) {
            (IpAddr::V4(_), Some(uid)) => drop(v4.insert(*uid)),
            (IpAddr::V6(_), Some(uid)) if v4.contains(uid) => continue,
            _ => {}
        }
        found.insert((*ip, *port));
    }
    let endpoint = |(ip, port): (IpAddr, u16)| config::Endpoint { host: ip.to_string(), port };
    found.into_iter().map(endpoint).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const READY: (bool, bool, bool) = (true, true, false);
    const STARTING: (bool, bool, bool) = (false, false, false);
    const LEAVING: (bool, bool, bool) = (false, true, true);
    const GONE: (bool, bool, bool) = (false, false, true);

    fn pod(ip: &str, uid: &str, (ready, serving, terminating): (bool, bool, bool)) -> Value {
        json!({
            "addresses": [ip],
            "conditions": { "ready": ready, "serving": serving, "terminating": terminating },
            "targetRef": { "kind": "Pod", "uid": uid },
        })
    }

    fn http() -> Value {
        json!([{ "name": "http", "port": 8000, "protocol": "TCP" }])
    }

    fn check(slices: &[(Value, Value)], expected: &[&str]) {
        let slices: Vec<Slice> = slices
            .iter()
            .map(|(ports, endpoints)| {
                let slice = json!({
                    "metadata": { "name": "s", "labels": { SERVICE: "qa" } },
                    "addressType": "IPv4", "ports": ports, "endpoints": endpoints,
                });
                let slice = Slice::of(&serde_json::from_value(slice).unwrap()).unwrap();
                assert_eq!(slice.service, "qa");
                slice
            })
            .collect();
        let found = replicas(slices.iter(), false).addresses;
        assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn the_ready_are_picked_and_others_are_not() {
        let pods = json!([
            pod("10.0.0.1", "a", READY),
            pod("10.0.0.2", "b", STARTING),
            pod("10.0.0.3", "c", LEAVING),
            pod("10.0.0.4", "d", GONE),
        ]);
        check(&[(http(), pods)], &["10.0.0.1:8000"]);
    }

    #[test]
    fn with_nobody_ready_those_that_leave_and_serve_are() {
        let pods = json!([
            pod("10.0.0.2", "b", STARTING),
            pod("10.0.0.3", "c", LEAVING),
            pod("10.0.0.4", "d", GONE),
        ]);
        check(&[(http(), pods)], &["10.0.0.3:8000"]);
        check(&[(http(), json!([pod("10.0.0.2", "b", STARTING)]))], &[]);
    }

    #[test]
    fn where_requests_wait_for_the_next_pod_those_that_leave_are_not() {
        let slice = |pods: Value| {
            let slice = json!({
                "metadata": { "name": "s", "labels": { SERVICE: "qa" } },
                "addressType": "IPv4", "ports": http(), "endpoints": pods,
            });
            Slice::of(&serde_json::from_value(slice).unwrap()).unwrap()
        };
        let leaving = slice(json!([pod("10.0.0.3", "c", LEAVING)]));
        let at = |host: &str| vec![config::Endpoint { host: host.into(), port: 8000 }];
        let last_resort = Replicas::leaving(at("10.0.0.3"));
        assert_eq!(replicas([&leaving].into_iter(), false), last_resort);
        assert_eq!(replicas([&leaving].into_iter(), true), Replicas::followed(vec![]));
        let ready = slice(json!([pod("10.0.0.1", "a", READY)]));
        let only = Replicas::followed(at("10.0.0.1"));
        assert_eq!(replicas([&ready, &leaving].into_iter(), true), only);
        assert_eq!(replicas([&ready, &leaving].into_iter(), false), only);
    }

    #[test]
    fn what_is_not_said_is_ready() {
        let bare = json!([{ "addresses": ["10.0.0.1"] }]);
        check(&[(http(), bare)], &["10.0.0.1:8000"]);
        let leaving = json!([{ "addresses": ["10.0.0.1"], "conditions": { "ready": false, "terminating": true } }]);
        check(&[(http(), leaving)], &["10.0.0.1:8000"]);
    }

    #[test]
    fn published_though_not_ready_is_not_picked() {
        check(&[(http(), json!([pod("10.0.0.1", "a", (true, false, false))]))], &[]);
        let both = json!([pod("10.0.0.1", "a", (true, true, true)), pod("10.0.0.2", "b", READY)]);
        check(&[(http(), both)], &["10.0.0.2:8000"]);
    }

    #[test]
    fn several_slices_are_one_service_and_each_address_is_there_once() {
        let one = json!([pod("10.0.0.2", "b", READY), pod("10.0.0.1", "a", READY)]);
        let other = json!([pod("10.0.0.3", "c", READY), pod("10.0.0.1", "a", READY)]);
        let expected = ["10.0.0.1:8000", "10.0.0.2:8000", "10.0.0.3:8000"];
        check(&[(http(), one), (http(), other)], &expected);
    }

    #[test]
    fn of_one_pod_told_twice_the_end_counts_and_a_new_pod_may_have_its_address() {
        let stale = json!([pod("10.0.0.1", "a", READY), pod("10.0.0.2", "b", READY)]);
        let leaving = json!([pod("10.0.0.1", "a", LEAVING)]);
        check(&[(http(), stale), (http(), leaving.clone())], &["10.0.0.2:8000"]);
        let new = json!([pod("10.0.0.1", "new", READY)]);
        check(&[(http(), leaving), (http(), new)], &["10.0.0.1:8000"]);
    }

    #[test]
    fn the_port_is_the_one_called_http_or_the_only_one() {
        let pods = || json!([pod("10.0.0.1", "a", READY)]);
        let port = |name: &str, port: u16| json!({ "name": name, "port": port });
        check(&[(json!([port("metrics", 1), port("http", 2)]), pods())], &["10.0.0.1:2"]);
        check(&[(json!([port("", 3)]), pods())], &["10.0.0.1:3"]);
        check(&[(json!([port("a", 1), port("b", 2)]), pods())], &[]);
        let udp = json!({ "name": "dns", "port": 53, "protocol": "UDP" });
        check(&[(json!([udp, port("web", 4)]), pods())], &["10.0.0.1:4"]);
        check(&[(json!([]), pods()), (json!([{ "name": "http" }]), pods())], &[]);
    }

    #[test]
    fn all_are_all_whatever_their_state() {
        let pods = json!([
            pod("10.0.0.1", "a", READY),
            pod("10.0.0.2", "b", STARTING),
            pod("10.0.0.3", "c", GONE),
        ]);
        let ports = json!([{ "name": "http", "port": 1 }, { "name": "admin", "port": 9090 }]);
        let slice = json!({
            "metadata": { "name": "s", "labels": { SERVICE: k8s::PEERS_SERVICE } },
            "addressType": "IPv4", "ports": ports, "endpoints": pods,
        });
        let slice = Slice::of(&serde_json::from_value(slice).unwrap()).unwrap();
        let found: Vec<_> = all([&slice].into_iter()).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["10.0.0.1:9090", "10.0.0.2:9090", "10.0.0.3:9090"]);
    }

    #[test]
    fn a_pod_of_two_families_is_one_replica() {
        let v4 = json!([pod("10.0.0.1", "a", READY)]);
        let v6 = json!([pod("fd00::1", "a", READY), pod("fd00::2", "b", READY)]);
        check(&[(http(), v6), (http(), v4)], &["10.0.0.1:8000", "[fd00::2]:8000"]);
        check(&[(http(), json!([{ "addresses": ["agent.example.com"] }]))], &[]);
    }
}
