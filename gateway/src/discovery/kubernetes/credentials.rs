//! How the cluster's API is reached: from inside a pod, or by a kubeconfig file.

use std::path::Path;
use std::time::Duration;

use kube::config::KubeConfigOptions;
use kube::{Client, Config};

/// What the kubelet mounts into a pod whose ServiceAccount may use the API.
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
/// For a connection to the API.
const CONNECT: Duration = Duration::from_secs(5);

/// Which credentials are used. They are read anew with each client, so that a token, a certificate
/// or a file that was replaced is taken up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credentials {
    /// The pod's ServiceAccount.
    Pod,
    /// `KUBECONFIG`, or `~/.kube/config`.
    Kubeconfig,
}

/// Why the cluster's API can't be asked.
#[derive(Debug, thiserror::Error)]
#[error("no usable credentials for the cluster's API: {0}")]
pub struct Unusable(String);

/// Whether this process runs in a pod that may use the API.
#[must_use]
pub fn in_pod() -> bool {
    std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() && Path::new(TOKEN).exists()
}

impl Credentials {
    /// What there is: `KUBECONFIG` first, as somebody has set it.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn find() -> Result<Self, Unusable> {
        let named = std::env::var_os("KUBECONFIG").is_some_and(|path| !path.is_empty());
        let found = if !named && in_pod() { Self::Pod } else { Self::Kubeconfig };
        let read = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|error| Unusable(error.to_string()))?;
            runtime.block_on(found.config())
        };
        // A thread of its own: whoever binds may be on a runtime, which must not be blocked on.
        std::thread::spawn(read).join().expect("reading credentials doesn't panic")?;
        Ok(found)
    }

    async fn config(self) -> Result<Config, Unusable> {
        let mut config = match self {
            Self::Pod => Config::incluster().map_err(|error| Unusable(error.to_string()))?,
            Self::Kubeconfig => Config::from_kubeconfig(&KubeConfigOptions::default())
                .await
                .map_err(|error| Unusable(error.to_string()))?,
        };
        config.connect_timeout = Some(CONNECT);
        // Whoever asks tries again with a back-off, and tells of what failed.
        config.default_retry = false;
        Ok(config)
    }

    /// A client with the credentials as they are now.
    ///
    /// # Errors
    /// When they can't be read or make no client; the text says why.
    pub async fn client(self) -> Result<Client, String> {
        let config = self.config().await.map_err(|error| error.to_string())?;
        Client::try_from(config).map_err(|error| error.to_string())
    }
}
