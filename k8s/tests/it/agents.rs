//! What an agent type becomes.

use serde_json::{Value, json};

use crate::{render, table};

/// An agent with these lines of its own and these of its deployment.
fn agent(own: &str, deployment: &str) -> crate::Rendered {
    render(&format!(
        "[agents.coding]\nservice = \"coding-agent\"\n{own}\n\
         [agents.coding.deployment]\ncommand = [\"agent\"]\n{deployment}\n"
    ))
}

#[test]
fn each_agent_has_its_own_of_everything_under_its_services_name() {
    let rendered = agent("", "");
    let kinds = ["ServiceAccount", "NetworkPolicy", "Service", "Deployment", "PodDisruptionBudget"];
    for kind in kinds {
        let object = rendered.get(kind, "coding-agent");
        assert_eq!(object["metadata"]["labels"]["app"], "coding-agent", "{kind}");
        assert_eq!(object["metadata"]["namespace"], "ai-agents", "{kind}");
    }
    let service = rendered.get("Service", "coding-agent");
    let port = json!({ "name": "http", "port": 80, "targetPort": "http", "protocol": "TCP" });
    assert_eq!(service["spec"]["ports"], json!([port]));
    assert_eq!(rendered.container("coding-agent")["ports"][0]["containerPort"], 8000);
}

#[test]
fn without_a_range_there_is_no_autoscaler_and_nobody_says_how_many() {
    for scale in [
        "",
        "scale = { min = 3 }",
        "scale = { min = 2, max = 2 }",
        "scale = { min = 0, idle = \"5m\" }",
    ] {
        let rendered = agent(scale, "");
        assert_eq!(rendered.find("HorizontalPodAutoscaler", "coding-agent-hpa"), None, "{scale}");
        assert_eq!(rendered.get("Deployment", "coding-agent")["spec"].get("replicas"), None);
    }
}

#[test]
fn a_range_is_an_autoscaler_with_the_tables_pace_and_still_nobody_says_how_many() {
    let scale = "scale = { min = 2, max = 8, cpu = 70, up = { window = \"15s\", pods = 3, period = \"45s\" }, down = { window = \"4m\" } }";
    let rendered = agent(scale, "requests = { cpu = \"1\" }");
    let spec = rendered.get("HorizontalPodAutoscaler", "coding-agent-hpa")["spec"].clone();
    assert_eq!((&spec["minReplicas"], &spec["maxReplicas"]), (&json!(2), &json!(8)));
    assert_eq!(spec["metrics"].as_array().unwrap().len(), 1, "one metric, or it may freeze");
    assert_eq!(spec["metrics"][0]["resource"]["target"]["averageUtilization"], 70);
    let up = &spec["behavior"]["scaleUp"];
    assert_eq!(up["stabilizationWindowSeconds"], 15);
    assert_eq!(up["policies"], json!([{ "type": "Pods", "value": 3, "periodSeconds": 45 }]));
    assert_eq!(spec["behavior"]["scaleDown"]["stabilizationWindowSeconds"], 240);
    assert_eq!(rendered.get("Deployment", "coding-agent")["spec"].get("replicas"), None);
}

#[test]
fn an_agent_that_parks_at_zero_scales_from_one_on() {
    let rendered =
        agent("scale = { min = 0, max = 4, idle = \"5m\" }", "requests = { cpu = \"1\" }");
    let hpa = rendered.get("HorizontalPodAutoscaler", "coding-agent-hpa");
    assert_eq!(hpa["spec"]["minReplicas"], 1, "an autoscaler from zero needs a feature gate");
}

