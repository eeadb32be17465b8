//! The operators' port: probes, metrics, state.

pub mod agents;
pub mod health;

use std::net::TcpListener;
use std::sync::Arc;

use tokio::sync::watch;

use crate::discovery::managed::Managed;
use crate::shared::{Phase, Shared};

/// What the operators' port shows.
pub struct Admin {
    shared: Arc<Shared>,
    phase: watch::Receiver<Phase>,
    managed: Option<Managed>,
}

impl Admin {
    /// A view of these.
    #[must_use]
    pub fn new(
        shared: Arc<Shared>,
        phase: watch::Receiver<Phase>,
        managed: Option<Managed>,
    ) -> Self {
        Self { shared, phase, managed }
    }
}

/// Serves until it is dropped.
pub async fn serve(listener: TcpListener, admin: Admin) {
    let _ = (listener, admin.shared, admin.phase, admin.managed);
    std::future::pending::<()>().await;
}
