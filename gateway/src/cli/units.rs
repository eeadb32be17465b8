//! Numbers as people read them.

use std::time::Duration;

/// Bytes in binary units with three significant digits: `512 B`, `1.5 KiB`, `4 GiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    // Not 1024: 1023.6 KiB would be shown as "1024 KiB".
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{} {}", significant(value), UNITS[unit])
}

/// A duration given in milliseconds: `0.42 ms`, `85 ms`, `1.2 s`, `5 min`.
pub(crate) fn millis(ms: f64) -> String {
    match ms {
        ms if ms < 999.5 => format!("{} ms", significant(ms)),
        ms if ms < 119_500.0 => format!("{} s", significant(ms / 1e3)),
        ms => format!("{} min", significant(ms / 6e4)),
    }
}

/// As [`millis`].
pub(crate) fn time(duration: Duration) -> String {
    millis(duration.as_secs_f64() * 1e3)
}

/// Requests a second: `0/s`, `0.25/s`, `1234/s`.
pub(crate) fn rate(per_second: f64) -> String {
    format!("{}/s", significant(per_second))
}

/// `word` with an `s` unless there is one of it: `1 agent`, `3 agents`.
pub(crate) fn counted(count: usize, word: &str) -> String {
    if count == 1 { format!("1 {word}") } else { format!("{count} {word}s") }
}

/// At most three significant digits, at most two decimals, no trailing zeros.
fn significant(value: f64) -> String {
    let decimals = match value {
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    let text = format!("{value:.decimals$}");
    if !text.contains('.') {
        return text;
    }
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_people_write_them() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (4 << 30, "4 GiB"),
            (1_048_000, "1 MiB"),
            (123_456_789, "118 MiB"),
            (u64::MAX, "16384 PiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn times_change_their_unit_as_they_grow() {
        for (ms, text) in [
            (0.0, "0 ms"),
            (0.421, "0.42 ms"),
            (85.04, "85 ms"),
            (1234.0, "1.23 s"),
            (30_000.0, "30 s"),
            (300_000.0, "5 min"),
        ] {
            assert_eq!(millis(ms), text);
        }
    }

    #[test]
    fn rates_keep_small_numbers_visible() {
        assert_eq!(
            [rate(0.0), rate(0.25), rate(12.34), rate(1234.5)],
            ["0/s", "0.25/s", "12.3/s", "1234/s"]
        );
    }
}
