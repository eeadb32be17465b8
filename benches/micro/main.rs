//! `cargo bench -p micro --bench micro`: single steps of a request by the clock. Criterion says how
//! they stand to the run before.

mod cases;

use criterion::Criterion;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for (name, prepare) in cases::ALL {
        let mut step = prepare();
        criterion.bench_function(name, |bencher| bencher.iter(&mut step));
    }
    criterion.final_summary();
}
