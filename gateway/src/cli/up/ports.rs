//! Free loopback ports, none of them given out twice at a time.

use std::collections::HashSet;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};

/// How often a port that is already given out may come back from the kernel before we give up.
const ATTEMPTS: usize = 64;

/// The ports that are given out.
#[derive(Clone, Default)]
pub(super) struct Ports(Arc<Mutex<HashSet<u16>>>);

/// A port that is given out until this is dropped.
pub(super) struct Port {
    number: u16,
    all: Ports,
}

impl Ports {
    /// A port on which nothing listens. Something else on the machine may take it before the
    /// replica does; the replica then dies and is started again on another.
    pub(super) fn take(&self) -> io::Result<Port> {
        for _ in 0..ATTEMPTS {
            let number = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
            if self.given().insert(number) {
                return Ok(Port { number, all: self.clone() });
            }
        }
        Err(io::Error::new(io::ErrorKind::AddrInUse, "no loopback port is free"))
    }

    fn given(&self) -> std::sync::MutexGuard<'_, HashSet<u16>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Port {
    pub(super) fn number(&self) -> u16 {
        self.number
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.all.given().remove(&self.number);
    }
}
