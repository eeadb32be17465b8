//! An agent whose memory is known: this binary, as a process of its own. It really allocates and touches
//! what it says:
//!
//! - `base` bytes from its start to its end;
//! - `per_request` bytes, and `per_byte` for each byte of the body, for `hold_ms` in each request;
//! - and in each period of [`PERIOD`], counted from the epoch, a level of its own: `spread` times a number
//!   whose density falls evenly from 0 to 1, so that p of the levels are under `1 - sqrt(1 - p)`.
//!
//! The levels come in the order of Weyl's sequence with the golden ratio: any few hundred of them have the
//! distribution's quantiles almost exactly. So what is tested is the measuring, and not the luck of the
//! draw, which the intervals' own tests are for.

use std::fmt::Write as _;
use std::hint::black_box;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime};

/// How long a level lasts. The windows that it is looked at with are as long, and begin with it.
const PERIOD: Duration = Duration::from_millis(400);
/// The level is there in this part of its period; in the rest there is none, so that a busy machine doesn't
/// move it into the next window.
const THERE: (f64, f64) = (0.15, 0.8);
const PAGE: usize = 4096;
/// Of the golden ratio, what is behind the point.
const GOLDEN: f64 = 0.618_033_988_749_895;

/// How it is told.
const VARIABLE: &str = "SWITCHYARD_KNOWN";
const REST: &str = "SWITCHYARD_KNOWN_REST";

/// What it takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) base: usize,
    pub(super) per_request: usize,
    pub(super) per_byte: usize,
    pub(super) hold_ms: u64,
    pub(super) spread: usize,
    /// More with each request, for ever.
    pub(super) leak: usize,
    /// Every so many requests fail; 0: none.
    pub(super) fails: u64,
    /// More until it listens.
    pub(super) start: usize,
}

impl Default for Known {
    fn default() -> Known {
        Known {
            base: 1 << 20,
            per_request: 0,
            per_byte: 0,
            hold_ms: 40,
            spread: 0,
            leak: 0,
            fails: 0,
            start: 0,
        }
    }
}

impl Known {
    /// The level that so great a part of all levels doesn't exceed, bytes.
    pub(super) fn level(&self, part: f64) -> f64 {
        self.spread as f64 * (1.0 - (1.0 - part).sqrt())
    }

    fn written(&self) -> String {
        let Known { base, per_request, per_byte, hold_ms, spread, leak, fails, start } = self;
        format!("{base} {per_request} {per_byte} {hold_ms} {spread} {leak} {fails} {start}")
    }

    fn read(text: &str) -> Known {
        let numbers: Vec<usize> = text.split(' ').map(|number| number.parse().unwrap()).collect();
        let [base, per_request, per_byte, hold_ms, spread, leak, fails, start] = numbers[..] else {
            panic!("{text}")
        };
        let (hold_ms, fails) = (hold_ms as u64, fails as u64);
        Known { base, per_request, per_byte, hold_ms, spread, leak, fails, start }
    }
}

/// A table whose agent `known` is this binary; it writes what its process takes by itself to `rest`.
pub(super) fn table(known: &Known, rest: &Path) -> String {
    let exe = std::env::current_exe().unwrap();
    let mut text = format!(
        "# A table for tests.\n[agents.known.deployment]\n\
         command = [\"{}\", \"size::agent::this_binary_as_an_agent_of_known_memory\", \"--exact\"]\n",
        exe.display()
    );
    // What is allocated is mapped by itself, and goes back to the kernel when it is dropped.
    writeln!(
        text,
        "env = {{ {VARIABLE} = \"{}\", {REST} = \"{}\", MALLOC_MMAP_THRESHOLD_ = \"65536\", MALLOC_ARENA_MAX = \"1\" }}",
        known.written(),
        rest.display()
    )
    .unwrap();
    text
}

#[test]
fn this_binary_as_an_agent_of_known_memory() {
    let Ok(known) = std::env::var(VARIABLE) else { return };
    let known = Known::read(&known);
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let kib = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    let rest = format!("anon {}\nall {}\n", kib("RssAnon:") << 10, kib("VmRSS:") << 10);
    std::fs::write(std::env::var(REST).unwrap(), rest).unwrap();
    let _base = hold(known.base);
    drop(hold(known.start));
    if known.spread > 0 {
        spawn(move || levels(known));
    }
    let port: u16 = std::env::var("PORT").unwrap().parse().unwrap();
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    for stream in listener.incoming() {
        let stream = stream.unwrap();
        // The other side may go at any time.
        spawn(move || drop(serve(&stream, known)));
    }
}

/// A thread with a small stack.
fn spawn(work: impl FnOnce() + Send + 'static) {
    thread::Builder::new().stack_size(128 << 10).spawn(work).unwrap();
}

/// Memory that is resident until it is dropped.
fn hold(bytes: usize) -> Vec<u8> {
    let mut memory = vec![0u8; bytes];
    memory.iter_mut().step_by(PAGE).for_each(|byte| *byte = 1);
    black_box(memory)
}

fn levels(known: Known) {
    let since_epoch = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let until = |at: Duration| {
        while let Some(left) = at.checked_sub(since_epoch()).filter(|left| !left.is_zero()) {
            thread::park_timeout(left);
        }
    };
    let mut number = since_epoch().as_nanos() / PERIOD.as_nanos() + 1;
    loop {
        let begins = Duration::from_nanos(u64::try_from(number * PERIOD.as_nanos()).unwrap());
        let part = (f64::from(u32::try_from(number % 1_000_000).unwrap()) * GOLDEN).fract();
        until(begins + PERIOD.mul_f64(THERE.0));
        let level = hold(known.level(part) as usize);
        until(begins + PERIOD.mul_f64(THERE.1));
        drop(level);
        // A machine that stood still for a while has missed some.
        number = (number + 1).max(since_epoch().as_nanos() / PERIOD.as_nanos());
    }
}

fn serve(stream: &TcpStream, known: Known) -> io::Result<()> {
    let mut from = BufReader::new(stream);
    let mut count = 0;
    loop {
        let (mut length, mut first, mut line) = (0, String::new(), String::new());
        while from.read_line(&mut line)? > 2 {
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if first.is_empty() {
                first.clone_from(&line);
            }
            line.clear();
        }
        if first.is_empty() {
            return Ok(());
        }
        io::copy(&mut (&mut from).take(length), &mut io::sink())?;
        let mut status = "200 OK";
        if first.starts_with("POST") {
            let body = usize::try_from(length).unwrap();
            let memory = hold(known.per_request + known.per_byte * body);
            std::mem::forget(hold(known.leak));
            thread::park_timeout(Duration::from_millis(known.hold_ms));
            drop(memory);
            count += 1;
            if known.fails > 0 && count % known.fails == 0 {
                status = "500 Internal Server Error";
            }
        }
        let mut to = stream;
        to.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nok").as_bytes())?;
    }
}
