//! The cluster's API server as external metrics meet it: the objects that the gateway reads and
//! writes, over real HTTP, and its front proxy, which calls the gateway by TLS.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use serde_json::{Value, json};

use crate::agent::{Agent, Call};
use crate::gateway::Gateway;

const SECRET: &str = "/api/v1/namespaces/ai-agents/secrets/switchyard-external-metrics";
const FRONT_PROXY: &str =
    "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
const API_SERVICE: &str =
    "/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.external.metrics.k8s.io";
/// By which name the API server calls.
const SERVER: &str = "switchyard-external-metrics.ai-agents.svc";
/// Where the metric is.
const LOAD: &str = "/apis/external.metrics.k8s.io/v1beta1/namespaces/ai-agents/agent_load";

type Objects = Arc<Mutex<BTreeMap<String, Value>>>;

/// A stand-in for the API server.
pub struct ApiServer {
    objects: Objects,
    agent: Option<Agent>,
    folder: tempfile::TempDir,
}

/// Who signs the front proxy's certificates.
pub struct Signer {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl Signer {
    /// A new one.
    pub fn new() -> Signer {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "front-proxy-ca");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        Signer { issuer: Issuer::new(params, key), certificate }
    }

    /// A client's certificate of this name, and its key.
    pub fn client(&self, name: &str) -> reqwest::Identity {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        reqwest::Identity::from_pem((key.serialize_pem() + &certificate).as_bytes()).unwrap()
    }
}

fn object(path: &str, rest: &Value) -> Value {
    let (_, name) = path.rsplit_once('/').unwrap();
    let mut object = json!({ "metadata": { "name": name, "resourceVersion": "1" } });
    object.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    object
}