#[test]
fn a_pods_grace_holds_its_pause_its_longest_request_and_a_margin() {
    let rendered = agent("timeout = \"2m\"", "");
    let pod = rendered.pod("coding-agent");
    assert_eq!(pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"], 5);
    assert_eq!(rendered.env("coding-agent", "AGENT_DRAIN_TIMEOUT"), Some(json!("150s")));
    assert_eq!(pod["terminationGracePeriodSeconds"], 5 + 150 + 10);
}

#[test]
fn a_shared_replica_lives_as_long_as_the_slowest_type_that_it_serves() {
    let shared = "max_in_flight = 4\n[agents.slow]\nshares = \"coding\"\ntimeout = \"900s\"\nmax_in_flight = 2\n";
    let rendered = agent(shared, "");
    assert_eq!(rendered.pod("coding-agent")["terminationGracePeriodSeconds"], 5 + 930 + 10);
    assert_eq!(rendered.env("coding-agent", "AGENT_MAX_IN_FLIGHT"), Some(json!("6")));
    let deployments =
        rendered.objects().into_iter().filter(|object| object["kind"] == "Deployment");
    assert_eq!(deployments.count(), 2, "the gateway's and one");
}

#[test]
fn what_only_has_addresses_or_versions_gets_nothing_of_its_own() {
    let rendered = render(
        "[agents.listed]\nendpoints = [\"http://10.0.0.1:8000\"]\n\
         [agents.split]\nversions = [{ service = \"one.elsewhere\" }]\n",
    );
    let deployments: Vec<_> =
        rendered.objects().into_iter().filter(|object| object["kind"] == "Deployment").collect();
    assert_eq!(deployments.len(), 1);
    assert_eq!(deployments[0]["metadata"]["name"], "switchyard");
}

#[test]
fn secrets_are_named_and_never_there() {
    let rendered = agent(
        "",
        "env = { AGENT_MODEL = \"m\" }\nsecrets = { OPENAI_API_KEY = \"agent-secrets/openai-api-key\" }",
    );
    let key = json!({ "secretKeyRef": { "name": "agent-secrets", "key": "openai-api-key" } });
    assert_eq!(rendered.env("coding-agent", "OPENAI_API_KEY"), Some(key));
    assert_eq!(rendered.env("coding-agent", "AGENT_MODEL"), Some(json!("m")));
    let objects = rendered.objects();
    assert!(!objects.iter().any(|object| object["kind"] == "Secret"));
}

#[test]
fn the_pods_address_is_not_the_tables_to_change_but_its_limits_are() {
    let rendered = agent(
        "max_in_flight = 4",
        "env = { PORT = \"1\", HOST = \"::\", AGENT_MAX_IN_FLIGHT = \"9\", AGENT_DRAIN_TIMEOUT = \"1s\" }",
    );
    assert_eq!(rendered.env("coding-agent", "PORT"), Some(json!("8000")));
    assert_eq!(rendered.env("coding-agent", "HOST"), Some(json!("0.0.0.0")));
    assert_eq!(rendered.env("coding-agent", "AGENT_MAX_IN_FLIGHT"), Some(json!("9")));
    assert_eq!(rendered.env("coding-agent", "AGENT_DRAIN_TIMEOUT"), Some(json!("1s")));
}

#[test]
fn what_the_kubelet_would_expand_stays_as_it_is_written() {
    let text = "[agents.a]\nservice = \"a\"\n[agents.a.deployment]\n\
                command = [\"sh\", \"-c\", \"echo $(HOME) $$\"]\nenv = { X = \"$(PORT)\" }\n";
    let rendered = render(text);
    assert_eq!(rendered.container("a")["command"][2], "echo $$(HOME) $$$$");
    assert_eq!(rendered.env("a", "X"), Some(json!("$$(PORT)")));
}

#[test]
fn values_that_look_like_numbers_or_booleans_stay_text() {
    let env = "env = { A = \"yes\", B = \"1e3\", C = \"null\", D = \"0x1F\", E = \"\", F = \"1:30\", G = \"a: b\\n# c\" }";
    let rendered = agent("", env);
    for (variable, value) in [
        ("A", "yes"),
        ("B", "1e3"),
        ("C", "null"),
        ("D", "0x1F"),
        ("E", ""),
        ("F", "1:30"),
        ("G", "a: b\n# c"),
    ] {
        assert_eq!(rendered.env("coding-agent", variable), Some(json!(value)), "{variable}");
    }
}

#[test]
fn an_agent_is_ready_where_the_table_says_and_lives_on_its_own() {
    let container = agent("health = { path = \"/up\" }", "").container("coding-agent");
    assert_eq!(container["readinessProbe"]["httpGet"]["path"], "/up");
    for probe in ["startupProbe", "livenessProbe"] {
        assert_eq!(container[probe]["httpGet"]["path"], "/livez", "{probe}");
    }
    let container = agent("protocol = \"h2c\"", "").container("coding-agent");
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        assert_eq!(container[probe]["tcpSocket"]["port"], "http", "the kubelet speaks no h2c");
        assert!(container[probe]["timeoutSeconds"].is_u64(), "{probe}");
    }
}

