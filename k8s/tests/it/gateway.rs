//! What the gateway becomes.

use serde_json::json;

use crate::{here, render};

const SMALLEST: &str = "[agents.a]\nservice = \"a\"\n";

#[test]
fn the_config_map_holds_the_tables_own_bytes_under_a_stable_name() {
    let own = std::fs::read_to_string(here("../config/switchyard.toml")).unwrap();
    let odd = [
        own,
        format!("{SMALLEST}\n\n\n"),
        SMALLEST.trim_end().to_owned(),
        SMALLEST.replace('\n', "\r\n"),
        format!(
            "\n \n\t# tabs\t\n{SMALLEST}# ends in spaces   \n#\u{a0}\u{2028}\u{1f600} --- \n# ---\n"
        ),
        format!("  # begins indented\n{SMALLEST}"),
    ];
    for text in odd {
        let map = render(&text).get("ConfigMap", "switchyard");
        assert_eq!(map["data"]["switchyard.toml"], text, "{text:?}");
    }
}

#[test]
fn the_gateway_serves_the_mounted_table_on_all_addresses() {
    let rendered = render(SMALLEST);
    let command = rendered.container("switchyard")["command"].clone();
    assert_eq!(
        command,
        json!([
            "switchyard",
            "serve",
            "--config",
            "/etc/switchyard/switchyard.toml",
            "--listen",
            "0.0.0.0:8080",
            "--admin",
            "0.0.0.0:9090"
        ])
    );
    let pod = rendered.pod("switchyard");
    assert_eq!(pod["volumes"][1]["configMap"]["name"], "switchyard");
    let mount = &pod["containers"][0]["volumeMounts"][1];
    assert_eq!(mount["mountPath"], "/etc/switchyard");
    assert_eq!(mount.get("subPath"), None, "a subPath never sees an edit");
}

#[test]
fn the_gateways_grace_is_its_own_pause_its_drain_and_a_margin() {
    let pod = render(&format!("{SMALLEST}timeout = \"10m\"\n")).pod("switchyard");
    assert_eq!(pod["terminationGracePeriodSeconds"], 5 + 630 + 10);
    assert_eq!(pod["containers"][0].get("lifecycle"), None, "drain_delay is the pause");

    let text = format!("[gateway]\ndrain_delay = \"1500ms\"\ndrain_timeout = \"20s\"\n{SMALLEST}");
    let pod = render(&text).pod("switchyard");
    assert_eq!(pod["terminationGracePeriodSeconds"], 2 + 20 + 10, "whole seconds, rounded up");
}

#[test]
fn operators_and_peers_have_services_of_their_own() {
    let rendered = render(SMALLEST);
    let clients = rendered.get("Service", "switchyard")["spec"].clone();
    assert_eq!(clients["type"], "ClusterIP");
    assert_eq!(clients["ports"][0]["targetPort"], "http");
    assert_eq!(clients["ports"].as_array().unwrap().len(), 1, "the admin port is not for clients");
    let admin = rendered.get("Service", "switchyard-admin")["spec"].clone();
    assert_eq!(admin["ports"][0]["targetPort"], "admin");
    let peers = rendered.get("Service", "switchyard-peers")["spec"].clone();
    assert_eq!(peers["clusterIP"], "None");
    assert_eq!(peers["publishNotReadyAddresses"], true, "one that drains still counts");
}

#[test]
fn the_gateway_may_read_slices_where_its_services_are_one_config_map_and_one_secret() {
    let rendered =
        render("[agents.a]\nservice = \"a\"\n[agents.b]\nversions = [{ service = \"b.far\" }]\n");
    let roles: Vec<_> =
        rendered.objects().into_iter().filter(|object| object["kind"] == "Role").collect();
    let here: Vec<_> = roles.iter().map(|role| role["metadata"]["namespace"].clone()).collect();
    assert_eq!(here, ["ai-agents", "far"]);
    let slices = json!({
        "apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"],
        "verbs": ["get", "list", "watch"],
    });
    assert_eq!(roles[1]["rules"], json!([slices]), "elsewhere nothing else");
    let map = &roles[0]["rules"][1];
    assert_eq!(map["resources"], json!(["configmaps"]));
    assert_eq!(map["resourceNames"], json!(["switchyard"]));
    let make = json!({ "apiGroups": [""], "resources": ["secrets"], "verbs": ["create"] });
    let key = json!({
        "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["switchyard-peers"],
        "verbs": ["get"],
    });
    assert_eq!((&roles[0]["rules"][2], &roles[0]["rules"][3]), (&make, &key));
    let events = &roles[0]["rules"][4];
    assert_eq!(events["resources"], json!(["events"]));
    let bindings = rendered.objects().into_iter().filter(|object| object["kind"] == "RoleBinding");
    for binding in bindings {
        assert_eq!(binding["subjects"][0]["namespace"], "ai-agents");
    }
    let cluster = |object: &serde_json::Value| {
        object["kind"].as_str().is_some_and(|kind| kind.starts_with("Cluster"))
    };
    assert!(!rendered.objects().iter().any(cluster), "nothing cluster-wide");
}

