//! What is measured, in the order of the table: one function, one row (or one for each HTTP).

mod cancel;
mod cost;
mod latency;
mod process;
mod reload;

use std::io;
use std::path::PathBuf;
use std::pin::Pin;

use crate::report::Row;
use benches::agent::Agent;
use benches::gateway::{Gateway, table};

/// What every row needs.
pub(crate) struct Yard {
    /// The gateway's binary.
    pub(crate) binary: PathBuf,
    pub(crate) agent: Agent,
    /// A smoke test: few rounds.
    pub(crate) quick: bool,
}

type Rows<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<Row>>> + 'a>>;

/// A measurement and the name that selects it on the command line.
pub(crate) type Measure = (&'static str, for<'a> fn(&'a Yard) -> Rows<'a>);

pub(crate) const ALL: &[Measure] = &[
    ("stream", |yard| Box::pin(latency::events(yard))),
    ("post", |yard| Box::pin(latency::small_post(yard))),
    ("cpu-post", |yard| Box::pin(cost::cpu_of_a_post(yard))),
    ("cpu-token", |yard| Box::pin(cost::cpu_of_a_token(yard))),
    ("cpu-body", |yard| Box::pin(cost::cpu_of_a_body(yard))),
    ("memory", |yard| Box::pin(cost::memory_of_a_stream(yard))),
    ("cancel-queued", |yard| Box::pin(cancel::queued(yard, cancel::SMALL))),
    ("cancel-queued-unread", |yard| Box::pin(cancel::queued(yard, cancel::UNREAD))),
    ("cancel-connecting", |yard| Box::pin(cancel::connecting(yard, cancel::SMALL))),
    ("cancel-connecting-unread", |yard| Box::pin(cancel::connecting(yard, cancel::UNREAD))),
    ("cancel-waiting", |yard| Box::pin(cancel::before_the_first_byte(yard))),
    ("cancel-streaming", |yard| Box::pin(cancel::amid_a_stream(yard))),
    ("edit", |yard| Box::pin(process::edit(yard))),
    ("reload", |yard| Box::pin(reload::under_load(yard))),
    ("drain", |yard| Box::pin(process::drain(yard))),
    ("cold-start", |yard| Box::pin(process::cold_start(yard))),
];

impl Yard {
    /// How many rounds: as many, or a few when it has to be quick.
    fn rounds(&self, many: usize, few: usize) -> usize {
        if self.quick { few } else { many }
    }

    /// A gateway with the agent `qa` alone; `settings` are lines of its table.
    async fn gateway(&self, settings: &str) -> io::Result<Gateway> {
        Gateway::start(&self.binary, &table(self.agent.address, 1, "", settings)).await
    }
}
