//! The controller: every effect lives here. `sense` reads, `plimsoll_policy` decides, `act` writes, `report` tells.

pub mod config;
