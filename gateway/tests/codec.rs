//! The HTTP/1 codec, asked what the fuzz targets ask it (`gateway/fuzz/oracle.rs`): about all of their
//! corpus, and about a bounded number of messages that are damaged at random.

#[path = "../fuzz/oracle.rs"]
mod oracle;

use std::path::Path;

use switchyard::h1::{Framing, Refused, head};

/// Damaged messages made of each one of the corpus.
const DAMAGED: usize = 300;
/// What breaks a message best.
const BYTES: &[u8] = b"\r\n\0 :;,0aZ\t\x80";

/// The corpus of one target.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let files = std::fs::read_dir(folder).expect("a corpus");
    let mut paths: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("a file")).collect()
}

fn damage(bytes: &mut Vec<u8>, random: &mut fastrand::Rng) {
    for _ in 0..random.usize(1..6) {
        let (at, byte) = (random.usize(..=bytes.len()), BYTES[random.usize(..BYTES.len())]);
        match random.u8(..3) {
            0 if at < bytes.len() => bytes[at] = byte,
            1 if at < bytes.len() => drop(bytes.remove(at)),
            _ => bytes.insert(at, byte),
        }
    }
}

fn ask(target: &str, question: fn(&[u8])) {
    let (corpus, mut random) = (corpus(target), fastrand::Rng::with_seed(7));
    assert!(corpus.len() >= 10, "{} files", corpus.len());
    corpus.iter().for_each(|bytes| question(bytes));
    let small = corpus.iter().filter(|bytes| bytes.len() < 300);
    for bytes in small.flat_map(|bytes| std::iter::repeat_n(bytes, DAMAGED)) {
        let mut bytes = bytes.clone();
        damage(&mut bytes, &mut random);
        question(&bytes);
    }
}

#[test]
fn a_head_is_the_same_whatever_has_come_of_it_and_whatever_follows() {
    ask("head", oracle::head);
}

#[test]
fn a_body_is_the_same_wherever_it_is_cut_and_chunks_are_undone() {
    ask("body", oracle::body);
}

/// How long a request's head is, and what follows it.
fn read(text: &str) -> Result<Option<(usize, Framing)>, Refused> {
    let found = head::request(text.as_bytes(), 4096)?;
    Ok(found.map(|(head, length)| (length, head.framing)))
}

/// RFC 9112, section 2.2, lets a recipient take a bare LF for the end of a line. Nobody can take
/// such a head for another one; a bare CR, which ends no line, is refused.
#[test]
fn a_bare_lf_ends_a_line_of_a_head_and_a_bare_cr_does_not() {
    for end in ["\n", "\r\n"] {
        for last in ["\n", "\r\n"] {
            let text = format!("POST / HTTP/1.1{end}host: a{end}content-length: 5{end}{last}");
            let found = read(&format!("{text}hello"));
            assert_eq!(found, Ok(Some((text.len(), Framing::Length(5)))), "{text:?}");
        }
    }
    for text in ["GET / HTTP/1.1\rhost: a\r\r", "GET / HTTP/1.1\r\nhost: a\rb: c\r\n\r\n"] {
        assert!(read(text).is_err(), "{text:?}");
    }
}
