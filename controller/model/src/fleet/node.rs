//! One machine with its tenants: time passes in slices that end where a tenant does something, or with the second.

use plimsoll_policy::pass::Pass;
use plimsoll_policy::sample::Sample;

use super::tenant::Tenant;
use crate::machine::Machine;

/// A machine and those who share it.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The machine.
    pub machine: Machine,
    /// Its tenants.
    pub tenants: Vec<Tenant>,
}

/// How a tenant's process came to die.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// The controller killed it.
    Killed,
    /// The kernel's OOM killer did.
    Oom,
}

impl Node {
    pub(super) const fn new(machine: Machine, tenants: Vec<Tenant>) -> Self {
        Self { machine, tenants }
    }

    /// Lets time pass until somebody does something, or the second is over. Gives the tenants who died in it.
    pub fn slice(&mut self, look: impl FnMut(&Sample, &Pass)) -> Vec<(usize, Death)> {
        let now = self.machine.now_ms;
        for tenant in self.tenants.iter_mut().filter(|t| t.next_ms <= now) {
            tenant.act(&mut self.machine);
        }
        let second = (now / 1000 + 1) * 1000;
        let end = self.tenants.iter().map(|t| t.next_ms).fold(second, u64::min).max(now + 1);
        self.machine.run(end - now, look);
        self.bury()
    }

    /// Removes who died; their supervisors hear of it.
    fn bury(&mut self) -> Vec<(usize, Death)> {
        let now = self.machine.now_ms;
        let mut deaths = Vec::new();
        for (n, tenant) in self.tenants.iter_mut().enumerate() {
            let Some(id) = tenant.id.clone() else { continue };
            let Some(process) = self.machine.processes.get(&id).filter(|p| p.dead) else { continue };
            deaths.push((n, if process.dies_at.is_some() { Death::Killed } else { Death::Oom }));
            self.machine.processes.remove(&id);
            tenant.died(now);
        }
        deaths
    }
}
