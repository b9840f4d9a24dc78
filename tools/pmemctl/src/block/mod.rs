// SPDX-License-Identifier: GPL-2.0

//! Block devices: disks of persistent memory, what is made of them, and who uses them.

pub mod devno;
pub mod disk;
pub mod holders;
pub mod remap;
pub mod topology;
