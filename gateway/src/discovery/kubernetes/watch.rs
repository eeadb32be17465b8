//! Following objects of one namespace: a list, then a watch from there, over and over.
//!
//! Written out rather than taken from a watcher of the client's: what the API's silence means has
//! to be known, and a stock watcher doesn't tell that it has connected again.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::Credentials;

/// Objects of one answer to a list, as `kubectl` asks.
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

/// What is kept of an object that is followed.
pub trait Kept: Sized + Send + 'static {
    /// The object as the API has it.
    type Object: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + 'static;

    /// `None`: it doesn't count, as if it were not there.
    fn of(object: &Self::Object) -> Option<Self>;
}

/// Which objects are followed.
#[derive(Debug, Clone, Copy)]
pub enum Which {
    /// Those that have this label.
    Labelled(&'static str),
    /// The one of this name: permission for it alone is enough.
    Named(&'static str),
}

/// What a [`Follower`] tells.
pub enum News<T> {
    /// All objects that there are, by name.
    Listed(Vec<(String, T)>),
    /// One is new or another.
    Changed(String, T),
    /// One is gone.
    Gone(String),
    /// The API answers.
    Follows,
    /// The API can't be asked, and why; told at each try.
    Away(String),
}

/// Whose news it is: the namespace, and the follower's id.
pub type Told<T> = (Arc<str>, u64, News<T>);

/// One who follows one namespace.
pub struct Follower<T: Kept> {
    /// The namespace.
    pub namespace: Arc<str>,
    /// What there.
    pub which: Which,
    /// Tells it from an earlier one of the same namespace.
    pub id: u64,
    /// How the API is reached.
    pub credentials: Credentials,
    /// Who is told.
    pub news: mpsc::Sender<Told<T>>,
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

impl<T: Kept> Follower<T> {
    /// Follows until dropped.
    pub async fn run(self) {
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

    async fn tell(&self, news: News<T>) {
        // Nobody listens any more: the task is about to be dropped.
        let _ = self.news.send((Arc::clone(&self.namespace), self.id, news)).await;
    }

    /// A list, where there is none to go on from, and a watch.
    async fn once(&self, api: &mut Option<Api<T::Object>>, version: &mut Option<String>) -> Again {
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
    async fn list(&self, api: &Api<T::Object>) -> Result<String, Again> {
        let params = ListParams::default().limit(PAGE);
        let mut params = match self.which {
            Which::Labelled(label) => params.labels(label),
            Which::Named(name) => params.fields(&format!("metadata.name={name}")),
        };
        let mut objects = Vec::new();
        loop {
            let page = asked(timeout(ANSWER, api.list(&params)).await)?;
            objects.extend(
                page.items.iter().filter_map(|object| Some((object.name_any(), T::of(object)?))),
            );
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => {
                    self.tell(News::Listed(objects)).await;
                    return Ok(page.metadata.resource_version.unwrap_or_default());
                }
            }
        }
    }

    async fn watch(&self, api: &Api<T::Object>, version: &mut String) -> Again {
        let params = WatchParams::default().timeout(WATCH_SECONDS);
        let params = match self.which {
            Which::Labelled(label) => params.labels(label),
            Which::Named(name) => params.fields(&format!("metadata.name={name}")),
        };
        let events = match asked(timeout(ANSWER, api.watch(&params, version)).await) {
            Ok(events) => events,
            Err(again) => return again,
        };
        self.tell(News::Follows).await;
        let mut events = std::pin::pin!(events);
        let longest = Duration::from_secs(WATCH_SECONDS.into()) + WATCH_GRACE;
        let end = Instant::now() + longest;
        while let Ok(Some(event)) = tokio::time::timeout_at(end, events.next()).await {
            let (object, gone) = match event {
                Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => (object, false),
                Ok(WatchEvent::Deleted(object)) => (object, true),
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
            let Some(now) = object.resource_version() else { return Again::Expired };
            *version = now;
            let news = match T::of(&object).filter(|_| !gone) {
                Some(kept) => News::Changed(object.name_any(), kept),
                None => News::Gone(object.name_any()),
            };
            self.tell(news).await;
        }
        Again::Ended
    }
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
