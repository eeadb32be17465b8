//! Single steps of a request, to be counted by callgrind: `benches/micro/compare` runs this once a
//! case, and collects only what [`counted`] does. Instructions don't depend on how busy the machine
//! is, so that a few percent can be told from noise.

mod cases;

use std::hint::black_box;
use std::io::{self, Write};
use std::process::ExitCode;

use cases::{ALL, Step};

/// Steps before those that are counted: the first ones fill tables and caches.
const WARM: usize = 100;
/// Steps that are counted. The number stands in `compare`, too.
const COUNTED: usize = 1000;

fn main() -> ExitCode {
    let case = std::env::args().nth(1).unwrap_or_default();
    if case == "--list" {
        let mut out = io::stdout();
        let listed = ALL.iter().try_for_each(|(name, _)| writeln!(out, "{name}"));
        return if listed.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    match ALL.iter().find(|(name, _)| *name == case) {
        Some((_, prepare)) => {
            let mut step = prepare();
            (0..WARM).for_each(|_| step());
            counted(&mut step);
            ExitCode::SUCCESS
        }
        None => {
            eprintln!("benches/micro/compare runs this under callgrind: --list, or a case's name");
            ExitCode::SUCCESS
        }
    }
}

/// All that callgrind collects.
#[inline(never)]
fn counted(step: &mut Step) {
    (0..COUNTED).for_each(|_| step());
    black_box(step);
}
