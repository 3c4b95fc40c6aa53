//! The runs of the demo: two stories, each without and with swap, without and with Plimsoll.
use crate::vm::Swap;

/// What makes memory run short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Story {
    /// The batch job grows at 200 MiB/s to 900 MiB and keeps touching it
    A,
    /// The model server grows by 300 MiB and shrinks again, while the batch job idles on 400 MiB
    B,
}

/// Swap space of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum SwapKind {
    /// None at all
    None,
    /// Compressed memory
    Zram,
    /// A disk of 100 MiB/s (in host time: less repeatable)
    Disk,
}

/// Who looks after the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Protection {
    /// The kernel, with `oom_score_adj` set as a careful operator sets it
    Bare,
    /// The same, and Plimsoll
    Plimsoll,
}

/// One run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// The story.
    pub(crate) story: Story,
    /// Swap space.
    pub(crate) swap: SwapKind,
    /// Who looks after the memory.
    pub(crate) protection: Protection,
}

impl Story {
    /// In `result.json`.
    pub(crate) fn letter(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }

    /// As the guest calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::A => "batch-grows",
            Self::B => "server-grows",
        }
    }

    /// Above its plot.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::A => "A low-priority batch job grows at 200 MiB/s to 900 MiB",
            Self::B => {
                "The high-priority server grows by 300 MiB, then gives it back; a batch job idles on 400 MiB"
            }
        }
    }

    /// How long the guest watches after growth began, in seconds: story B needs time for restoration.
    pub(crate) fn watch_seconds(self) -> u32 {
        match self {
            Self::A => 20,
            Self::B => 60,
        }
    }
}

impl SwapKind {
    /// In `result.json` and in names.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Zram => "zram",
            Self::Disk => "disk",
        }
    }

    /// In words.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::None => "no swap",
            Self::Zram => "1 GiB of zram",
            Self::Disk => "1 GiB of swap on disk",
        }
    }

    /// For the boot.
    pub(crate) fn space(self) -> Swap {
        match self {
            Self::None => Swap::None,
            Self::Zram => Swap::Zram { mib: 1024 },
            Self::Disk => Swap::Disk { mib: 1024, bytes_per_second: Some(100 << 20) },
        }
    }
}

impl Protection {
    /// In `result.json` and in names.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Plimsoll => "plimsoll",
        }
    }
}

impl Run {
    /// `a-none-bare`.
    pub(crate) fn name(self) -> String {
        format!("{}-{}-{}", self.story.letter(), self.swap.name(), self.protection.name())
    }
}

/// All runs that were asked for, bare before protected, so that a pair is seen together.
pub(crate) fn chosen(story: Option<Story>, swap: &[SwapKind], protection: Option<Protection>) -> Vec<Run> {
    let swaps = if swap.is_empty() { &[SwapKind::None, SwapKind::Zram] } else { swap };
    let mut runs = Vec::new();
    for story in [Story::A, Story::B].into_iter().filter(|it| story.is_none_or(|only| only == *it)) {
        for swap in swaps.iter().copied() {
            for protection in [Protection::Bare, Protection::Plimsoll] {
                runs.push(Run { story, swap, protection });
            }
        }
    }
    runs.retain(|run| protection.is_none_or(|only| only == run.protection));
    runs
}

#[cfg(test)]
mod tests {
    use super::{Protection, Story, SwapKind, chosen};

    #[test]
    fn the_whole_demo_is_eight_runs_in_pairs() {
        let runs = chosen(None, &[], None);
        assert_eq!(runs.len(), 8);
        assert!(
            runs.chunks(2).all(|pair| pair[0].protection == Protection::Bare && pair[0].swap == pair[1].swap)
        );
    }

    #[test]
    fn a_choice_is_kept() {
        let runs = chosen(Some(Story::B), &[SwapKind::Disk], Some(Protection::Plimsoll));
        assert_eq!(runs.iter().map(|run| run.name()).collect::<Vec<_>>(), ["b-disk-plimsoll"]);
    }
}
