//! Which process of this machine listens on a port.

use std::collections::HashSet;
use std::fs;

/// A listening socket's state in `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// The process; where several share the socket, the one that the others come from. `None` when it isn't
/// one that we may look at.
pub(in crate::cli::size) fn owner(port: u16) -> Option<u32> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"]
        .map(|file| fs::read_to_string(file).unwrap_or_default());
    let sockets: HashSet<String> = tables.iter().flat_map(|table| listening(table, port)).collect();
    let entries = fs::read_dir("/proc").ok()?;
    let pids =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let owners: Vec<u32> = pids.filter(|pid| holds(*pid, &sockets)).collect();
    let first = |pid: &&u32| parent(**pid).is_none_or(|parent| !owners.contains(&parent));
    owners.iter().find(first).copied()
}

/// The inodes of the sockets that listen on a port.
fn listening(table: &str, port: u16) -> Vec<String> {
    let suffix = format!(":{port:04X}");
    let of = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is = fields.get(1)?.ends_with(&suffix) && *fields.get(3)? == LISTEN;
        is.then(|| fields.get(9).map(|inode| format!("socket:[{inode}]")))?
    };
    table.lines().filter_map(of).collect()
}

fn holds(pid: u32, sockets: &HashSet<String>) -> bool {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let mut targets = open.filter_map(|entry| fs::read_link(entry.path()).ok());
    targets.any(|target| target.to_str().is_some_and(|target| sockets.contains(target)))
}

fn parent(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_of_a_port_is_found() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        assert_eq!(owner(port), Some(std::process::id()));
        drop(socket);
        assert_eq!(owner(port), None);
    }
}
