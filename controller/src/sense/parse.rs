//! Parsers of cgroup files. They work on the bytes of one read, allocate nothing, and never panic.

use plimsoll_policy::sample::{Events, MemoryStat, Psi};
use plimsoll_policy::units::{Bytes, Limit};

/// A kernel file whose text is not what its documentation says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unexpected text {0:?}")]
pub struct Unexpected(pub String);

fn unexpected(text: &[u8]) -> Unexpected {
    Unexpected(String::from_utf8_lossy(&text[..text.len().min(80)]).into_owned())
}

/// A single number.
///
/// # Errors
/// [`Unexpected`] where it is none.
pub fn number(text: &[u8]) -> Result<u64, Unexpected> {
    digits(text.trim_ascii()).ok_or_else(|| unexpected(text))
}

/// A number of bytes or `max`.
///
/// # Errors
/// [`Unexpected`] where it is neither.
pub fn limit(text: &[u8]) -> Result<Limit, Unexpected> {
    match text.trim_ascii() {
        b"max" => Ok(Limit::Max),
        other => digits(other).map(|n| Limit::Bytes(Bytes(n))).ok_or_else(|| unexpected(text)),
    }
}

/// `some ... total=N` and `full ... total=N` in microseconds.
///
/// # Errors
/// [`Unexpected`] where either is missing.
pub fn psi(text: &[u8]) -> Result<Psi, Unexpected> {
    let total = |kind: &[u8]| {
        lines(text)
            .find(|line| line.starts_with(kind))
            .and_then(|line| line.rsplit(|&byte| byte == b'=').next())
            .and_then(digits)
    };
    match (total(b"some "), total(b"full ")) {
        (Some(some_us), Some(full_us)) => Ok(Psi { some_us, full_us }),
        _ => Err(unexpected(text)),
    }
}

/// `frozen` and `populated` of `cgroup.events`.
///
/// # Errors
/// [`Unexpected`] where `populated` is missing.
pub fn cgroup_events(text: &[u8]) -> Result<(bool, bool), Unexpected> {
    let mut found = (None, None);
    for (key, value) in pairs(text) {
        match key {
            b"frozen" => found.0 = Some(value == 1),
            b"populated" => found.1 = Some(value == 1),
            _ => {}
        }
    }
    match found {
        (frozen, Some(populated)) => Ok((frozen.unwrap_or(false), populated)),
        _ => Err(unexpected(text)),
    }
}

/// `memory.events`.
///
/// # Errors
/// [`Unexpected`] where no key is known.
pub fn events(text: &[u8]) -> Result<Events, Unexpected> {
    let mut events = Events::default();
    let mut known = 0;
    for (key, value) in pairs(text) {
        let field = match key {
            b"low" => &mut events.low,
            b"high" => &mut events.high,
            b"max" => &mut events.max,
            b"oom" => &mut events.oom,
            b"oom_kill" => &mut events.oom_kill,
            _ => continue,
        };
        *field = value;
        known += 1;
    }
    if known == 0 { Err(unexpected(text)) } else { Ok(events) }
}

/// `memory.stat`.
///
/// # Errors
/// [`Unexpected`] where `anon` or `file` is missing.
pub fn memory_stat(text: &[u8]) -> Result<MemoryStat, Unexpected> {
    let mut stat = MemoryStat::default();
    let mut needed = 0;
    for (key, value) in pairs(text) {
        match key {
            b"anon" => (stat.anon, needed) = (Bytes(value), needed + 1),
            b"file" => (stat.file, needed) = (Bytes(value), needed + 1),
            b"shmem" => stat.shmem = Bytes(value),
            b"file_mapped" => stat.file_mapped = Bytes(value),
            b"inactive_file" => stat.inactive_file = Bytes(value),
            b"active_file" => stat.active_file = Bytes(value),
            b"kernel" => stat.kernel = Bytes(value),
            b"slab_reclaimable" => stat.slab_reclaimable = Bytes(value),
            b"unevictable" => stat.unevictable = Bytes(value),
            b"workingset_refault_anon" => stat.refault_anon = value,
            b"workingset_refault_file" => stat.refault_file = value,
            b"pgmajfault" => stat.major_faults = value,
            b"pgfault" => stat.faults = value,
            b"pgscan" => stat.scan = value,
            b"pgsteal" => stat.steal = value,
            _ => {}
        }
    }
    if needed == 2 { Ok(stat) } else { Err(unexpected(text)) }
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty())
}

/// The pairs of a flat keyed file; lines that are none are passed over.
pub(super) fn pairs(text: &[u8]) -> impl Iterator<Item = (&[u8], u64)> {
    lines(text).filter_map(|line| {
        let blank = line.iter().position(|&byte| byte == b' ')?;
        Some((&line[..blank], digits(&line[blank + 1..])?))
    })
}

fn digits(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        assert_eq!(number(b"1234\n"), Ok(1234));
        assert_eq!(limit(b"max\n"), Ok(Limit::Max));
        assert_eq!(limit(b"4096\n"), Ok(Limit::Bytes(Bytes(4096))));
        let text = b"some avg10=0.00 avg60=0.00 avg300=0.00 total=12\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        assert_eq!(psi(text), Ok(Psi { some_us: 12, full_us: 7 }));
        assert_eq!(cgroup_events(b"populated 1\nfrozen 0\n"), Ok((false, true)));
        assert_eq!(
            events(b"low 0\nhigh 5\nmax 0\noom 0\noom_kill 1\noom_group_kill 0\n").unwrap().oom_kill,
            1
        );
        assert_eq!(memory_stat(b"anon 4096\nfile 8192\npgscan 3\n").unwrap().file, Bytes(8192));
    }

    #[test]
    fn anything_else_is_named_and_nothing_panics() {
        for text in [
            &b""[..],
            b"\n",
            b"max",
            b"-1\n",
            b"some total=\nfull\n",
            b"populated\n",
            b"\xff\xfe 1\n",
            b"99999999999999999999",
        ] {
            let _ =
                (number(text), psi(text), cgroup_events(text), events(text), memory_stat(text), limit(text));
        }
        assert_eq!(number(b"12x\n").unwrap_err(), Unexpected("12x\n".into()));
        assert!(psi(b"some avg10=0 total=1\n").is_err());
        assert!(memory_stat(b"anon 1\n").is_err());
    }
}
