// SPDX-License-Identifier: GPL-2.0

//! Persistent memory as its administrator sees it. The commands are in the program, `main.rs`.
//!
//! [`sysfs`] reads and writes the kernel's files. [`block`] are the disks and what is made of them, [`nd`] the devices of
//! the `nd` bus, [`badblocks`] the lists of bad blocks, [`fs`] the file systems. Each of these imports only those named
//! before it.

pub mod affected;
pub mod badblocks;
pub mod block;
pub mod doctor;
pub mod fs;
pub mod inventory;
pub mod layout;
pub mod lease;
pub mod monitor;
pub mod nd;
pub mod plan;
pub mod repair;
pub mod scrub;
pub mod status;
pub mod swap_driver;
pub mod sysfs;
#[cfg(test)]
mod testing;

// The names by which the bench imports them.
pub use block::{disk, holders};
pub use sysfs as host;
