//! The wanted end state of every workload.
//!
//! Three targets are kept apart, each as far as the tier allows. The *calm* target (below what elevated may be left at)
//! justifies trimming. The *brake* target (below what constrained may be left at, with the growth of the next moment)
//! justifies throttling and freezing. The *survival* target (out of emergency, with room for what the
//! protected grow while a kill takes effect) alone justifies a kill, and only where everything gentler falls short.
//! Levels alone kill nobody: a machine that is full but stands still, with nobody protected suffering, is left alone. Neither do they on a GPU ([`kill_gpu`]).
//!
//! What a workload gives of its own is asked for first ([`wish`]); the brakes are for what that can't bring in time.
//!
//! Rungs are only ever raised by need ([`ladder`], [`kill`]) and only ever lowered by time and calm ([`restore`]) or
//! by futility ([`lease`]), so a rung can't flap with a noisy reading.

mod calm;
mod cheapest;
mod evict;
mod explain;
mod gate;
mod kill;
mod kill_gpu;
mod ladder;
mod lease;
mod leash;
mod protect;
mod repeats;
mod restart;
mod restore;
mod settle;
mod spell;
mod turn;
mod victims;
mod wanted;
mod wish;

pub(crate) use explain::Taken;
pub(crate) use turn::Turn;
pub(crate) use wanted::wanted;

use crate::plan::Plan;
use crate::sample::Trigger;

/// Decides, and keeps in the state what was decided.
pub(crate) fn decide(turn: &mut Turn<'_>) -> Plan {
    if turn.sample.trigger == Trigger::Shutdown {
        restore::release_all(turn);
        return wanted::plan(turn);
    }
    settle::settle(turn);
    wish::settle(turn);
    restore::release_ineligible(turn);
    wish::undo_ineligible(turn);
    evict::review(turn);
    restart::receive(turn);
    lease::review(turn);
    leash::review(turn);
    restore::review(turn);
    wish::review(turn);
    ladder::raise(turn);
    wish::ask_protected(turn);
    kill::consider(turn);
    kill_gpu::consider(turn);
    evict::consider(turn);
    protect::protect(turn);
    gate::arm(turn);
    wanted::plan(turn)
}
