//! Machines drawn from a seed: sizes, swap, and who shares them. The same number and seed give the same machine with the same
//! demand, whatever policy watches it.

mod node;
mod random;
mod role;
mod tenant;

use plimsoll_policy::config::Config;
use plimsoll_policy::units::Bytes;

use crate::machine::{Hardware, MIB, Machine, Swap};
use random::Random;

pub use node::{Death, Node};
pub use role::Role;
pub use tenant::Tenant;

/// Which machines a fleet has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fleet {
    /// Another seed is another fleet.
    pub seed: u64,
    /// The smallest and the largest memory in GiB; sizes are powers of two.
    pub memory_gib: (u64, u64),
    /// The same kind of swap everywhere; without it half of the machines have none, and a quarter each of the others.
    pub swap: Option<SwapKind>,
}

/// What a machine swaps to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwapKind {
    /// Nothing: usual where Kubernetes runs.
    None,
    /// A partition of a quarter of the memory on an NVMe disk.
    Disk,
    /// Compressed memory for half as many bytes as there are.
    Zram,
}

impl Default for Fleet {
    fn default() -> Self {
        Self { seed: 1, memory_gib: (4, 512), swap: None }
    }
}

/// A policy that a fleet is tried with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// For people.
    pub name: String,
    /// `None` is the kernel alone.
    pub config: Option<Config>,
}

impl Policy {
    /// The kernel alone, with the `oom_score_adj` that a careful operator sets.
    #[must_use]
    pub fn kernel() -> Self {
        Self { name: "none".into(), config: None }
    }
}

impl Fleet {
    /// Machine `number` under a policy.
    #[must_use]
    pub fn node(&self, number: u64, policy: &Policy) -> Node {
        let mut random = Random::new(self.seed, number << 8);
        let total_mib = self.memory_mib(&mut random);
        let mut machine = self.machine(total_mib, &mut random);
        machine.watched = policy.config.is_some();
        let config = policy.config.clone().unwrap_or_default();
        // Where the daemon would refuse to start, since what is given does not fit the size, it goes on as on a small host.
        machine.config = config.clone().resolve(Bytes::mib(total_mib)).unwrap_or(config);
        let roles = roles(&mut random);
        let tenants = roles.iter().enumerate().map(|(n, &role)| {
            Tenant::new(n, role, total_mib, Random::new(self.seed, (number << 8) + 1 + n as u64))
        });
        Node::new(machine, tenants.collect())
    }

    fn memory_mib(&self, random: &mut Random) -> u64 {
        let (least, most) = self.memory_gib;
        let sizes: Vec<u64> = (0..20).map(|n| 1 << n).filter(|gib| (least..=most).contains(gib)).collect();
        let pick = random.between(1, sizes.len().max(1) as u64) - 1;
        let gib = usize::try_from(pick).ok().and_then(|n| sizes.get(n));
        // No power of two in the range: what was asked for.
        gib.copied().unwrap_or(least.max(1)) * 1024
    }

    fn machine(&self, total_mib: u64, random: &mut Random) -> Machine {
        let drawn = random.between(0, 3);
        let kind = self.swap.unwrap_or(match drawn {
            0 | 1 => SwapKind::None,
            2 => SwapKind::Disk,
            _ => SwapKind::Zram,
        });
        let percent = random.between(30, 50);
        let (swap_mib, swap, out, back) = match kind {
            SwapKind::None => (0, Swap::Disk, 0, 400),
            // A plain SSD to a good NVMe disk.
            SwapKind::Disk => (total_mib / 4, Swap::Disk, random.between(150, 800), 400),
            // Two to four threads of a server that compress at some 400 MiB/s each.
            SwapKind::Zram => (total_mib / 2, Swap::Zram { percent }, random.between(800, 1600), 2000),
        };
        let mut machine = Machine::new(total_mib, swap_mib);
        machine.hardware = Hardware { swap, swap_in: back * MIB, ..Hardware::server() };
        machine.swap_speed = out * MIB;
        machine.system = (total_mib / 12).min(6 * 1024) * MIB;
        machine
    }
}

/// Who shares a machine: a service that matters, batch jobs, and some of the others.
fn roles(random: &mut Random) -> Vec<Role> {
    let mut roles = vec![Role::Service, Role::Agent];
    let times = |role, least, most, random: &mut Random, roles: &mut Vec<Role>| {
        roles.extend((0..random.between(least, most)).map(|_| role));
    };
    times(Role::Service, 0, 1, random, &mut roles);
    times(Role::Model, 0, 2, random, &mut roles);
    times(Role::Batch, 1, 3, random, &mut roles);
    times(Role::Notebook, 0, 2, random, &mut roles);
    times(Role::Pinned, 0, 1, random, &mut roles);
    if random.once_in(4) {
        roles.push(Role::Leak);
    }
    if random.once_in(3) {
        roles.push(Role::Scanner);
    }
    roles
}
