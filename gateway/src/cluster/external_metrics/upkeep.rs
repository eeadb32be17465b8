//! Keeps the credentials true: whose certificate is served, whose is asked for, and that the API
//! server knows. Looked at every minute, and soon when a handshake failed for a certificate.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, Error};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use serde_json::json;
use time::OffsetDateTime;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::authority::{self, Authority, Serving};
use super::callers::{self, FrontProxy};
use super::{GROUP, VERSION};
use crate::discovery::kubernetes::Credentials;
use crate::shared::Shared;

/// Between two looks, when all is well.
const EVERY: Duration = Duration::from_secs(60);
/// And at least, whoever knocks.
const AT_LEAST: Duration = Duration::from_secs(2);
/// After a look that failed.
const AGAIN: Duration = Duration::from_secs(5);
/// For one answer of the API.
const ANSWER: Duration = Duration::from_secs(10);

/// Where the API server says who its front proxy is: namespace and ConfigMap.
const FRONT_PROXY: (&str, &str) = ("kube-system", "extension-apiserver-authentication");

/// Why the credentials aren't known to be true.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    /// The API can't be asked.
    #[error("no client of the API: {0}")]
    Client(String),
    /// It refuses, or is away.
    #[error("{0}: {1}")]
    Api(&'static str, #[source] Error),
    /// It is slow.
    #[error("{0}: no answer within {n} s", n = ANSWER.as_secs())]
    Slow(&'static str),
    /// The Secret holds something else.
    #[error(transparent)]
    Authority(#[from] authority::Unusable),
    /// The cluster's front proxy can't be known.
    #[error("ConfigMap {name} in {namespace}: {0}", namespace = FRONT_PROXY.0, name = FRONT_PROXY.1)]
    Callers(#[from] callers::Unusable),
    /// What was read doesn't make a server.
    #[error("what was read makes no server: {0}")]
    Tls(#[from] rustls::Error),
    /// Somebody else answers for external metrics.
    #[error(
        "the APIService {GROUP} is for {0}, and a cluster has one: apply the component again, or take it out"
    )]
    Taken(String),
}

const SECRET: &str = "the Secret with the certificate authority";
const CONFIG_MAP: &str = "the ConfigMap with the front proxy's authority";
const API_SERVICE: &str = "the APIService";

/// What a server is made of.
struct Made {
    authority: Authority,
    name: String,
    serving: Serving,
    front_proxy: FrontProxy,
}

/// What keeps the credentials true.
pub(super) struct Upkeep {
    credentials: Credentials,
    shared: Arc<Shared>,
    provider: Arc<CryptoProvider>,
    servers: watch::Sender<Option<Arc<ServerConfig>>>,
    /// A certificate was refused, ours or theirs: perhaps it is time for another.
    refused: Arc<Notify>,
    client: Option<Client>,
    made: Option<Made>,
}

impl Upkeep {
    /// Nothing is known yet.
    pub(super) fn new(
        credentials: Credentials,
        shared: Arc<Shared>,
        servers: watch::Sender<Option<Arc<ServerConfig>>>,
        refused: Arc<Notify>,
    ) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        Self { credentials, shared, provider, servers, refused, client: None, made: None }
    }

    /// Looks until dropped.
    pub(super) async fn run(mut self) {
        let mut told = String::new();
        loop {
            let (pause, now) = match self.look().await {
                Ok(()) => (EVERY, String::new()),
                Err(trouble) => {
                    // The next look reads the credentials anew.
                    self.client = None;
                    (AGAIN, trouble.to_string())
                }
            };
            if told != now {
                match now.is_empty() {
                    true => tracing::info!("external metrics: the cluster agrees again"),
                    false => tracing::warn!(error = now, "external metrics: not as it should be"),
                }
                told = now;
            }
            tokio::time::sleep(AT_LEAST).await;
            tokio::select! {
                () = tokio::time::sleep(pause - AT_LEAST) => {}
                () = self.refused.notified() => {}
            }
        }
    }

    async fn look(&mut self) -> Result<(), Trouble> {
        let client = match &self.client {
            Some(client) => client.clone(),
            None => self.credentials.client().await.map_err(Trouble::Client)?,
        };
        self.client = Some(client.clone());
        let namespace = self.shared.tables.current().table.kubernetes.namespace.clone();
        let now = OffsetDateTime::now_utc();
        let authority = authority_of(Api::namespaced(client.clone(), &namespace), now).await?;
        let certificate = authority.certificate().to_owned();
        let front_proxies: Api<ConfigMap> = Api::namespaced(client.clone(), FRONT_PROXY.0);
        let front_proxy =
            FrontProxy::of(&asked(CONFIG_MAP, front_proxies.get(FRONT_PROXY.1)).await?)?;
        self.take(
            authority,
            format!("{}.{namespace}.svc", k8s::EXTERNAL_METRICS),
            front_proxy,
            now,
        )?;
        register(&Api::all(client), &namespace, &certificate).await
    }

    /// Makes another server, where this is something new or the certificate gets old.
    fn take(
        &mut self,
        authority: Authority,
        name: String,
        front_proxy: FrontProxy,
        now: OffsetDateTime,
    ) -> Result<(), Trouble> {
        let before = self.made.take().filter(|made| {
            made.name == name
                && made.authority.certificate() == authority.certificate()
                && now < made.serving.renew
        });
        if before.as_ref().is_some_and(|made| made.front_proxy == front_proxy) {
            self.made = before;
            return Ok(());
        }
        let serving = match before {
            Some(made) => made.serving,
            None => authority.issue(&name, now)?,
        };
        let made = Made { authority, name, serving, front_proxy };
        let server = self.server(&made)?;
        tracing::info!(server = made.name, "external metrics are served");
        self.servers.send_replace(Some(Arc::new(server)));
        self.made = Some(made);
        Ok(())
    }

    fn server(&self, made: &Made) -> Result<ServerConfig, Trouble> {
        let verifier = made.front_proxy.verifier(&self.provider)?;
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(made.serving.chain.clone(), made.serving.key.clone_key())?;
        // Who comes back shows its certificate again.
        server.send_tls13_tickets = 0;
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(server)
    }
}

/// An answer of the API, in time.
async fn asked<T>(
    what: &'static str,
    answer: impl Future<Output = kube::Result<T>>,
) -> Result<T, Trouble> {
    let answer = timeout(ANSWER, answer).await.map_err(|_| Trouble::Slow(what))?;
    answer.map_err(|error| Trouble::Api(what, error))
}

/// That of the Secret, which is filled if it is empty; all gateways may try, and one succeeds.
async fn authority_of(secrets: Api<Secret>, now: OffsetDateTime) -> Result<Authority, Trouble> {
    let mut secret = asked(SECRET, secrets.get(k8s::EXTERNAL_METRICS)).await?;
    let there = Authority::of(&secret)?;
    if let Some(authority) = there.filter(|authority| !authority.is_to_be_replaced(now)) {
        return Ok(authority);
    }
    let made = Authority::make(now)?;
    secret.data = Some(made.data());
    let how = PostParams::default();
    match asked(SECRET, secrets.replace(k8s::EXTERNAL_METRICS, &how, &secret)).await {
        Ok(_) => {
            tracing::info!(secret = k8s::EXTERNAL_METRICS, "a certificate authority was made");
            Ok(made)
        }
        Err(Trouble::Api(_, Error::Api(status))) if status.code == 409 => {
            let secret = asked(SECRET, secrets.get(k8s::EXTERNAL_METRICS)).await?;
            let theirs = Authority::of(&secret)?;
            theirs.ok_or_else(|| authority::Unusable::Secret("it is empty".into()).into())
        }
        Err(trouble) => Err(trouble),
    }
}

/// Tells the API server by which authority it knows us.
async fn register(
    services: &Api<APIService>,
    namespace: &str,
    certificate: &str,
) -> Result<(), Trouble> {
    let name = format!("{VERSION}.{GROUP}");
    let spec = asked(API_SERVICE, services.get(&name)).await?.spec.unwrap_or_default();
    let to = spec.service.unwrap_or_default();
    let (to_name, to_namespace) = (to.name.unwrap_or_default(), to.namespace.unwrap_or_default());
    if (to_name.as_str(), to_namespace.as_str()) != (k8s::EXTERNAL_METRICS, namespace) {
        return Err(Trouble::Taken(format!("{to_name:?} in {to_namespace:?}")));
    }
    let bundle = ByteString(certificate.as_bytes().to_vec());
    if spec.ca_bundle.as_ref() == Some(&bundle) {
        return Ok(());
    }
    let patch = Patch::Merge(json!({ "spec": { "caBundle": bundle } }));
    asked(API_SERVICE, services.patch(&name, &PatchParams::default(), &patch)).await?;
    tracing::info!(apiservice = name, "the API server was told the certificate authority");
    Ok(())
}
