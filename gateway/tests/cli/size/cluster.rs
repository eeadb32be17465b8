//! `switchyard size --cluster` against an API server that answers as a cluster's does: the pods of a Service,
//! the kubelet's summary, `metrics.k8s.io`, and the `resize` subresource.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

use super::agent::Known;
use super::{Yard, outcome, switchyard};

const WORKING_SET: u64 = 200 << 20;
const USED: &str = "100Mi";

/// The cluster: one pod, which takes what is said here.
struct Api {
    kubeconfig: String,
    patches: Arc<Mutex<Vec<(String, Value)>>>,
    _folder: tempfile::TempDir,
}

impl Api {
    /// `kubelet`: whether its summary may be read. `minor`: which Kubernetes it is.
    fn start(kubelet: bool, minor: &'static str) -> Api {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        let patches: Arc<Mutex<Vec<(String, Value)>>> = Arc::default();
        let kept = Arc::clone(&patches);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, kept) = (stream.unwrap(), Arc::clone(&kept));
                // The client may leave at any time.
                thread::spawn(move || drop(serve(&stream, kubelet, minor, &kept)));
            }
        });
        let folder = tempfile::tempdir().unwrap();
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "t",
            "clusters": [{ "name": "t", "cluster": { "server": server } }],
            "users": [{ "name": "t", "user": { "token": "t" } }],
            "contexts": [{ "name": "t", "context": { "cluster": "t", "user": "t" } }],
        });
        let path = folder.path().join("kubeconfig");
        std::fs::write(&path, config.to_string()).unwrap();
        Api { kubeconfig: path.display().to_string(), patches, _folder: folder }
    }

    fn size(&self, arguments: &[&str]) -> (Option<i32>, Value, String) {
        let yard = Yard::new(Known::default());
        let table = yard.path("t.toml");
        let own = std::fs::read_to_string(&table).unwrap();
        let named = own.replace(
            "[agents.known.deployment]",
            "[agents.known]\nservice = \"known-agent\"\n[agents.known.deployment]",
        );
        std::fs::write(&table, named).unwrap();
        let all = [
            "size",
            "known",
            "--config",
            &table,
            "--format",
            "json",
            "--cluster",
            "--namespace",
            "ns",
        ];
        let mut command = switchyard(&[&all[..], arguments].concat());
        let (code, out, err) =
            outcome(command.env("KUBECONFIG", &self.kubeconfig).output().unwrap());
        (code, serde_json::from_str(&out).unwrap_or(Value::Null), err)
    }
}

fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "known-1", "namespace": "ns" },
        "spec": { "nodeName": "n1", "containers": [
            { "name": "agent", "resources": { "limits": { "memory": "512Mi" } } }
        ] },
        "status": { "phase": "Running", "podIP": "10.0.0.7", "containerStatuses": [
            { "name": "agent", "image": "", "imageID": "", "ready": true, "restartCount": 0 }
        ] },
    })
}

fn get(path: &str, kubelet: bool, minor: &str) -> Option<Value> {
    Some(match path {
        "/version" => {
            json!({ "major": "1", "minor": minor, "gitVersion": "", "gitCommit": "", "gitTreeState": "",
            "buildDate": "", "goVersion": "", "compiler": "", "platform": "" })
        }
        "/api/v1/namespaces/ns/services/known-agent" => {
            json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "known-agent" }, "spec": { "selector": { "app": "known" } } })
        }
        "/api/v1/namespaces/ns/pods?&labelSelector=app%3Dknown&limit=500" => {
            json!({ "apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": [pod()] })
        }
        "/api/v1/namespaces/ns/pods/known-1" => pod(),
        "/api/v1/nodes/n1/proxy/stats/summary" if kubelet => json!({ "node": {}, "pods": [{
            "podRef": { "name": "known-1", "namespace": "ns" },
            "containers": [{ "name": "agent", "cpu": { "usageCoreNanoSeconds": 5_000_000_000u64 },
                "memory": { "usageBytes": WORKING_SET * 2, "workingSetBytes": WORKING_SET } }],
        }] }),
        "/apis/metrics.k8s.io/v1beta1/namespaces/ns/pods/known-1" => {
            json!({ "containers": [{ "name": "agent", "usage": { "cpu": "1m", "memory": USED } }] })
        }
        _ => return None,
    })
}

