//! Giving running pods the sizes that were found, without restarting them: the `resize` subresource of
//! Kubernetes 1.33 and later.

use config::units::{show_cpu, show_size};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Map, Value, json};

use super::meter::pods::Place;
use super::verdict::Sizes;

/// The first minor version of Kubernetes 1 whose pods can be resized without a feature gate.
const MINOR: u32 = 33;
/// Who we are to those who look at what was changed.
const MANAGER: &str = "switchyard";

/// Resizes every running pod; gives a line for each. The error is for people, and says what was done before.
pub(super) async fn resize(place: &Place, sizes: &Sizes) -> Result<String, String> {
    let question = async |client: kube::Client| client.apiserver_version().await;
    let version = place.asker().ask(question).await.map_err(|failed| failed.to_string())?;
    if !is_able(&version.major, &version.minor) {
        let (major, minor) = (&version.major, &version.minor);
        return Err(format!(
            "pods can be resized from Kubernetes 1.{MINOR} on, this is {major}.{minor}: --write and a roll-out do it everywhere"
        ));
    }
    let mut done = String::new();
    for pod in place.list().await? {
        let patch = Patch::Strategic(patch(&pod.container, sizes));
        let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
        let question = async |client| {
            let api = Api::<Pod>::namespaced(client, &place.namespace);
            api.patch_subresource("resize", &pod.name, &params, &patch).await
        };
        let asked = place.asker().ask(question).await;
        asked.map_err(|failed| format!("{done}pod {} was not resized: {failed}", pod.name))?;
        done.push_str(&format!("pod {} is asked to resize\n", pod.name));
    }
    Ok(done)
}

/// Cloud providers' minor versions end in letters or a plus.
fn is_able(major: &str, minor: &str) -> bool {
    let digits: String = minor.chars().take_while(char::is_ascii_digit).collect();
    major == "1" && digits.parse().is_ok_and(|minor: u32| minor >= MINOR)
}

fn patch(container: &str, sizes: &Sizes) -> Value {
    let resources = |cpu: Option<u64>, memory: Option<u64>| -> Map<String, Value> {
        let cpu = cpu.map(|millis| ("cpu".to_owned(), show_cpu(millis).into()));
        let memory = memory.map(|bytes| ("memory".to_owned(), kubernetes(bytes).into()));
        cpu.into_iter().chain(memory).collect()
    };
    let requests = resources(sizes.request_cpu_millis, sizes.request_memory);
    let limits = resources(sizes.limit_cpu_millis, sizes.limit_memory);
    let resources = json!({ "requests": requests, "limits": limits });
    json!({ "spec": { "containers": [{ "name": container, "resources": resources }] } })
}

/// `64MiB` is `64Mi` to Kubernetes.
fn kubernetes(bytes: u64) -> String {
    show_size(bytes).replace("iB", "i")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_names_the_container_and_only_what_is_known() {
        let sizes = Sizes {
            request_memory: Some(96 << 20),
            limit_memory: Some(160 << 20),
            limit_cpu_millis: Some(1500),
            ..Sizes::default()
        };
        let expected = json!({ "spec": { "containers": [{ "name": "agent", "resources": {
            "requests": { "memory": "96Mi" }, "limits": { "cpu": "1500m", "memory": "160Mi" },
        } }] } });
        assert_eq!(patch("agent", &sizes), expected);
    }

    #[test]
    fn versions_are_told_apart() {
        for (version, able) in
            [(("1", "33"), true), (("1", "34+"), true), (("1", "32"), false), (("2", "0"), false)]
        {
            assert_eq!(is_able(version.0, version.1), able, "{version:?}");
        }
    }
}
