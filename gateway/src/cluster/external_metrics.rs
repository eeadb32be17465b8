//! The load as `external.metrics.k8s.io/v1beta1`, which autoscalers ask through the cluster's API
//! server: HTTPS on the control runtime, for the API server alone.

mod answers;
mod authority;
mod callers;
mod selector;
mod upkeep;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use self::answers::Source;
use self::upkeep::Upkeep;
use super::load::Board;
use crate::connections;
use crate::discovery::kubernetes::{Credentials, Unusable};
use crate::shared::Shared;

/// The API's group.
const GROUP: &str = "external.metrics.k8s.io";
/// The one version of it.
const VERSION: &str = "v1beta1";
/// From a connection's begin until both sides have shown their certificates. At the start also for
/// ours to be there; the API server asks again.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// The external metrics' listener; nobody is served yet.
pub struct ExternalMetrics {
    listener: TcpListener,
    credentials: Credentials,
}

/// Why it can't be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address can't be had.
    #[error("cannot listen on {0} (--external-metrics): {1}")]
    Listen(SocketAddr, #[source] io::Error),
    /// There is no way to ask the cluster.
    #[error("--external-metrics: {0}")]
    Credentials(#[from] Unusable),
}

impl ExternalMetrics {
    /// Opens the listener.
    ///
    /// # Errors
    /// When the address can't be had, or there are no credentials for the cluster.
    pub fn bind(address: SocketAddr) -> Result<Self, BindError> {
        let credentials = Credentials::find()?;
        let listener =
            TcpListener::bind(address).map_err(|error| BindError::Listen(address, error))?;
        Ok(Self { listener, credentials })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.listener.local_addr().ok()
    }

    /// Serves until it is dropped.
    pub async fn serve(self, shared: Arc<Shared>, board: Board) {
        if let Some(address) = self.address() {
            tracing::info!(%address, "external metrics listen");
        }
        let (sender, servers) = watch::channel(None);
        let refused = Arc::new(Notify::new());
        let upkeep =
            Upkeep::new(self.credentials, Arc::clone(&shared), sender, Arc::clone(&refused));
        let router = answers::router(Source { shared, board });
        let open = move |stream| admit(stream, servers.clone(), Arc::clone(&refused));
        let serving = connections::serve(self.listener, "external metrics", open, router);
        tokio::select! {
            () = upkeep.run() => {}
            served = serving => if let Err(error) = served {
                tracing::error!(%error, "external metrics cannot be served");
            }
        }
    }
}

type Servers = watch::Receiver<Option<Arc<ServerConfig>>>;

/// The handshake, with the certificates as they are now. That one of them is refused is told.
async fn admit(
    stream: TcpStream,
    mut servers: Servers,
    refused: Arc<Notify>,
) -> Option<TlsStream<TcpStream>> {
    let handshake = async {
        let server = servers.wait_for(Option::is_some).await.ok()?.clone()?;
        let admitted = TlsAcceptor::from(server).accept(stream).await;
        let admitted = admitted.inspect_err(|error| {
            tracing::debug!(%error, "external metrics: no handshake");
            if is_about_a_certificate(error) {
                refused.notify_one();
            }
        });
        admitted.ok()
    };
    timeout(HANDSHAKE, handshake).await.ok().flatten()
}

/// Theirs didn't do, or they say that ours doesn't.
fn is_about_a_certificate(error: &io::Error) -> bool {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    use rustls::Error::{AlertReceived, InvalidCertificate};
    matches!(cause, Some(InvalidCertificate(_) | AlertReceived(_)))
}
