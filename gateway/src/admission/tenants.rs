//! Who the callers are: a bounded number of names, each with what it has used. Outlives reloads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use config::names::{NOBODY, OTHER_TENANTS};
use dashmap::DashMap;

use super::line::{Account, Terms};
use super::rates::{Part, Used};

type Named<T> = DashMap<Box<str>, Arc<T>, foldhash::fast::RandomState>;

/// Parts of a map that can be locked apart.
const SHARDS: usize = 4;

/// One tenant, over all agents.
#[derive(Debug)]
pub struct Tenant {
    /// Its name; empty: who isn't named, or isn't believed.
    pub name: Box<str>,
    /// What it has used of its own limits.
    pub used: Arc<Used>,
}

/// All tenants that were seen lately.
#[derive(Debug)]
pub struct Tenants {
    by_name: Named<Tenant>,
    /// How many gateways there are, and this one's place among them.
    part: AtomicU64,
}

impl Default for Tenants {
    fn default() -> Self {
        let by_name = DashMap::with_hasher_and_shard_amount(Default::default(), SHARDS);
        Self { by_name, part: AtomicU64::new(pack(Part::default())) }
    }
}

fn pack(part: Part) -> u64 {
    u64::from(part.gateways) << 32 | u64::from(part.rank)
}

impl Tenants {
    /// The tenant of this name, where the table has a place for it: one that it lists, or one of the
    /// first others. The rest are one together.
    #[must_use]
    pub fn of(&self, name: &str, table: &config::Tenants) -> Arc<Tenant> {
        if let Some(known) = self.by_name.get(name) {
            return Arc::clone(&known);
        }
        let listed = table.known.contains_key(name) || name == NOBODY;
        let most = table.max.saturating_add(table.known.len());
        let name = if listed || self.by_name.len() < most { name } else { OTHER_TENANTS };
        let make = || Arc::new(Tenant { name: name.into(), used: Arc::default() });
        Arc::clone(&self.by_name.entry(name.into()).or_insert_with(make))
    }

    /// This gateway's part of every limit.
    #[must_use]
    pub fn part(&self) -> Part {
        let packed = self.part.load(Relaxed);
        Part { gateways: (packed >> 32) as u32, rank: packed as u32 }
    }

    /// Sets this gateway's part of every limit.
    pub fn set_part(&self, part: Part) {
        self.part.store(pack(part), Relaxed);
    }

    /// Forgets whoever has nothing under way and nothing counted.
    pub fn forget(&self) {
        let used = |tenant: &Tenant| Arc::strong_count(&tenant.used) > 1 || !tenant.used.is_fresh();
        self.by_name.retain(|_, tenant| Arc::strong_count(tenant) > 1 || used(tenant));
    }
}

/// A tenant as one agent knows it.
#[derive(Debug, Default)]
pub struct Caller {
    /// Its service there.
    pub account: Arc<Account>,
    /// What it has used of the agent's limits.
    pub used: Arc<Used>,
}

/// An agent's callers: made when there is first one to be told apart.
#[derive(Debug)]
pub struct Callers(Named<Caller>);

impl Default for Callers {
    fn default() -> Self {
        Self(DashMap::with_hasher_and_shard_amount(Default::default(), SHARDS))
    }
}

impl Callers {
    /// The caller of this name; names are bounded by [`Tenants::of`].
    #[must_use]
    pub fn of(&self, name: &str) -> Arc<Caller> {
        if let Some(known) = self.0.get(name) {
            return Arc::clone(&known);
        }
        Arc::clone(&self.0.entry(name.into()).or_default())
    }

    /// All of them, by name.
    #[must_use]
    pub fn all(&self) -> Vec<(Box<str>, Arc<Caller>)> {
        let mut all: Vec<_> =
            self.0.iter().map(|of| (of.key().clone(), Arc::clone(of.value()))).collect();
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        all
    }

    /// Forgets whoever has nothing under way and nothing counted.
    pub fn forget(&self) {
        let busy = |caller: &Caller| {
            Arc::strong_count(&caller.used) > 1
                || Arc::strong_count(&caller.account) > 2
                || caller.account.service.running() > 0
                || !caller.used.is_fresh()
        };
        self.0.retain(|_, caller| Arc::strong_count(caller) > 1 || busy(caller));
    }
}

/// On which terms a tenant waits.
#[must_use]
pub fn terms(account: &Arc<Account>, tenant: &config::Tenant) -> Terms {
    let class = match tenant.priority {
        config::Priority::High => 0,
        config::Priority::Normal => 1,
        config::Priority::Low => 2,
    };
    Terms { account: Arc::clone(account), class, weight: tenant.weight }
}
