//! Following one namespace's EndpointSlices: a list, then a watch from there, over and over.
//!
//! Written out rather than taken from a watcher of the client's: what the API's silence means has
//! to be known, and a stock watcher doesn't tell that it has connected again.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{ListParams, WatchEvent, WatchParams};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::Credentials;
use super::slices::{SERVICE, Slice};

/// Slices of one answer to a list, as `kubectl` asks.
const PAGE: u32 = 500;
/// For one page of a list, and for a watch to begin.
const ANSWER: Duration = Duration::from_secs(10);
/// How long one watch lasts, seconds. A connection that died without a word is noticed by then.
const WATCH_SECONDS: u32 = 60;
/// What the API may take longer than that to end it.
const WATCH_GRACE: Duration = Duration::from_secs(5);
/// Between two tries: the first pause, doubled up to the longest. So many gateways must not hurt
/// an API that comes back, and it should be noticed within seconds.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// A watch that lasted so long was a good one: pauses begin anew.
const STEADY: Duration = Duration::from_secs(5);

/// What a [`Follower`] tells.
pub(super) enum News {
    /// All slices that there are.
    Listed(Vec<(String, Slice)>),
    /// One is new or another.
    Changed(String, Slice),
    /// One is gone.
    Gone(String),
    /// The API answers.
    Follows,
    /// The API can't be asked.
    Away(String),
}

/// Whose news it is.
pub(super) type Told = (Arc<str>, u64, News);

/// One who follows one namespace.
pub(super) struct Follower {
    pub(super) namespace: Arc<str>,
    /// Tells it from an earlier one of the same namespace.
    pub(super) id: u64,
    pub(super) credentials: Credentials,
    pub(super) news: mpsc::Sender<Told>,
}

/// Why there has to be another try.
enum Again {
    /// The watch has ended; it goes on from where it was.
    Ended,
    /// Where it was is no longer known: everything is listed anew.
    Expired,
    /// The API can't be asked.
    Away(String),
}

type Slices = Api<EndpointSlice>;

impl Follower {
    /// Follows until dropped.
    pub(super) async fn run(self) {
        let (mut api, mut version, mut pause) = (None, None, PAUSE);
        loop {
            let begun = Instant::now();
            match self.once(&mut api, &mut version).await {
                Again::Ended => {}
                Again::Expired => version = None,
                Again::Away(error) => {
                    // The next try reads the credentials anew.
                    api = None;
                    self.tell(News::Away(error)).await;
                }
            }
            if begun.elapsed() >= STEADY {
                pause = PAUSE;
            }
            tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn tell(&self, news: News) {
        // Nobody listens any more: the task is about to be dropped.
        let _ = self.news.send((Arc::clone(&self.namespace), self.id, news)).await;
    }

    /// A list, where there is none to go on from, and a watch.
    async fn once(&self, api: &mut Option<Slices>, version: &mut Option<String>) -> Again {
        if api.is_none() {
            match timeout(ANSWER, self.credentials.client()).await {
                Ok(Ok(client)) => *api = Some(Api::namespaced(client, &self.namespace)),
                Ok(Err(error)) => return Again::Away(error),
                Err(_) => return Again::Away("the credentials' command takes too long".into()),
            }
        }
        let api = api.as_ref().expect("just made");
        if version.is_none() {
            match self.list(api).await {
                Ok(listed) => *version = Some(listed),
                Err(again) => return again,
            }
        }
        let from = version.as_mut().expect("just listed");
        self.watch(api, from).await
    }

    /// All pages; says from where to watch.
    async fn list(&self, api: &Slices) -> Result<String, Again> {
        let mut params = ListParams::default().labels(SERVICE).limit(PAGE);
        let mut slices = Vec::new();
        loop {
            let page = asked(timeout(ANSWER, api.list(&params)).await)?;
            slices.extend(
                page.items.iter().filter_map(|slice| Some((name(slice), Slice::of(slice)?))),
            );
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => {
                    self.tell(News::Listed(slices)).await;
                    return Ok(page.metadata.resource_version.unwrap_or_default());
                }
            }
        }
    }

    async fn watch(&self, api: &Slices, version: &mut String) -> Again {
        let params = WatchParams::default().labels(SERVICE).timeout(WATCH_SECONDS);
        let events = match asked(timeout(ANSWER, api.watch(&params, version)).await) {
            Ok(events) => events,
            Err(again) => return again,
        };
        self.tell(News::Follows).await;
        let mut events = std::pin::pin!(events);
        let longest = Duration::from_secs(WATCH_SECONDS.into()) + WATCH_GRACE;
        let end = Instant::now() + longest;
        while let Ok(Some(event)) = tokio::time::timeout_at(end, events.next()).await {
            let (slice, gone) = match event {
                Ok(WatchEvent::Added(slice) | WatchEvent::Modified(slice)) => (slice, false),
                Ok(WatchEvent::Deleted(slice)) => (slice, true),
                Ok(WatchEvent::Bookmark(bookmark)) => {
                    *version = bookmark.metadata.resource_version;
                    continue;
                }
                // 410: too far behind. After any other, what was missed isn't known either.
                Ok(WatchEvent::Error(_)) | Err(kube::Error::SerdeError(_)) => {
                    return Again::Expired;
                }
                Err(_) => return Again::Ended,
            };
            let Some(now) = slice.metadata.resource_version.clone() else { return Again::Expired };
            *version = now;
            let news = match Slice::of(&slice).filter(|_| !gone) {
                Some(told) => News::Changed(name(&slice), told),
                None => News::Gone(name(&slice)),
            };
            self.tell(news).await;
        }
        Again::Ended
    }
}

fn name(slice: &EndpointSlice) -> String {
    slice.metadata.name.clone().unwrap_or_default()
}

/// What an answer in time, or none, means.
fn asked<T>(answer: Result<kube::Result<T>, tokio::time::error::Elapsed>) -> Result<T, Again> {
    match answer {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(status))) if status.code == 410 => Err(Again::Expired),
        Ok(Err(kube::Error::Api(status))) => {
            Err(Again::Away(format!("{} ({})", status.message, status.code)))
        }
        Ok(Err(error)) => Err(Again::Away(error.to_string())),
        Err(_) => Err(Again::Away(format!("no answer within {} s", ANSWER.as_secs()))),
    }
}