fn serve(
    stream: &TcpStream,
    kubelet: bool,
    minor: &str,
    patches: &Mutex<Vec<(String, Value)>>,
) -> io::Result<()> {
    let mut from = BufReader::new(stream);
    loop {
        let (mut length, mut first, mut line) = (0, String::new(), String::new());
        while from.read_line(&mut line)? > 2 {
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if first.is_empty() {
                first.clone_from(&line);
            }
            line.clear();
        }
        let mut words = first.split(' ');
        let (Some(method), Some(path)) = (words.next(), words.next()) else { return Ok(()) };
        let mut body = Vec::new();
        (&mut from).take(length).read_to_end(&mut body)?;
        let answer = match method {
            "PATCH" => {
                patches
                    .lock()
                    .unwrap()
                    .push((path.to_owned(), serde_json::from_slice(&body).unwrap()));
                Some(pod())
            }
            _ => get(path, kubelet, minor),
        };
        let refused = || json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "no", "reason": "Forbidden", "code": 403 });
        let status = if answer.is_some() { "200 OK" } else { "403 Forbidden" };
        let text = answer.unwrap_or_else(refused).to_string();
        // In one write: in many small ones, the client's kernel would wait with its acknowledgement.
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            text.len()
        );
        let mut to = stream;
        to.write_all((head + &text).as_bytes())?;
    }
}

#[test]
fn a_pod_is_watched_by_the_kubelet_and_resized() {
    let api = Api::start(true, "33");
    let (code, report, err) = api.size(&["--watch", "40s", "--window", "100ms", "--resize"]);
    assert_eq!((code, &report["answer"]), (Some(0), &"yes".into()), "{err}{report:#}");
    assert_eq!(report["memory_by"], "working set by the kubelet, about every 10 s");
    assert_eq!(
        (&report["replicas"][0], &report["limit"]),
        (&"known-1".into(), &(512 << 20).into())
    );
    let median = report["memory"]["p50"]["value"].as_f64().unwrap();
    assert!((median / WORKING_SET as f64 - 1.0).abs() < 0.01, "{median}");
    assert!(err.contains("pod known-1 is asked to resize"), "{err}");
    let patches = api.patches.lock().unwrap();
    let (path, patch) = &patches[0];
    assert!(path.starts_with("/api/v1/namespaces/ns/pods/known-1/resize?"), "{path}");
    let container = &patch["spec"]["containers"][0];
    assert_eq!(
        (&container["name"], &container["resources"]["limits"]["memory"]),
        (&"agent".into(), &"232Mi".into())
    );
}

#[test]
fn where_the_kubelet_may_not_be_asked_the_metrics_api_is() {
    let api = Api::start(false, "33");
    let (code, report, _) = api.size(&["--watch", "3s", "--window", "500ms"]);
    assert_eq!(code, Some(1));
    assert_eq!(report["memory_by"], "working set by metrics.k8s.io, about every 15 s");
    let median = report["memory"]["p50"]["value"].as_f64().unwrap();
    assert!((median / f64::from(100 << 20) - 1.0).abs() < 0.01, "{median}");
    assert!(api.patches.lock().unwrap().is_empty());
}

#[test]
fn the_one_pod_is_driven_through_a_url() {
    let (api, (url, requests)) = (Api::start(true, "33"), super::runs::agent());
    let (code, report, err) = api.size(&["--url", &url, "--time", "8s", "--window", "500ms"]);
    assert_eq!((code, &report["replicas"][0]), (Some(1), &"known-1".into()), "{err}");
    assert!(requests.try_iter().count() > 0 && report["requests"]["failed"] == 0, "{report:#}");
    let median = report["memory"]["p50"]["value"].as_f64().unwrap();
    assert!((median / WORKING_SET as f64 - 1.0).abs() < 0.01, "{median}");
}

#[test]
fn pods_are_driven_at_a_url_only() {
    let api = Api::start(true, "33");
    let (code, _, err) = api.size(&["--time", "5s", "--window", "1s"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("pods are driven at --url") && err.contains("port-forward"), "{err}");
}
