// SPDX-License-Identifier: GPL-2.0

//! Persistent memory as its administrator sees it: what is on the `nd` bus, which disk each
//! namespace has, who uses it; and what `pmemctl` does with that.
//!
//! [`host`] is where the files of the kernel are read and written; [`nd`] are the devices of the bus
//! and [`disk`] their disks; [`holders`] finds who uses a disk; [`badlist`] are its bad sectors;
//! [`swap`] moves a namespace from one driver to the other.

pub mod badlist;
pub mod disk;
pub mod holders;
pub mod host;
pub mod nd;
pub mod swap;
