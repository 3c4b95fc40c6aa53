//! The books of one machine: who waited, worked, stood still, for how long.

use plimsoll_policy::sample::WorkloadId;

use super::Tally;
use crate::fleet::{Death, Node, Role, Tenant};
use crate::machine::Process;

/// What was last seen of every tenant.
#[derive(Default)]
pub(super) struct Books(Vec<Page>);

/// Cumulative figures of a tenant's process, in microseconds.
#[derive(Default)]
struct Page {
    id: Option<WorkloadId>,
    waited: u64,
    worked: u64,
    /// Waited in the present second.
    second: u64,
}

impl Books {
    /// Enters the slice that began at `begun`, in milliseconds.
    pub(super) fn take(&mut self, node: &Node, deaths: &[(usize, Death)], begun: u64, tally: &mut Tally) {
        let now = node.machine.now_ms;
        let passed = (now - begun) * 1000;
        let second_ends = now / 1000 > begun / 1000;
        self.0.resize_with(node.tenants.len(), Page::default);
        for (n, (tenant, page)) in node.tenants.iter().zip(&mut self.0).enumerate() {
            let died = deaths.iter().any(|(dead, _)| *dead == n);
            if died && tenant.loses_work() {
                tally.done_us = tally.done_us.saturating_sub(page.worked);
            }
            let (waited, worked) = page.turn(tenant, tenant.process(&node.machine));
            match tenant.role {
                Role::Service => {
                    let down = if tenant.down { passed } else { 0 };
                    let waited = if tenant.down { 0 } else { waited };
                    tally.served_us += passed;
                    tally.stall_us += waited;
                    tally.down_us += down;
                    page.second += waited + down;
                    if second_ends {
                        tally.second(std::mem::take(&mut page.second));
                    }
                }
                Role::Agent => {}
                _ => {
                    tally.wanted_us += if tenant.id.is_some() || tenant.down { passed } else { 0 };
                    tally.done_us += worked;
                }
            }
        }
        for process in node.machine.processes.values() {
            tally.frozen_us += if process.frozen { passed } else { 0 };
            tally.throttled_us += if process.high.is_some() { passed } else { 0 };
        }
    }
}

impl Page {
    /// What a tenant waited and worked since it was last looked at.
    fn turn(&mut self, tenant: &Tenant, process: Option<&Process>) -> (u64, u64) {
        if self.id != tenant.id {
            *self = Self { id: tenant.id.clone(), second: self.second, ..Self::default() };
        }
        let Some(process) = process else { return (0, 0) };
        let turned = (process.psi_us - self.waited, process.work_us - self.worked);
        (self.waited, self.worked) = (process.psi_us, process.work_us);
        turned
    }
}
