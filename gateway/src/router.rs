//! Which agent a request is for, and what it is asked there.
//!
//! Pure: a method, a URI and headers in, a [`Route`] or a [`RouteError`] out. The cost of finding
//! an agent does not grow with their number. What names the agent in a body is read by
//! [`type_of_body`], a piece at a time.

mod nearest;
mod path;
pub mod type_of_body;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use http::uri::PathAndQuery;
use http::{Method, Uri};

use self::nearest::Spellings;
use self::type_of_body::BodyError;
use crate::message::{Fields, Name};

/// How many types the text of an unknown one lists. More would not be read, and a reply has to
/// stay small whatever the table holds.
pub const KNOWN_LISTED: usize = 50;

/// How much of a name that a client made up is repeated to it, bytes.
const NAME_SHOWN: usize = 80;

/// A target is shorter than that, bytes: as long as the type of URIs that we parse with can hold.
const TARGET_MAX: usize = u16::MAX as usize;

/// What `POST /invoke` names its agent with.
const QUERY_PARAMETER: &str = "agent";

/// Every agent type of a table, ready to be found. Built once a table, shared by all requests.
#[derive(Debug)]
pub struct Routes {
    found: HashMap<Box<str>, u32, foldhash::fast::RandomState>,
    names: Spellings,
    /// By the agent's place; few have any.
    renames: HashMap<u32, Renames, foldhash::fast::RandomState>,
}

/// One agent's `paths`.
type Renames = HashMap<Box<str>, PathAndQuery, foldhash::fast::RandomState>;

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// To an agent.
    Agent(Target),
    /// `POST /invoke` that names its agent in the body: read it with
    /// [`type_of_body::Scanner`], then ask [`Routes::named`].
    NeedsBody,
    /// `GET /agents`, the list of types.
    ListAgents,
    /// `GET /health` on the public port.
    Health,
}

/// An agent, and what it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The agent's place in the order that [`Routes::new`] was given.
    pub index: u32,
    /// Path and query for the agent: after the mount, renamed where the table says so, otherwise
    /// byte for byte what the client sent.
    pub path: Box<str>,
    /// The way it came.
    pub door: Door,
}

/// The way by which a request came to its agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// `/agents/<type>/…`.
    Mount,
    /// `/agents/<type>` without a slash behind it: what is relative in the reply is relative to
    /// `/agents/` for the client, to `/` for the agent.
    BareMount,
    /// `POST /invoke`.
    Invoke,
}

impl Door {
    /// Whether the agent is seen under its mount.
    #[must_use]
    pub fn is_mount(self) -> bool {
        !matches!(self, Door::Invoke)
    }
}

/// What named an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The path's `/agents/<type>`.
    Path,
    /// The header `x-agent-type`.
    Header,
    /// The query's `agent`.
    Query,
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Source::Path => "the path",
            Source::Header => "the header x-agent-type",
            Source::Query => "the query's agent",
        })
    }
}

