// SPDX-License-Identifier: GPL-2.0

//! Persistent memory as its administrator sees it: what is on the `nd` bus, which disk each
//! namespace has, who uses it; and what `pmemctl` does with that.
//!
//! [`host`] is where the files of the kernel are read and written; [`nd`] are the devices of the bus
//! and [`disk`] their disks; [`holders`] finds who uses a disk; [`badlist`] are its bad sectors;
//! [`swap`] moves a namespace from one driver to the other.
//!
//! [`inventory`] is what there is, and [`stack`] what is made of a disk: partitions, volumes, file systems.
//!
//! [`trace`] follows bad ranges through what is made of a disk, [`owner`] to the files of a file system;
//! [`hurt`] does both. [`offline`] does so where it is not mounted, by what [`ext4`] and [`xfs`] tell; [`programs`]
//! are those of others that are asked.
//!
//! [`map`] is what is where on a disk, in cells.
//!
//! [`doctor`] finds why files of persistent memory are not mapped directly, durably or by huge pages;
//! [`probe`] tries that on a file.
//!
//! [`advise`] computes what each form of a memory costs.
//!
//! [`scrub`] reads a disk to find bad memory.
//!
//! [`errors`] are bad sectors with what made them known, [`list`] the kernel's lists of them, and
//! [`region`] the memory that they belong to. [`saved`] is such a list in a file, [`remember`] saves
//! and restores it, [`follow`] does so at each change. [`poison`] takes over what a CXL device
//! knows; [`change`] adds and removes errors by hand.
//!
//! [`changes`] waits for changes of the lists; [`watch`] tells of new errors, and [`users`] who uses a file.
//! [`repair`] restores what a file has lost, and [`hold`] keeps it from being truncated.

pub mod advise;
pub mod badlist;
pub mod change;
pub mod changes;
pub mod disk;
pub mod doctor;
pub mod errors;
pub mod ext4;
pub mod follow;
pub mod hold;
pub mod holders;
pub mod host;
pub mod hurt;
pub mod inventory;
pub mod list;
#[cfg(test)]
mod machine;
pub mod map;
pub mod nd;
pub mod offline;
pub mod owner;
pub mod poison;
pub mod probe;
pub mod programs;
pub mod region;
pub mod remember;
pub mod repair;
pub mod saved;
pub mod scrub;
pub mod stack;
pub mod swap;
pub mod trace;
pub mod users;
pub mod watch;
pub mod xfs;