impl ApiServer {
    /// As it is after an apply, with a front proxy whose certificates are signed by this one and
    /// are called `front-proxy-client`.
    pub async fn start(signer: &Signer) -> ApiServer {
        let service = json!({ "name": "switchyard-external-metrics", "namespace": "ai-agents" });
        let spec = json!({
            "service": service, "groupPriorityMinimum": 100, "versionPriority": 100,
        });
        let objects = BTreeMap::from([
            (SECRET.to_owned(), object(SECRET, &json!({ "type": "Opaque" }))),
            (API_SERVICE.to_owned(), object(API_SERVICE, &json!({ "spec": spec }))),
        ]);
        let objects = Arc::new(Mutex::new(objects));
        let kept = Arc::clone(&objects);
        let agent = Agent::with(move |call| answer(call, Arc::clone(&kept))).await;
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: t\n\
             clusters: [{{name: t, cluster: {{server: \"http://{}\"}}}}]\n\
             users: [{{name: t, user: {{token: t}}}}]\n\
             contexts: [{{name: t, context: {{cluster: t, user: t}}}}]\n",
            agent.addr
        );
        std::fs::write(folder.path().join("kubeconfig"), kubeconfig).unwrap();
        let server = ApiServer { objects, agent: Some(agent), folder };
        server.trust(signer, &["front-proxy-client"]);
        server
    }

    /// From now on the front proxy's certificates are signed by this one and have these names.
    pub fn trust(&self, signer: &Signer, names: &[&str]) {
        let data = json!({ "data": {
            "requestheader-client-ca-file": signer.certificate,
            "requestheader-allowed-names": serde_json::to_string(names).unwrap(),
        }});
        let map = object(FRONT_PROXY, &data);
        self.objects.lock().unwrap().insert(FRONT_PROXY.to_owned(), map);
    }

    /// A gateway that offers external metrics here.
    pub async fn gateway(&self, agents: &str) -> Offering {
        let text = format!("[gateway]\ndiscovery = \"listed\"\n{agents}");
        let kubeconfig: PathBuf = self.folder.path().join("kubeconfig");
        let env = [
            ("KUBECONFIG", kubeconfig.to_str().unwrap()),
            ("SWITCHYARD_EXTERNAL_METRICS", "127.0.0.1:0"),
        ];
        let gateway = Gateway::start_with(&text, &env).await;
        let line: Value =
            serde_json::from_str(&gateway.logged(&["external metrics listen"]).await).unwrap();
        let address = line["address"].as_str().unwrap().parse().unwrap();
        Offering { gateway, address }
    }

    /// Somebody changes the APIService.
    pub fn edit_api_service(&self, edit: impl FnOnce(&mut Value)) {
        edit(self.objects.lock().unwrap().get_mut(API_SERVICE).unwrap());
    }

    /// Somebody empties the Secret.
    pub fn empty_secret(&self) {
        let mut objects = self.objects.lock().unwrap();
        objects.insert(SECRET.to_owned(), object(SECRET, &json!({ "type": "Opaque" })));
    }

    /// What the APIService says of the server's authority, if anything.
    pub fn bundle(&self) -> Option<Vec<u8>> {
        let objects = self.objects.lock().unwrap();
        let bundle = objects[API_SERVICE]["spec"].get("caBundle")?;
        let k8s_openapi::ByteString(pem) = serde_json::from_value(bundle.clone()).unwrap();
        Some(pem)
    }

    /// It is gone; what it held stays to be looked at.
    pub fn stop(&mut self) {
        self.agent = None;
    }

    /// Calls the gateway with this certificate, and checks the gateway's as the API server does.
    pub async fn get(
        &self,
        of: &Offering,
        identity: Option<&reqwest::Identity>,
        target: &str,
    ) -> reqwest::Result<(u16, Value)> {
        let authority = reqwest::Certificate::from_pem(&self.bundle().unwrap_or_default())?;
        let mut client = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([authority])
            .resolve(SERVER, of.address);
        if let Some(identity) = identity {
            client = client.identity(identity.clone());
        }
        let url = format!("https://{SERVER}:{}{target}", of.address.port());
        let reply = client.build()?.get(url).send().await?;
        Ok((reply.status().as_u16(), reply.json().await?))
    }

    /// The load by a selector, as it stands in a query.
    pub async fn load(
        &self,
        of: &Offering,
        identity: &reqwest::Identity,
        selector: &str,
    ) -> reqwest::Result<(u16, Value)> {
        self.get(of, Some(identity), &format!("{LOAD}?labelSelector={selector}")).await
    }
}

/// A gateway that offers external metrics.
pub struct Offering {
    /// The gateway itself.
    pub gateway: Gateway,
    /// Where the API server calls it.
    pub address: SocketAddr,
}

async fn answer(mut call: Call, objects: Objects) {
    let path = call.target().split('?').next().unwrap_or_default().to_owned();
    let method = call.method().to_owned();
    let body = serde_json::from_slice(&call.body().await).unwrap_or(Value::Null);
    let (code, answer) = changed(&method, &path, body, &mut objects.lock().unwrap());
    call.reply(&format!("{code} Answer\r\ncontent-type: application/json"), answer.to_string())
        .await;
}

fn refused(code: u16) -> (u16, Value) {
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "metadata": {},
        "code": code, "message": format!("refused with {code}"), "reason": "Test",
    });
    (code, status)
}

fn changed(
    method: &str,
    path: &str,
    body: Value,
    objects: &mut BTreeMap<String, Value>,
) -> (u16, Value) {
    let Some(object) = objects.get_mut(path) else { return refused(404) };
    let version = object["metadata"]["resourceVersion"].clone();
    match method {
        "GET" => return (200, object.clone()),
        "PUT" if body["metadata"]["resourceVersion"] != version => return refused(409),
        "PUT" => *object = body,
        "PATCH" => {
            let spec = body["spec"].as_object().expect("a patch of the spec").clone();
            object["spec"].as_object_mut().unwrap().extend(spec);
        }
        other => panic!("{other} {path}?"),
    }
    let version: u64 = version.as_str().unwrap().parse().unwrap();
    object["metadata"]["resourceVersion"] = (version + 1).to_string().into();
    (200, object.clone())
}