/// Why a request has no route. The text of each is fit for the client; the code of the error
/// table that it stands for is named beside it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// 400 `bad-path`: the path could mean another agent to a lenient server.
    #[error("the path {0}")]
    BadPath(&'static str),
    /// 400 `ambiguous-agent`: two different agents are named.
    #[error("{} names \"{}\", {} names \"{}\"", .one.0, .one.1, .other.0, .other.1)]
    Ambiguous {
        /// One of them.
        one: (Source, String),
        /// Another.
        other: (Source, String),
    },
    /// 404 `unknown-agent`.
    #[error(transparent)]
    UnknownAgent(#[from] UnknownAgent),
    /// 404 `not-found`: no agent's path and none of the gateway's own.
    #[error("there is nothing at this path; agents are at /agents/<type>/, the list is at /agents")]
    NotFound,
    /// 405 `method-not-allowed`.
    #[error("this path takes {allow}")]
    MethodNotAllowed {
        /// For the `Allow` header.
        allow: &'static str,
    },
    /// 501 `not-implemented`: `CONNECT`.
    #[error("this gateway makes no tunnels")]
    NotImplemented,
    /// 400: the body names no agent; see [`BodyError`] for the code.
    #[error(transparent)]
    Body(#[from] BodyError),
}

/// A type that the table doesn't have, and those that it has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no agent \"{name}\"{}; {}", guess(.nearest.as_deref()), list(.known, *.total))]
pub struct UnknownAgent {
    /// As the client named it, cut where it is long.
    pub name: String,
    /// The type that it probably meant.
    pub nearest: Option<String>,
    /// The first [`KNOWN_LISTED`] types in alphabetical order.
    pub known: Vec<String>,
    /// How many types there are.
    pub total: usize,
}

/// A rename of the table whose target is no path.
#[derive(Debug, thiserror::Error)]
#[error("agent {agent}: {path} is no path to rename to")]
pub struct BadRename {
    agent: String,
    path: String,
    source: http::uri::InvalidUri,
}

impl Routes {
    /// The agents of a table, in alphabetical order of their types, each with its `paths`: exact
    /// paths as the client asks (after the mount, without query) to paths as the agent is asked.
    ///
    /// # Errors
    /// When a rename's target cannot stand in a request.
    pub fn new<'a>(
        agents: impl IntoIterator<Item = (&'a str, &'a BTreeMap<String, String>)>,
    ) -> Result<Self, BadRename> {
        let mut found = HashMap::default();
        let mut names = Vec::new();
        let mut renames = HashMap::default();
        for (index, (name, paths)) in (0u32..).zip(agents) {
            found.insert(name.into(), index);
            names.push(name.into());
            renames.extend(renames_of(name, paths)?.map(|its| (index, its)));
        }
        Ok(Routes { found, names: Spellings::new(names), renames })
    }

    /// The place of an agent type.
    #[must_use]
    pub fn lookup(&self, name: &str) -> Option<u32> {
        self.found.get(name).copied()
    }

    /// The type that is spelled most like `name`, where one is near enough to be meant.
    #[must_use]
    pub fn nearest(&self, name: &str) -> Option<&str> {
        self.names.nearest(name)
    }

    /// Finds the route of a request from its head.
    ///
    /// # Errors
    /// When there is none; see [`RouteError`].
    pub fn route(&self, method: &Method, uri: &Uri, fields: &Fields) -> Result<Route, RouteError> {
        if *method == Method::CONNECT {
            return Err(RouteError::NotImplemented);
        }
        let path = uri.path();
        path::check(path).map_err(RouteError::BadPath)?;
        match path {
            "/agents" | "/agents/" => read_only(method, Route::ListAgents),
            "/health" => read_only(method, Route::Health),
            "/invoke" if *method == Method::POST => self.invoked(uri, fields),
            "/invoke" => Err(RouteError::MethodNotAllowed { allow: "POST" }),
            _ => match path.strip_prefix("/agents/") {
                Some(rest) => self.mounted(rest, uri, fields),
                None => Err(RouteError::NotFound),
            },
        }
    }

    /// The route of a `POST /invoke` whose body named `name`.
    ///
    /// # Errors
    /// When there is no such agent.
    pub fn named(&self, name: &str, uri: &Uri) -> Result<Route, RouteError> {
        let index = self.lookup(name).ok_or_else(|| self.unknown(name.as_bytes()))?;
        let path = uri.path_and_query().map_or("/invoke", PathAndQuery::as_str);
        let path = self.renamed(index, path.into())?;
        Ok(Route::Agent(Target { index, path, door: Door::Invoke }))
    }

    /// `/agents/<rest>`: the path alone decides.
    fn mounted(&self, rest: &str, uri: &Uri, fields: &Fields) -> Result<Route, RouteError> {
        let (name, tail) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        for other in named_by_header(fields) {
            agree((Source::Path, name.as_bytes()), (Source::Header, other))?;
        }
        let index = self.lookup(name).ok_or_else(|| self.unknown(name.as_bytes()))?;
        let door = if tail.is_empty() { Door::BareMount } else { Door::Mount };
        let path = self.renamed(index, after_mount(uri, uri.path().len() - tail.len()))?;
        Ok(Route::Agent(Target { index, path, door }))
    }

    /// `POST /invoke`: header, query, or else the body.
    fn invoked(&self, uri: &Uri, fields: &Fields) -> Result<Route, RouteError> {
        let mut chosen: Option<(Source, Cow<'_, [u8]>)> = None;
        let by_header = named_by_header(fields).map(|name| (Source::Header, Cow::Borrowed(name)));
        let by_query = named_by_query(uri.query().unwrap_or(""));
        for named in by_header.chain(by_query.map(|name| (Source::Query, name))) {
            match &chosen {
                Some(one) => agree((one.0, &one.1), (named.0, &named.1))?,
                None => chosen = Some(named),
            }
        }
        match chosen {
            Some((_, name)) => match std::str::from_utf8(&name) {
                Ok(name) => self.named(name, uri),
                Err(_) => Err(self.unknown(&name).into()),
            },
            None => Ok(Route::NeedsBody),
        }
    }

    /// The path under the name that the agent knows it by.
    fn renamed(&self, index: u32, asked: Box<str>) -> Result<Box<str>, RouteError> {
        let Some(renames) = self.renames.get(&index) else { return Ok(asked) };
        let (path, query) = asked.split_once('?').map_or((&*asked, None), |(p, q)| (p, Some(q)));
        let Some(target) = renames.get(path) else { return Ok(asked) };
        let Some(query) = query else { return Ok(target.as_str().into()) };
        let joint = if target.query().is_some() { '&' } else { '?' };
        let renamed = format!("{target}{joint}{query}");
        match renamed.len() {
            ..TARGET_MAX => Ok(renamed.into()),
            _ => Err(RouteError::BadPath("is too long once it is renamed")),
        }
    }

    /// Everything that the client should know about a type that isn't there.
    #[must_use]
    pub fn unknown(&self, name: &[u8]) -> UnknownAgent {
        let name = shown(name);
        UnknownAgent {
            nearest: self.nearest(&name).map(str::to_owned),
            known: self.names.iter().take(KNOWN_LISTED).map(str::to_owned).collect(),
            total: self.names.len(),
            name,
        }
    }
}

/// `GET` and `HEAD` only.
fn read_only(method: &Method, route: Route) -> Result<Route, RouteError> {
    if matches!(*method, Method::GET | Method::HEAD) {
        Ok(route)
    } else {
        Err(RouteError::MethodNotAllowed { allow: "GET, HEAD" })
    }
}

/// What is left of the request's target after the first `mount` bytes, which are a mount.
fn after_mount(uri: &Uri, mount: usize) -> Box<str> {
    let rest = uri.path_and_query().map_or("", |whole| &whole.as_str()[mount..]);
    if rest.starts_with('/') { rest.into() } else { format!("/{rest}").into() }
}

/// The names in `x-agent-type`: several lines and a list in one line are the same thing
/// (RFC 9110, 5.3), and an empty one names nothing.
fn named_by_header(fields: &Fields) -> impl Iterator<Item = &[u8]> {
    fields
        .all(Name::AgentType)
        .flat_map(|value| value.split(|&b| b == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|name| !name.is_empty())
}

/// The values of the query's parameter, decoded as forms are; an empty one names nothing.
fn named_by_query(query: &str) -> impl Iterator<Item = Cow<'_, [u8]>> {
    query.split('&').filter_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let ours = key == QUERY_PARAMETER || *form_decoded(key) == *QUERY_PARAMETER.as_bytes();
        (ours && !value.is_empty()).then(|| form_decoded(value))
    })
}

