//! The kinds of tenants: what each wants, in shares of the machine, and how it may be treated.

use plimsoll_policy::sample::Preference;

/// What a tenant is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A model server that matters: weights mapped from a file, a KV cache that follows its requests, now and then a spike.
    Service,
    /// A model that is loaded when somebody wants it, serves for a while and goes.
    Model,
    /// Jobs one after the other: each grows, works for a while and ends.
    Batch,
    /// A person: long idle, then a lot within seconds.
    Notebook,
    /// Grows slowly for ever.
    Leak,
    /// Reads large files now and then.
    Scanner,
    /// Half of its memory is pinned, and it asks to be avoided.
    Pinned,
    /// The operator's own: small, and not to be touched.
    Agent,
}

impl Role {
    /// For names of cgroups and people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Model => "model",
            Self::Batch => "batch",
            Self::Notebook => "notebook",
            Self::Leak => "leak",
            Self::Scanner => "scanner",
            Self::Pinned => "pinned",
            Self::Agent => "agent",
        }
    }

    /// How far below the protected it stands.
    #[must_use]
    pub const fn below(self) -> i32 {
        match self {
            Self::Service => 0,
            Self::Model => 500,
            Self::Notebook => 900,
            Self::Pinned => 950,
            Self::Leak => 990,
            Self::Batch | Self::Agent => 1000,
            Self::Scanner => 1010,
        }
    }

    /// systemd's word for it.
    #[must_use]
    pub const fn preference(self) -> Preference {
        match self {
            Self::Agent => Preference::Omit,
            Self::Pinned => Preference::Avoid,
            _ => Preference::None,
        }
    }

    /// What a careful operator tells the kernel, also where no controller runs.
    #[must_use]
    pub const fn oom_score_adj(self) -> i64 {
        match self {
            Self::Service => -500,
            Self::Agent => -900,
            Self::Model | Self::Pinned => 0,
            Self::Notebook => 300,
            Self::Batch | Self::Leak | Self::Scanner => 500,
        }
    }

    /// Per cent of its anon that it uses over and over.
    #[must_use]
    pub const fn hot(self) -> u64 {
        match self {
            Self::Service => 85,
            Self::Model => 70,
            Self::Batch => 60,
            Self::Notebook | Self::Pinned => 30,
            Self::Leak => 10,
            Self::Scanner | Self::Agent => 50,
        }
    }

    /// Whether its work counts as that of the expendable.
    #[must_use]
    pub const fn is_expendable(self) -> bool {
        !matches!(self, Self::Service | Self::Agent)
    }
}
