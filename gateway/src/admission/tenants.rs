//! Who the callers are: a bounded number of names, each with what it has used. Outlives reloads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

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
    /// It is one of those that are bounded in number.
    counts: bool,
    /// What it has used of its own limits.
    pub used: Arc<Used>,
}

/// All tenants that were seen lately.
#[derive(Debug)]
pub struct Tenants {
    by_name: Named<Tenant>,
    /// Those of them that the table doesn't list.
    unlisted: AtomicUsize,
    /// How many gateways there are, and this one's place among them.
    part: AtomicU64,
}

impl Default for Tenants {
    fn default() -> Self {
        let by_name = DashMap::with_hasher_and_shard_amount(Default::default(), SHARDS);
        Self { by_name, unlisted: AtomicUsize::new(0), part: AtomicU64::new(pack(Part::default())) }
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
        let own = table.known.contains_key(name) || self.unlisted.load(Relaxed) < table.max;
        self.make(if own { name } else { OTHER_TENANTS }, !table.known.contains_key(name))
    }

    /// Who isn't named, or isn't believed.
    #[must_use]
    pub fn nobody(&self) -> Arc<Tenant> {
        self.make(NOBODY, false)
    }

    fn make(&self, name: &str, unlisted: bool) -> Arc<Tenant> {
        if let Some(known) = self.by_name.get(name) {
            return Arc::clone(&known);
        }
        let counts = unlisted && name != OTHER_TENANTS;
        let make = || {
            self.unlisted.fetch_add(usize::from(counts), Relaxed);
            Arc::new(Tenant { name: name.into(), counts, used: Arc::default() })
        };
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
        self.by_name.retain(|_, tenant| {
            let stays = Arc::strong_count(tenant) > 1 || used(tenant);
            self.unlisted.fetch_sub(usize::from(!stays && tenant.counts), Relaxed);
            stays
        });
    }
}

/// A tenant as one agent knows it.
#[derive(Debug)]
pub struct Caller {
    /// Who it is: as long as it is known here, its name stays taken.
    pub tenant: Arc<Tenant>,
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
    /// The tenant as this agent knows it.
    #[must_use]
    pub fn of(&self, tenant: &Arc<Tenant>) -> Arc<Caller> {
        if let Some(known) = self.0.get(&tenant.name) {
            return Arc::clone(&known);
        }
        let make = || {
            let tenant = Arc::clone(tenant);
            Arc::new(Caller { tenant, account: Arc::default(), used: Arc::default() })
        };
        Arc::clone(&self.0.entry(tenant.name.clone()).or_insert_with(make))
    }

    /// All of them, by name.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Caller>> {
        let mut all: Vec<_> = self.0.iter().map(|of| Arc::clone(of.value())).collect();
        all.sort_by(|a, b| a.tenant.name.cmp(&b.tenant.name));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn table(max: usize, known: &[&str]) -> config::Tenants {
        let unlisted = config::Tenant { weight: 1, priority: config::Priority::Normal, rate: None };
        let known = known.iter().map(|name| ((*name).to_owned(), unlisted)).collect();
        config::Tenants { header: "x".into(), max, reserve: 0.0, unlisted, known }
    }

    #[test]
    fn further_tenants_are_one_and_listed_ones_always_their_own() {
        let (tenants, table) = (Tenants::default(), table(2, &["acme"]));
        assert_eq!(&*tenants.nobody().name, NOBODY);
        let names =
            ["a", "b", "c", "acme", "d", "a"].map(|name| tenants.of(name, &table).name.clone());
        assert_eq!(names.map(String::from), ["a", "b", "(other)", "acme", "(other)", "a"]);
    }

    #[test]
    fn who_has_nothing_under_way_is_forgotten_and_leaves_room() {
        let (tenants, table) = (Tenants::default(), table(1, &[]));
        let first = tenants.of("a", &table);
        tenants.forget();
        assert_eq!(&*tenants.of("b", &table).name, OTHER_TENANTS);
        drop(first);
        tenants.forget();
        assert_eq!(&*tenants.of("b", &table).name, "b");
        let callers = Callers::default();
        let tenant = tenants.of("c", &super::tests::table(9, &[]));
        let caller = callers.of(&tenant);
        caller.account.service.begin(1);
        drop(caller);
        callers.forget();
        assert_eq!(callers.all().len(), 1, "it has something under way");
        callers.of(&tenant).account.service.end(1, 2);
        callers.forget();
        assert_eq!(callers.all().len(), 0);
    }
}