/// `application/x-www-form-urlencoded` decoding of one key or value.
fn form_decoded(text: &str) -> Cow<'_, [u8]> {
    if !text.bytes().any(|b| matches!(b, b'%' | b'+')) {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut bytes = text.replace('+', " ").into_bytes();
    path::percent_decode(&mut bytes);
    Cow::Owned(bytes)
}

/// An error unless both name the same agent.
fn agree(one: (Source, &[u8]), other: (Source, &[u8])) -> Result<(), RouteError> {
    if one.1 == other.1 {
        return Ok(());
    }
    let named = |(source, name)| (source, shown(name));
    Err(RouteError::Ambiguous { one: named(one), other: named(other) })
}

/// A client's name for an agent, cut to what an answer may repeat.
fn shown(name: &[u8]) -> String {
    match name.get(..NAME_SHOWN) {
        Some(start) if name.len() > NAME_SHOWN => format!("{}…", String::from_utf8_lossy(start)),
        _ => String::from_utf8_lossy(name).into_owned(),
    }
}

fn guess(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!(" (did you mean \"{name}\"?)"))
}

fn list(known: &[String], total: usize) -> String {
    match total - known.len() {
        _ if total == 0 => "the table has none".into(),
        0 => format!("there are: {}", known.join(", ")),
        more => format!("there are: {} and {more} more", known.join(", ")),
    }
}

fn renames_of(agent: &str, paths: &BTreeMap<String, String>) -> Result<Option<Renames>, BadRename> {
    if paths.is_empty() {
        return Ok(None);
    }
    let renames = paths.iter().map(|(from, to)| match PathAndQuery::try_from(to.as_str()) {
        Ok(target) => Ok((from.as_str().into(), target)),
        Err(source) => Err(BadRename { agent: agent.into(), path: to.clone(), source }),
    });
    renames.collect::<Result<Renames, _>>().map(Some)
}

#[cfg(test)]
mod tests;
