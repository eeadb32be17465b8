//! How many replicas a Deployment shall have: its `scale` subresource, read and set.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::asker::{Asker, Failed};

/// Who we are to those who look at what was changed.
pub(super) const MANAGER: &str = "switchyard";

/// A Deployment's size, as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Size {
    /// Replicas that there shall be.
    pub(super) replicas: i32,
    /// Of the Deployment, so that nobody's change is overwritten.
    version: Option<String>,
}

/// One Deployment, by name.
#[derive(Clone)]
pub(super) struct Scale {
    asker: Arc<Asker>,
    namespace: String,
    name: String,
}

impl Scale {
    pub(super) fn of(asker: &Arc<Asker>, owned: &k8s::Owned) -> Self {
        let (namespace, name) = (owned.namespace.clone(), owned.name.clone());
        Self { asker: Arc::clone(asker), namespace, name }
    }

    fn api(&self, client: kube::Client) -> Api<Deployment> {
        Api::namespaced(client, &self.namespace)
    }

    /// What its size is now.
    pub(super) async fn size(&self) -> Result<Size, Failed> {
        let question = async |client| self.api(client).get_scale(&self.name).await;
        let scale = self.asker.ask(question).await?;
        Ok(Size {
            replicas: scale.spec.and_then(|spec| spec.replicas).unwrap_or_default(),
            version: scale.metadata.resource_version,
        })
    }

    /// Sets another size, if nothing has changed since `from` was read; a conflict otherwise.
    pub(super) async fn set(&self, from: &Size, replicas: i32) -> Result<(), Failed> {
        let patch = json!({
            "metadata": { "resourceVersion": from.version },
            "spec": { "replicas": replicas },
        });
        let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
        let question = async |client| {
            self.api(client).patch_scale(&self.name, &params, &Patch::Merge(&patch)).await
        };
        self.asker.ask(question).await.map(drop)
    }
}
