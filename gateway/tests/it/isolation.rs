//! Clients that share an upstream connection do not hold each other up.

use crate::agent_h2::H2Agent;
use crate::ask::get;
use crate::gateway::{Gateway, agent};
use crate::reply::Http;

/// An HTTP/2 client that asks and never reads: its window stays at the initial 64 KiB.
async fn deaf(gateway: &Gateway) -> tokio::net::TcpStream {
    let mut socket = tokio::net::TcpStream::connect(gateway.addr).await.unwrap();
    let path = b"/agents/qa/deaf";
    let mut block = vec![0x82, 0x86, 0x04, u8::try_from(path.len()).unwrap()];
    block.extend_from_slice(path);
    block.extend_from_slice(&[0x01, 1, b'x']);
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend_from_slice(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
    bytes.extend_from_slice(&[0, 0, u8::try_from(block.len()).unwrap(), 1, 5, 0, 0, 0, 1]);
    bytes.extend_from_slice(&block);
    tokio::io::AsyncWriteExt::write_all(&mut socket, &bytes).await.unwrap();
    socket
}

async fn check(clients: usize, pieces: usize, piece: &str) {
    let mut qa = H2Agent::manual().await;
    let table = agent("qa", &[qa.addr], "protocol = \"h2c\"");
    let gateway = Gateway::start(&format!("[gateway]\nworkers = 1\n{table}")).await;
    let mut other = gateway.open(Http::One, get("/agents/qa/other")).await;
    let mut reply = qa.call().await.begin(200, &[]);
    let mut held = Vec::new();
    for client in 0..clients {
        let socket = deaf(&gateway).await;
        let mut flood = qa.call().await.begin(200, &[]);
        for n in 0..20 {
            (0..pieces).for_each(|_| flood.send(piece.to_owned()));
            let word = format!("{client}-{n};");
            reply.send(word.clone());
            other.until(&word).await;
        }
        held.push((socket, flood));
    }
    assert_eq!(qa.accepts(), 1, "they share one connection");
}

#[tokio::test]
async fn one_that_does_not_read_many_small_pieces_breaks_no_other() {
    check(1, 2000, "data: token\n\n").await;
}

#[tokio::test]
async fn some_that_do_not_read_large_pieces_hold_up_no_other() {
    check(6, 3, &"x".repeat(16 * 1024)).await;
}
