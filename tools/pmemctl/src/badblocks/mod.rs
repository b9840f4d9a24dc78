// SPDX-License-Identifier: GPL-2.0

//! The lists of bad blocks: the kernel's, and those that are saved.

pub mod cxl;
pub mod cxl_events;
pub mod follow;
pub mod inject;
pub mod kernel;
pub mod origin;
pub mod persist;
pub mod poll;
pub mod seen;
pub mod set;
pub mod store;
