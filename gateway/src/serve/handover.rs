//! Which worker serves a connection. The kernel spreads connections over the listeners by a hash, so
//! that one worker may get many and another few: who accepts one hands it to the worker that has
//! least to do. Once it is served, it stays where it is.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::shared::{Connected, Load};

/// Connections on their way to one worker. When there are so many, who accepts the next keeps it.
const WAITING_MAX: usize = 256;
/// One's own load may be larger than the least by this part of it before a connection is handed
/// over: where connections come and go, loads always differ a little, and each way costs a wake-up.
const TOLERATED_PART: usize = 8;

/// A connection that another worker has accepted.
pub(super) struct Arrival {
    pub(super) stream: std::net::TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) connected: Connected,
}

/// A worker's ways to the others, and theirs to it.
pub struct Handover {
    pub(super) outward: Outward,
    pub(super) inward: mpsc::Receiver<Arrival>,
}

/// A worker's ways to the others.
pub(super) struct Outward {
    own: usize,
    /// To every worker, in their order.
    ways: Vec<Way>,
}

struct Way {
    load: Arc<Load>,
    door: mpsc::Sender<Arrival>,
}

/// One for each worker.
#[must_use]
pub fn between(loads: &[Arc<Load>]) -> Vec<Handover> {
    let (doors, inward): (Vec<_>, Vec<_>) =
        loads.iter().map(|_| mpsc::channel(WAITING_MAX)).unzip();
    let ways = || {
        let pairs = loads.iter().zip(&doors);
        pairs.map(|(load, door)| Way { load: Arc::clone(load), door: door.clone() }).collect()
    };
    let numbered = inward.into_iter().enumerate();
    numbered
        .map(|(own, inward)| Handover { outward: Outward { own, ways: ways() }, inward })
        .collect()
}

impl Outward {
    /// The worker that is to serve the next connection, if it isn't this one.
    pub(super) fn choose(&self) -> Option<usize> {
        let own = self.ways[self.own].load.weight();
        // Of equals the next one, so that not all choose the first.
        let others = (self.own + 1..self.ways.len()).chain(0..self.own);
        let open = others.filter(|n| !self.ways[*n].door.is_closed());
        idler(own, open.map(|n| (n, self.ways[n].load.weight())))
    }

    /// Counts a connection for the worker that is to serve it.
    pub(super) fn connected(&self, chosen: Option<usize>) -> Connected {
        self.ways[chosen.unwrap_or(self.own)].load.connected()
    }

    /// Hands a connection over.
    ///
    /// # Errors
    /// With the connection, when that worker takes no more, or too many are on their way to it.
    pub(super) fn send(&self, chosen: usize, arrival: Arrival) -> Result<(), Arrival> {
        use mpsc::error::TrySendError::{Closed, Full};
        self.ways[chosen].door.try_send(arrival).map_err(|(Full(back) | Closed(back))| back)
    }
}

/// Of the others, each with its load, the one with the least, if that is clearly less than `own`.
fn idler(own: usize, others: impl Iterator<Item = (usize, usize)>) -> Option<usize> {
    let (idlest, least) = others.min_by_key(|(_, load)| *load)?;
    (own > least + least / TOLERATED_PART).then_some(idlest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(own: usize, others: &[usize]) -> Option<usize> {
        idler(own, others.iter().copied().enumerate())
    }

    #[test]
    fn a_connection_goes_to_the_worker_that_has_least_to_do() {
        assert_eq!(chosen(3, &[4, 1, 2]), Some(1));
        assert_eq!(chosen(1, &[0]), Some(0));
    }

    #[test]
    fn it_stays_where_nobody_has_clearly_less_to_do() {
        assert_eq!(chosen(5, &[]), None);
        assert_eq!(chosen(0, &[0, 0]), None);
        assert_eq!(chosen(2, &[2, 3]), None);
        assert_eq!(chosen(90, &[80]), None);
        assert_eq!(chosen(91, &[80]), Some(0));
    }

    /// Loads after `n` connections, all accepted by the first worker.
    fn spread(handovers: &[Handover], n: usize) -> Vec<usize> {
        let outward = &handovers[0].outward;
        let all: Vec<_> = (0..n).map(|_| outward.connected(outward.choose())).collect();
        let loads = outward.ways.iter().map(|way| way.load.connections()).collect();
        drop(all);
        loads
    }

    #[test]
    fn connections_of_one_listener_end_up_with_all_workers() {
        let loads: Vec<_> = (0..4).map(|_| Arc::default()).collect();
        let mut handovers = between(&loads);
        assert_eq!(spread(&handovers, 16), [4, 4, 4, 4]);
        let many = spread(&handovers, 800);
        assert!(many.iter().all(|n| (180..=230).contains(n)), "{many:?}");
        handovers[2].inward.close();
        assert_eq!(spread(&handovers, 12), [4, 4, 0, 4]);
    }

    #[test]
    fn requests_under_way_count_too() {
        let loads: Vec<_> = (0..2).map(|_| Arc::<Load>::default()).collect();
        let handovers = between(&loads);
        let busy = loads[0].connected();
        let idle = [loads[1].connected(), loads[1].connected()];
        (0..2).for_each(|_| busy.request_begins());
        assert_eq!(handovers[0].outward.choose(), Some(1));
        (0..2).for_each(|_| busy.request_ends());
        assert_eq!(handovers[0].outward.choose(), None);
        drop(idle);
    }

    #[tokio::test]
    async fn what_can_t_be_handed_over_comes_back() {
        let loads: Vec<_> = (0..2).map(|_| Arc::<Load>::default()).collect();
        let mut handovers = between(&loads);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let arrival = || Arrival {
            stream: std::net::TcpStream::connect(address).unwrap(),
            peer: address,
            connected: loads[1].connected(),
        };
        let (to, from) = handovers.split_at_mut(1);
        assert!(to[0].outward.send(1, arrival()).is_ok());
        from[0].inward.close();
        let back = to[0].outward.send(1, arrival()).unwrap_err();
        drop(back);
        // What was on its way before is still there.
        assert!(from[0].inward.recv().await.is_some());
        assert!(from[0].inward.recv().await.is_none());
        assert_eq!(loads[1].connections(), 0);
    }
}
