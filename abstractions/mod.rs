// SPDX-License-Identifier: GPL-2.0

//! Safe types over the kernel interfaces that the `kernel` crate has none for yet.
//!
//! The only code of the module that may use raw pointers. Each abstraction knows Linux and nothing
//! of the policy of this driver, so that it could be proposed for the kernel tree on its own.
//!
//! What is registered here and may borrow from the bound device (disks, DAX devices, listeners) is
//! taken back when its handle is dropped, and at the latest when the device is unbound: see [`scope`].

#![allow(unsafe_code, reason = "what this folder is for")]

pub(crate) mod badblocks;
mod bindings;
pub(crate) mod block;
mod copy;
pub(crate) mod dax;
pub(crate) mod debugfs;
pub(crate) mod errno;
pub(crate) mod flag;
pub(crate) mod iomem;
pub(crate) mod mce;
pub(crate) mod memory;
pub(crate) mod memremap;
pub(crate) mod nd;
pub(crate) mod orphans;
mod page;
pub(crate) mod scope;
pub(crate) mod sysfs;
pub(crate) mod work;
