//! Durations, sizes and CPU as people write them, both ways.

use std::time::Duration;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// Suffixes of sizes, the longer before the shorter that ends it. Kubernetes' spellings are among
/// them.
const SIZES: [(&str, u64); 17] = [
    ("KiB", KIB),
    ("MiB", MIB),
    ("GiB", GIB),
    ("TiB", TIB),
    ("Ki", KIB),
    ("Mi", MIB),
    ("Gi", GIB),
    ("Ti", TIB),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("B", 1),
];

/// Suffixes of durations in nanoseconds, `ms` before `m` and `s`.
const TIMES: [(&str, u64); 4] =
    [("ms", 1_000_000), ("s", 1_000_000_000), ("m", 60_000_000_000), ("h", 3_600_000_000_000)];

/// `"300ms"`, `"5s"`, `"1.5s"`, `"2m"`, `"1m30s"`, `"1h"`. `None` for anything else, also for more
/// than u64 nanoseconds.
#[must_use]
pub fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut nanos = 0u64;
    let mut largest = u64::MAX;
    while !rest.is_empty() {
        let digits = number_len(rest);
        let (number, after) = rest.split_at(digits);
        let (suffix, unit) = TIMES.iter().find(|(suffix, _)| after.starts_with(suffix))?;
        if *unit >= largest {
            return None; // "5s2m", "1s1s"
        }
        largest = *unit;
        nanos = nanos.checked_add(scaled(number, *unit)?)?;
        rest = &after[suffix.len()..];
    }
    (largest != u64::MAX).then(|| Duration::from_nanos(nanos))
}

/// `"64KiB"`, `"4Gi"`, `"500M"`, `"1024"`: bytes. `None` for anything else.
#[must_use]
pub fn size(text: &str) -> Option<u64> {
    let (number, after) = text.split_at(number_len(text));
    if after.is_empty() {
        return scaled(number, 1);
    }
    let (_, unit) = SIZES.iter().find(|(suffix, _)| *suffix == after)?;
    scaled(number, *unit)
}

/// `"500m"`, `"2"`, `"0.5"`: thousandths of a CPU. `None` for anything else, also for less than a
/// thousandth.
#[must_use]
pub fn cpu(text: &str) -> Option<u64> {
    match text.strip_suffix('m') {
        Some(millis) => scaled(millis, 1),
        None => scaled(text, 1_000),
    }
}

/// The spelling of a duration in messages and JSON: `300ms`, `90s`, `300s`, `15m`, `2h`.
#[must_use]
pub fn show_duration(time: Duration) -> String {
    let nanos = time.subsec_nanos();
    let seconds = time.as_secs();
    if nanos != 0 && nanos.is_multiple_of(1_000_000) {
        return format!("{}ms", time.as_millis());
    }
    if nanos != 0 {
        let fraction = format!("{nanos:09}");
        return format!("{seconds}.{}s", fraction.trim_end_matches('0'));
    }
    match seconds {
        s if s >= 3_600 && s % 3_600 == 0 => format!("{}h", s / 3_600),
        s if s >= 600 && s % 60 == 0 => format!("{}m", s / 60),
        s => format!("{s}s"),
    }
}

/// The spelling of a size: the largest unit that divides it, `64KiB`, `500M`, or plain bytes.
#[must_use]
pub fn show_size(bytes: u64) -> String {
    let units = [("GiB", GIB), ("MiB", MIB), ("G", 1_000_000_000), ("KiB", KIB), ("M", 1_000_000)];
    for (suffix, unit) in units {
        if bytes != 0 && bytes.is_multiple_of(unit) {
            return format!("{}{suffix}", bytes / unit);
        }
    }
    bytes.to_string()
}

/// The spelling of CPU: `2` or `500m`.
#[must_use]
pub fn show_cpu(millis: u64) -> String {
    if millis.is_multiple_of(1_000) { (millis / 1_000).to_string() } else { format!("{millis}m") }
}

/// How many of the first bytes are digits or a dot.
fn number_len(text: &str) -> usize {
    text.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count()
}

/// A decimal number times a unit, exact: `None` when the result is no whole number, or too large.
fn scaled(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || (number.contains('.') && !digits(fraction)) || fraction.len() > 18 {
        return None;
    }
    let whole = whole.parse::<u64>().ok()?.checked_mul(unit)?;
    if fraction.is_empty() {
        return Some(whole);
    }
    let tenths = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    let part = fraction.parse::<u128>().ok()?.checked_mul(u128::from(unit))?;
    (part % tenths == 0).then_some(())?;
    whole.checked_add(u64::try_from(part / tenths).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_write_them() {
        let ms = |text| duration(text).map(|time| time.as_millis());
        assert_eq!(ms("300ms"), Some(300));
        assert_eq!(ms("5s"), Some(5_000));
        assert_eq!(ms("1.5s"), Some(1_500));
        assert_eq!(ms("2m"), Some(120_000));
        assert_eq!(ms("1m30s"), Some(90_000));
        assert_eq!(ms("1h"), Some(3_600_000));
        assert_eq!(ms("0s"), Some(0));
        for wrong in
            ["", "5", "s", "5 s", "-5s", "5d", "5s2m", "1s1s", ".5s", "5.s", "1.2.3s", "5S"]
        {
            assert_eq!(ms(wrong), None, "{wrong:?}");
        }
        assert_eq!(ms("99999999999h"), None);
    }

    #[test]
    fn sizes_read_in_both_families_of_units() {
        assert_eq!(size("64KiB"), Some(65_536));
        assert_eq!(size("4Gi"), Some(4 << 30));
        assert_eq!(size("500M"), Some(500_000_000));
        assert_eq!(size("1.5GiB"), Some(3 << 29));
        assert_eq!(size("1024"), Some(1024));
        assert_eq!(size("1.5"), None, "half a byte");
        for wrong in ["", "GiB", "4 GiB", "4gib", "4m", "-1", "99999999999TiB"] {
            assert_eq!(size(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn cpu_reads_as_in_kubernetes() {
        assert_eq!(cpu("500m"), Some(500));
        assert_eq!(cpu("2"), Some(2_000));
        assert_eq!(cpu("0.5"), Some(500));
        assert_eq!(cpu("0.0005"), None);
        assert_eq!(cpu("two"), None);
    }

    #[test]
    fn what_is_shown_reads_back_the_same() {
        for time in ["300ms", "1500ms", "4s", "60s", "300s", "15m", "2h", "0s"] {
            assert_eq!(show_duration(duration(time).unwrap()), time);
        }
        for bytes in ["64KiB", "32MiB", "4GiB", "500M", "2G", "1023", "0"] {
            assert_eq!(show_size(size(bytes).unwrap()), bytes);
        }
        for millis in ["500m", "2", "0"] {
            assert_eq!(show_cpu(cpu(millis).unwrap()), millis);
        }
    }
}
