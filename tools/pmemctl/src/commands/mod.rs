// SPDX-License-Identifier: GPL-2.0

//! The commands, one per file, and what they share.

pub mod device_spec;
pub mod doctor;
pub mod errors;
pub mod explain;
pub mod journal;
pub mod layout;
pub mod lease;
pub mod list;
pub mod man;
pub mod metrics;
pub mod monitor;
pub mod output;
pub mod page;
pub mod plan;
pub mod quarantine;
pub mod repair;
pub mod schema;
pub mod scrub;
pub mod status;
pub mod swap_driver;
