//! What the ring buffer carries: edges, not measurements.

/// One event.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// When, by `CLOCK_MONOTONIC`.
    pub time_ns: u64,
    /// The cgroup it is about; 0 where the kernel does not tell, or for the host.
    pub cgroup: u64,
    /// By kind: see [`Kind`].
    pub value: u64,
    /// Process.
    pub tgid: u32,
    /// Thread.
    pub tid: u32,
    /// A [`Kind`] as number.
    pub kind: u32,
    /// Events like this one that were left out since the last one was sent.
    pub suppressed: u32,
}

const _: () = assert!(size_of::<Event>() == 40);

/// What an event says.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A task of the cgroup entered global direct reclaim, the first after quiet. Value: 0.
    DirectReclaim = 1,
    /// The cgroup's own memory is being reclaimed, for the first time after quiet. Value: cgroup of the task that does it.
    MemcgReclaim = 2,
    /// A task of the cgroup waited long in reclaim. Value: nanoseconds.
    Stall = 3,
    /// kswapd was woken, the first time after quiet. Value: NUMA node.
    KswapdWake = 4,
    /// The OOM killer chose this process of the cgroup. Value: 0. Never left out.
    OomVictim = 5,
    /// The gate stopped this thread. Value: nanoseconds since reclaim was last seen.
    GateStop = 6,
}

/// A number that is no [`Kind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownKind(pub u32);

impl TryFrom<u32> for Kind {
    type Error = UnknownKind;
    fn try_from(number: u32) -> Result<Self, UnknownKind> {
        [
            Self::DirectReclaim,
            Self::MemcgReclaim,
            Self::Stall,
            Self::KswapdWake,
            Self::OomVictim,
            Self::GateStop,
        ]
        .into_iter()
        .find(|kind| *kind as u32 == number)
        .ok_or(UnknownKind(number))
    }
}
