//! Numbers with units, read exactly: `8GiB`, `1.5s`, `80%`. No floating point, no overflow, no panic.

use crate::units::{Bytes, Share, Span};

/// Units of memory. A bare `G` or `M` is refused: half of the world means 1000 by it.
const MEMORY: [(&str, u64); 10] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// Units of time, in nanoseconds.
const TIME: [(&str, u64); 5] =
    [("us", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000), ("m", 60_000_000_000), ("h", 3_600_000_000_000)];

/// Units of a share, in parts per million. A fraction such as 0.8 is refused: one way to write a thing is enough.
const SHARE: [(&str, u64); 1] = [("%", 10_000)];

/// An amount of memory as people write it: `8GiB`, `500MB`, `1.5 TiB`. A number needs a unit.
#[must_use]
pub fn bytes(text: &str) -> Option<Bytes> {
    number(text, &MEMORY).map(Bytes)
}

/// A length of time as people write it: `250ms`, `5s`, `2m`, `1h`. A number needs a unit.
#[must_use]
pub fn span(text: &str) -> Option<Span> {
    number(text, &TIME).map(Span)
}

/// `80%`, `97.5 %`.
pub(super) fn share(text: &str) -> Option<Share> {
    number(text, &SHARE).and_then(|ppm| u32::try_from(ppm).ok()).map(Share)
}

fn number(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (digits, unit) = text.split_at(split);
    let (_, scale) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let whole: u64 = whole.parse().ok()?;
    whole.checked_mul(*scale)?.checked_add(part(fraction, *scale)?)
}

/// The digits after the point, times the unit. What is below one of the smallest unit is dropped.
fn part(fraction: &str, scale: u64) -> Option<u64> {
    let digits: u128 = fraction.parse().ok()?;
    let divisor = 10u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    u64::try_from(digits.checked_mul(u128::from(scale))? / divisor).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory() {
        let check = |text, expected: Option<u64>| assert_eq!(bytes(text).map(|b| b.0), expected, "{text}");
        check("8GiB", Some(8 << 30));
        check("500MB", Some(500_000_000));
        check("1.5 KiB", Some(1536));
        check(" 0B ", Some(0));
        for wrong in ["", "8", "8G", "GiB", "-1MiB", "1.MiB", ".5GiB", "1.2.3MiB", "1e3MiB", "99999999999TiB"]
        {
            check(wrong, None);
        }
        check("1.00000000000000000000000000000000000000000001KiB", None);
    }

    #[test]
    fn time() {
        let check = |text, expected: Option<Span>| assert_eq!(span(text), expected, "{text}");
        check("250ms", Some(Span::millis(250)));
        check("2m", Some(Span::secs(120)));
        check("0.5s", Some(Span::millis(500)));
        check("5", None);
        check("5 sec", None);
    }

    #[test]
    fn shares() {
        let check = |text, expected: Option<Share>| assert_eq!(share(text), expected, "{text}");
        check("80%", Some(Share::percent(80)));
        check("97.5 %", Some(Share(975_000)));
        check("0.8", None);
        check("5000000%", None);
    }
}
