//! What is measured: Switchyard first, then the peers that are there. For each the same work: one
//! worker (or two), a route for each agent type by the prefix of its path, kept-alive connections on
//! both sides, bodies passed on as they come, no access log. Everything else is at its defaults.

mod envoy;
mod haproxy;
mod nginx;
mod switchyard;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::args::Args;

/// Connections to the agent that are kept: as many as clients ever ask at once.
const KEPT: usize = 1024;

/// A program that passes requests on.
pub(crate) struct Proxy {
    pub(crate) name: String,
    pub(crate) version: String,
    program: PathBuf,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Switchyard,
    Nginx,
    HAProxy,
    Envoy,
}

/// What it is to do.
#[derive(Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) agent: SocketAddr,
    pub(crate) workers: usize,
    /// Agent types, all at the one agent: `qa`, `t1`, `t2`, …
    pub(crate) types: usize,
}

/// The peers that `benches/peers/fetch` brings.
const PEERS: &[(&str, Kind)] = &[
    ("nginx", Kind::Nginx),
    ("haproxy", Kind::HAProxy),
    ("envoy", Kind::Envoy),
    ("nginx-new", Kind::Nginx),
    ("haproxy-new", Kind::HAProxy),
];

/// What stands for no peer at all.
const NONE: &str = "none";

/// Switchyard, and the peers that were asked for; or else those that are there.
pub(crate) fn found(switchyard: &Path, args: &Args) -> io::Result<Vec<Proxy>> {
    let mut proxies = vec![Proxy::new("switchyard", Kind::Switchyard, switchyard.to_owned())?];
    for (name, kind) in PEERS {
        let program = fetched().join(name);
        if args.peers.iter().any(|peer| peer == name) && !program.exists() {
            let hint = format!("{name} is not there: benches/peers/fetch {name}");
            return Err(io::Error::other(hint));
        }
        let wanted = args.peers.is_empty() || args.peers.iter().any(|peer| peer == name);
        if wanted && program.exists() {
            proxies.push(Proxy::new(name, *kind, program)?);
        }
    }
    match args.peers.iter().find(|peer| *peer != NONE && PEERS.iter().all(|(name, _)| name != peer))
    {
        Some(unknown) => Err(io::Error::other(format!("there is no peer {unknown}"))),
        None => Ok(proxies),
    }
}

/// Where `benches/peers/fetch` puts programs.
fn fetched() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let workspace = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    target.unwrap_or_else(|| workspace.join("target")).join("peers/bin")
}

impl Proxy {
    fn new(name: &str, kind: Kind, program: PathBuf) -> io::Result<Self> {
        let flag = if matches!(kind, Kind::Nginx | Kind::HAProxy) { "-v" } else { "--version" };
        let said = Command::new(&program).arg(flag).output()?;
        let said = [said.stdout, said.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        let version = said.split([' ', '/', '\n']).find(|word| is_version(word)).unwrap_or("?");
        Ok(Self { name: name.to_owned(), version: version.to_owned(), program, kind })
    }

    /// Writes its configuration into a folder; what starts it there, in the foreground, to listen
    /// at `listen`.
    pub(crate) fn command(
        &self,
        folder: &Path,
        listen: SocketAddr,
        setup: &Setup,
    ) -> io::Result<Command> {
        let (file, text) = match self.kind {
            Kind::Switchyard => ("switchyard.toml", switchyard::table(listen, setup)),
            Kind::Nginx => ("nginx.conf", nginx::config(folder, listen, setup)),
            Kind::HAProxy => {
                std::fs::write(folder.join(haproxy::MAP), haproxy::map(setup))?;
                ("haproxy.cfg", haproxy::config(folder, listen, setup))
            }
            Kind::Envoy => ("envoy.yaml", envoy::config(listen, setup)),
        };
        let file = folder.join(file);
        std::fs::write(&file, text)?;
        let mut command = Command::new(&self.program);
        match self.kind {
            Kind::Switchyard => switchyard::arguments(&mut command, &file),
            Kind::Nginx => nginx::arguments(&mut command, folder, &file),
            Kind::HAProxy => haproxy::arguments(&mut command, &file),
            Kind::Envoy => envoy::arguments(&mut command, &file, setup),
        }
        Ok(command)
    }
}

fn is_version(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_digit()) && word.split('.').count() >= 3
}

/// The types of a table, by name.
fn types(setup: &Setup) -> impl Iterator<Item = String> {
    std::iter::once("qa".to_owned()).chain((1..setup.types).map(|n| format!("t{n}")))
}