#[test]
fn only_the_gateway_may_call_an_agent_also_from_another_namespace() {
    let rendered = render(
        "[agents.far]\nservice = \"far.elsewhere\"\n[agents.far.deployment]\ncommand = [\"far\"]\n",
    );
    let policy = rendered.get("NetworkPolicy", "far");
    assert_eq!(policy["metadata"]["namespace"], "elsewhere");
    let from = &policy["spec"]["ingress"][0]["from"];
    assert_eq!(from.as_array().unwrap().len(), 1);
    let namespace = &from[0]["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"];
    assert_eq!(namespace, "ai-agents");
    assert_eq!(from[0]["podSelector"]["matchLabels"]["app"], "switchyard");
    let namespaces: Vec<_> = rendered
        .objects()
        .into_iter()
        .take_while(|object| object["kind"] == "Namespace")
        .map(|object| object["metadata"]["name"].clone())
        .collect();
    assert_eq!(namespaces, ["ai-agents", "elsewhere"]);
    let enforce = |name: &str| {
        let namespace = rendered.get("Namespace", name);
        namespace["metadata"]["labels"].get("pod-security.kubernetes.io/enforce").cloned()
    };
    assert_eq!(enforce("ai-agents"), Some(json!("restricted")));
    assert_eq!(enforce("elsewhere"), None, "others may have pods there");
}

#[test]
fn a_namespace_that_every_cluster_has_is_left_as_it_is() {
    let rendered = render("[kubernetes]\nnamespace = \"default\"\n[agents.a]\nservice = \"a\"\n");
    assert!(!rendered.objects().iter().any(|object| object["kind"] == "Namespace"));
    assert_eq!(rendered.get("Deployment", "switchyard")["metadata"]["namespace"], "default");
    assert!(!rendered.text("base/Kustomization").contains("00-namespace.yaml"));
}

#[test]
fn limits_that_no_agent_takes_are_cut_to_the_largest_that_one_does() {
    let rendered = agent(
        "max_in_flight = 1000000\n[agents.also]\nshares = \"coding\"\nmax_in_flight = 1000000\n",
        "",
    );
    assert_eq!(rendered.env("coding-agent", "AGENT_MAX_IN_FLIGHT"), Some(json!("100000")));
}

#[test]
fn every_pod_is_confined_and_may_always_be_evicted() {
    let rendered = agent("", "");
    for name in ["coding-agent", "switchyard"] {
        let pod = rendered.pod(name);
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{name}");
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        assert_eq!(pod["automountServiceAccountToken"], name == "switchyard");
        let confined = &pod["containers"][0]["securityContext"];
        assert_eq!(confined["readOnlyRootFilesystem"], true);
        assert_eq!(confined["allowPrivilegeEscalation"], false);
        assert_eq!(confined["capabilities"], json!({ "drop": ["ALL"] }));
        let budget = rendered.get("PodDisruptionBudget", name)["spec"].clone();
        assert_eq!(budget["maxUnavailable"], 1);
        assert_eq!(budget["unhealthyPodEvictionPolicy"], "AlwaysAllow");
    }
}

#[test]
fn an_image_is_the_tables_or_this_versions() {
    let image = |rendered: crate::Rendered| rendered.container("coding-agent")["image"].clone();
    assert_eq!(image(agent("", "image = \"r.example.com/a:2\"")), "r.example.com/a:2");
    assert_eq!(image(agent("", "")), Value::from(k8s::AGENT_IMAGE));
}

#[test]
fn what_is_left_out_is_noted() {
    let notes = k8s::notes(&table(
        "[agents.lone]\nendpoints = [\"http://h:1\"]\n[agents.lone.deployment]\ncommand = [\"x\"]\n\
         [agents.taken]\nservice = \"switchyard\"\n[agents.taken.deployment]\ncommand = [\"x\"]\n\
         [agents.fixed]\nservice = \"fixed\"\nscale = { min = 3 }\n[agents.fixed.deployment]\ncommand = [\"x\"]\n\
         [agents.blind]\nservice = \"blind\"\nscale = { max = 3 }\n[agents.blind.deployment]\ncommand = [\"x\"]\n",
    ));
    let about = |agent: &str, what: &str| {
        let begins = format!("agents.{agent}: ");
        let found = notes.iter().find(|note| note.starts_with(&begins));
        assert!(found.is_some_and(|note| note.contains(what)), "{agent}: {notes:#?}");
    };
    about("lone", "no `service`");
    about("taken", "the gateway's own name");
    about("fixed", "begins with one replica");
    about("blind", "CPU request");
    assert_eq!(notes.len(), 4);
}
