//! The controller: every effect lives here. `sense` reads, `plimsoll_policy` decides, `act` writes, `report` tells.

pub mod act;
pub mod ask;
pub mod check;
pub mod config;
pub mod control;
pub mod engines;
pub mod exec;
pub mod guardian;
pub mod incident;
pub mod kubernetes;
pub mod ledger;
pub mod memory;
pub mod place;
pub mod report;
pub mod run;
pub mod sense;
pub mod simulate;
