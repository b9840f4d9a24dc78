// SPDX-License-Identifier: GPL-2.0

//! Block devices: disks of persistent memory, partitions and volumes on them, and their users.

pub mod descriptors;
pub mod devno;
pub mod disk;
pub mod holders;
pub mod maps;
pub mod mountinfo;
pub mod remap;
pub mod topology;
