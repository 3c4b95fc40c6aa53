//! Reads a per-CPU hash map in few system calls: 1.6 ms for 1000 keys where a look-up each takes 8 to 19 ms.
//!
//! aya has no batches (0.14 to 0.16). Linux 5.6 and later have them for these maps, so there is no second way.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use aya::Pod;

/// `BPF_MAP_LOOKUP_BATCH` of `enum bpf_cmd`.
const LOOKUP_BATCH: libc::c_int = 24;

/// Entries asked for at first. A hash bucket that does not fit into the rest doubles it.
const ENTRIES: usize = 128;

/// Buffers that are kept between readings. `V` must be a multiple of eight bytes, as the kernel's stride is.
pub(super) struct Batch<V> {
    keys: Vec<u64>,
    values: Vec<V>,
}

/// `struct { ... } batch` of `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct Attr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

impl<V: Pod + Default> Batch<V> {
    pub(super) const fn new() -> Self {
        const { assert!(size_of::<V>().is_multiple_of(8)) };
        Self { keys: Vec::new(), values: Vec::new() }
    }

    /// Calls `each` with every key and its values, one per CPU.
    pub(super) fn read(
        &mut self,
        map: impl AsFd,
        cpus: usize,
        mut each: impl FnMut(u64, &[V]),
    ) -> io::Result<()> {
        let (mut position, mut entries) = (None, self.keys.len().max(ENTRIES));
        loop {
            self.keys.resize(entries, 0);
            self.values.resize(entries * cpus, V::default());
            let (count, next) = match self.lookup(&map, position) {
                Ok(found) => found,
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                    entries *= 2;
                    continue;
                }
                Err(error) => return Err(error),
            };
            self.keys
                .iter()
                .zip(self.values.chunks(cpus))
                .take(count)
                .for_each(|(key, values)| each(*key, values));
            let Some(next) = next else { return Ok(()) };
            position = Some(next);
        }
    }

    /// One system call: how many entries it gave, and where to go on.
    fn lookup(&mut self, map: &impl AsFd, position: Option<u32>) -> io::Result<(usize, Option<u32>)> {
        let (mut from, mut next) = (position.unwrap_or(0), 0_u32);
        let mut attr = Attr {
            in_batch: if position.is_some() { &raw mut from as u64 } else { 0 },
            out_batch: &raw mut next as u64,
            keys: self.keys.as_mut_ptr() as u64,
            values: self.values.as_mut_ptr() as u64,
            count: u32::try_from(self.keys.len()).unwrap_or(u32::MAX),
            map_fd: map.as_fd().as_raw_fd().cast_unsigned(),
            ..Attr::default()
        };
        // SAFETY: the kernel reads and writes `attr`, the two positions, and at most `count` keys and `count` times the
        // possible CPUs values, which both buffers hold; they outlive the call.
        let result = unsafe { libc::syscall(libc::SYS_bpf, LOOKUP_BATCH, &raw mut attr, size_of::<Attr>()) };
        let error = io::Error::last_os_error();
        let count = attr.count as usize;
        match result {
            0 => Ok((count, Some(next))),
            // The end of the map; `count` holds for the last part.
            _ if error.raw_os_error() == Some(libc::ENOENT) => Ok((count, None)),
            _ => Err(error),
        }
    }
}
