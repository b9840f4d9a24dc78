// SPDX-License-Identifier: GPL-2.0

//! Safe types for kernel interfaces that the `kernel` crate does not have yet.
//!
//! Only this folder may have unsafe code. An abstraction knows Linux, and nothing of the policy of
//! this driver, so that each could be proposed for the kernel tree.
//!
//! Registrations that borrow from a bound device (disks, DAX devices, listeners) end when their
//! handle is dropped, and at the latest when the device is unbound: see [`scope`].

#![allow(unsafe_code, reason = "the purpose of this folder")]

pub(crate) mod badblocks;
mod bindings;
pub(crate) mod block;
mod copy;
pub(crate) mod dax;
pub(crate) mod debugfs;
pub(crate) mod device;
pub(crate) mod errno;
pub(crate) mod flag;
pub(crate) mod iomem;
pub(crate) mod memory;
pub(crate) mod memory_errors;
pub(crate) mod memremap;
pub(crate) mod nd;
mod page;
pub(crate) mod reclaim;
pub(crate) mod scope;
pub(crate) mod suspend;
pub(crate) mod sysfs;
pub(crate) mod timer;
pub(crate) mod work;
