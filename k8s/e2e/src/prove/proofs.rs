//! What is proved, in the order in which it is run.

mod apply;
mod autoscale;
mod edit;
mod gateways;
mod oom;
mod operations;
mod outage;
mod rollouts;
mod scale;
mod thousand;

use super::Context;
use super::failure::Outcome;

/// A proof's name, and what it says.
pub(crate) struct Proof {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
}

/// All of them.
pub(crate) const ALL: &[Proof] = &[
    Proof {
        name: "apply",
        about: "the committed overlay on an empty cluster: all ready, each agent type answers",
    },
    Proof { name: "scale", about: "kubectl scale to five and back, under open streams" },
    Proof {
        name: "rollouts",
        about: "five updates of an agent and five of the gateway lose nothing; without drain they do",
    },
    Proof {
        name: "edit",
        about: "kubectl edit configmap: a new type without a restart, a broken edit refused",
    },
    Proof {
        name: "oom",
        about: "an agent that is killed for its greed harms only its own callers",
    },
    Proof {
        name: "autoscale",
        about: "the autoscaler follows the load up and down; parked at zero and woken",
    },
    Proof { name: "gateways", about: "three gateways keep an agent's limit together" },
    Proof { name: "operations", about: "what docs/kubernetes.md has its reader type, typed" },
    Proof { name: "outage", about: "a killed pod, the API server away, permissions taken" },
    Proof { name: "thousand", about: "a thousand replicas of a hundred types that come and go" },
];

/// Runs one; says its figures.
pub(crate) async fn prove(name: &str, context: &Context) -> Outcome<String> {
    match name {
        "apply" => apply::prove(context).await,
        "scale" => scale::prove(context).await,
        "rollouts" => rollouts::prove(context).await,
        "edit" => edit::prove(context).await,
        "oom" => oom::prove(context).await,
        "autoscale" => autoscale::prove(context).await,
        "gateways" => gateways::prove(context).await,
        "operations" => operations::prove(context).await,
        "outage" => outage::prove(context).await,
        "thousand" => thousand::prove(context).await,
        other => Err(format!("no proof is called {other}").into()),
    }
}
