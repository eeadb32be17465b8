//! The store in Redis. One connection, made when it is first needed and again when it broke; nobody waits long for
//! it: a Redis that is away costs the first request of each second a time-out, and the others nothing.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, Cmd, FromRedisValue, Pipeline, RedisError, Script};

use super::Away;

/// For a connection, and for one answer: Redis answers in well under a millisecond, or something is wrong.
const CONNECT: Duration = Duration::from_millis(500);
const ANSWER: Duration = Duration::from_millis(500);
/// How long nobody asks after it failed.
const REST: Duration = Duration::from_secs(1);
/// What every key begins with: other programs may share the database.
const PREFIX: &str = "switchyard:";

const EXCHANGE: &str = "if redis.call('get', KEYS[1]) == ARGV[1] then \
     redis.call('set', KEYS[1], ARGV[2], 'PX', ARGV[3]) return 1 end return 0";
const RELEASE: &str = "if redis.call('get', KEYS[1]) == ARGV[1] then \
     return redis.call('del', KEYS[1]) end return 0";

/// A Redis server.
pub struct Remote {
    connection: ConnectionManager,
    rests_until: Mutex<Option<Instant>>,
}

impl Remote {
    pub(super) fn new(url: &str) -> Result<Self, String> {
        // The URL may hold a password: it is not repeated.
        let wrong = |error: RedisError| {
            format!("REDIS_URL is no URL of Redis ({error}); for example redis://127.0.0.1:6379/0")
        };
        let client = Client::open(url).map_err(wrong)?;
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(0)
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(ANSWER));
        let connection = ConnectionManager::new_lazy_with_config(client, config).map_err(wrong)?;
        Ok(Self { connection, rests_until: Mutex::default() })
    }

    pub(super) async fn list(&self, key: &str) -> Result<Vec<String>, Away> {
        self.ask(redis::cmd("LRANGE").arg(name(key)).arg(0).arg(-1)).await
    }

    pub(super) async fn append(
        &self,
        key: &str,
        item: &str,
        keep: usize,
        ttl: Duration,
    ) -> Result<(), Away> {
        let key = name(key);
        let mut all = Pipeline::new();
        all.atomic();
        all.cmd("RPUSH").arg(&key).arg(item).ignore();
        all.cmd("LTRIM").arg(&key).arg(-(keep as i64)).arg(-1).ignore();
        all.cmd("PEXPIRE").arg(&key).arg(millis(ttl)).ignore();
        let mut connection = self.connection.clone();
        self.within(all.query_async(&mut connection)).await
    }

    pub(super) async fn get(&self, key: &str) -> Result<Option<String>, Away> {
        self.ask(redis::cmd("GET").arg(name(key))).await
    }

    pub(super) async fn claim(&self, key: &str, value: &str, ttl: Duration) -> Result<bool, Away> {
        let mut command = redis::cmd("SET");
        command.arg(name(key)).arg(value).arg("NX").arg("PX").arg(millis(ttl));
        // `OK`, or nothing when the key was there.
        self.ask::<Option<String>>(&command).await.map(|set| set.is_some())
    }

    pub(super) async fn exchange(
        &self,
        key: &str,
        old: &str,
        new: &str,
        ttl: Duration,
    ) -> Result<bool, Away> {
        let script = Script::new(EXCHANGE);
        let mut call = script.key(name(key));
        call.arg(old).arg(new).arg(millis(ttl));
        let mut connection = self.connection.clone();
        self.within(call.invoke_async(&mut connection)).await
    }

    pub(super) async fn release(&self, key: &str, value: &str) -> Result<(), Away> {
        let script = Script::new(RELEASE);
        let mut call = script.key(name(key));
        call.arg(value);
        let mut connection = self.connection.clone();
        self.within(call.invoke_async::<i64>(&mut connection)).await.map(drop)
    }

    /// Asks at once, also while nobody else does: this is how the end of an outage is noticed by probes.
    pub(super) async fn answers(&self) -> bool {
        *self.rests_until.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.ask::<String>(&redis::cmd("PING")).await.is_ok()
    }

    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Away> {
        let mut connection = self.connection.clone();
        self.within(command.query_async(&mut connection)).await
    }

    /// Waits for an answer, but not for long, and not while Redis rests.
    async fn within<T>(
        &self,
        asking: impl Future<Output = Result<T, RedisError>>,
    ) -> Result<T, Away> {
        if self.rests() {
            return Err(Away);
        }
        let bounded = tokio::time::timeout(CONNECT + ANSWER, asking).await;
        let why = match bounded {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        let mut rests = self.rests_until.lock().unwrap_or_else(PoisonError::into_inner);
        *rests = Some(Instant::now() + REST);
        tracing::warn!(why, "Redis is away");
        Err(Away)
    }

    fn rests(&self) -> bool {
        let rests = self.rests_until.lock().unwrap_or_else(PoisonError::into_inner);
        rests.is_some_and(|until| Instant::now() < until)
    }
}

fn name(key: &str) -> String {
    format!("{PREFIX}{key}")
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}
