// SPDX-License-Identifier: GPL-2.0

//! The engine of `pmemctl`; the commands are in `commands/`.
//!
//! [`sysfs`] reads and writes the kernel's files, [`programs`] finds programs, [`ranges`] has sets of numbers, `waiting`
//! makes calls that may not return. [`block`] has the disks and the volumes on them, [`nd`] the devices of the `nd` bus,
//! [`badblocks`] the lists of errors, [`fs`] the file systems. Each of these imports only those before it.

pub mod affected;
pub mod badblocks;
pub mod block;
pub mod doctor;
pub mod explain;
pub mod fs;
pub mod inventory;
pub mod json;
pub mod layout;
pub mod lease;
pub mod metrics;
pub mod monitor;
pub mod nd;
pub mod output_file;
pub mod plan;
pub mod programs;
pub mod quarantine;
pub mod ranges;
pub mod repair;
pub mod scrub;
pub mod status;
pub mod swap_driver;
pub mod sysfs;
#[cfg(test)]
mod testing;
mod throttle;
mod waiting;