#[test]
fn scaling_is_permitted_where_the_table_needs_it_and_by_name() {
    let agent = |name: &str, service: &str, scale: &str| {
        format!(
            "[agents.{name}]\nservice = \"{service}\"\n\
             [agents.{name}.deployment]\ncommand = [\"a\"]\n{scale}"
        )
    };
    let idle = |name: &str| format!("[agents.{name}.scale]\nmin = 0\nidle = \"1m\"\n");
    let text = [
        agent("stays", "stays", ""),
        agent("parks", "parks", &idle("parks")),
        agent("far", "away.far", &idle("far")),
        agent("next", "next", &idle("next")),
        "[agents.split]\nversions = [{ service = \"next\" }]\n".to_owned(),
    ];
    let rendered = render(&text.concat());
    let roles = rendered.objects().into_iter().filter(|object| object["kind"] == "Role");
    let rules: Vec<Vec<_>> = roles.map(|role| role["rules"].as_array().unwrap().clone()).collect();
    let of = |n: usize, resource: &str| -> Vec<_> {
        let is_its = |rule: &&serde_json::Value| rule["resources"] == json!([resource]);
        rules[n].iter().filter(is_its).cloned().collect()
    };
    let scale = |names: serde_json::Value| {
        json!([{
            "apiGroups": ["apps"], "resources": ["deployments/scale"],
            "resourceNames": names, "verbs": ["get", "patch"],
        }])
    };
    assert_eq!(json!(of(0, "deployments/scale")), scale(json!(["parks"])), "not a version");
    assert_eq!(json!(of(1, "deployments/scale")), scale(json!(["away"])));
    for n in 0..2 {
        assert_eq!(of(n, "pods")[0]["verbs"], json!(["patch"]));
    }
    let leases = of(0, "leases");
    assert_eq!((&leases[0]["verbs"], leases[0].get("resourceNames")), (&json!(["create"]), None));
    assert_eq!(leases[1]["resourceNames"], json!(["switchyard"]));
    assert!(of(1, "leases").is_empty(), "one Lease, where the gateway is");

    let rendered = render(SMALLEST);
    let role = rendered.get("Role", "switchyard").to_string();
    for nothing in ["leases", "pods", "deployments"] {
        assert!(!role.contains(nothing), "{nothing}: {role}");
    }
}

#[test]
fn a_gateway_without_a_size_in_the_table_has_one_all_the_same() {
    let resources = render(SMALLEST).container("switchyard")["resources"].clone();
    assert_eq!(resources["requests"], json!({ "cpu": "500m", "memory": "128Mi" }));
    assert_eq!(resources["limits"]["memory"], "512Mi");
    let sized = format!("[gateway.deployment]\nlimits = {{ memory = \"1.5GiB\" }}\n{SMALLEST}");
    let resources = render(&sized).container("switchyard")["resources"].clone();
    assert_eq!(resources, json!({ "limits": { "memory": "1536Mi" } }));
}

#[test]
fn the_gateways_range_is_the_tables() {
    assert_eq!(render(SMALLEST).find("HorizontalPodAutoscaler", "switchyard-hpa"), None);
    let text = format!("[gateway.scale]\nmin = 2\nmax = 5\n{SMALLEST}");
    let hpa = render(&text).get("HorizontalPodAutoscaler", "switchyard-hpa");
    assert_eq!((&hpa["spec"]["minReplicas"], &hpa["spec"]["maxReplicas"]), (&json!(2), &json!(5)));
}

#[test]
fn the_same_table_gives_the_same_bytes_and_the_namespace_comes_first() {
    let (once, again) = (render(SMALLEST), render(SMALLEST));
    assert_eq!(once.files, again.files);
    assert_eq!(once.objects()[0]["kind"], "Namespace");
    let base = once.files.iter().filter(|file| file.path.starts_with("base/"));
    let names: Vec<_> =
        base.map(|file| &file.path).filter(|path| path.ends_with(".yaml")).collect();
    assert!(names.is_sorted(), "kubectl takes a folder's files by name: {names:?}");
}
