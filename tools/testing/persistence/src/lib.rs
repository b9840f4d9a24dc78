// SPDX-License-Identifier: GPL-2.0

//! A model of persistent memory under x86 processors, without QEMU.
//!
//! [`Domain`] follows stores, cache write-backs and fences, and has the contents of the medium. [`instruction`] finds the
//! instructions that matter. [`log`] is the record of a watched guest for a checker: each line that became durable, crash
//! images as differences from the medium, and the guest's own marks, in one order. [`record`] is what test programs write, and
//! how a checker finds it lost.

#![warn(missing_docs)]

mod domain;
pub mod instruction;
pub mod log;
pub mod record;

pub use domain::{Domain, Line, Policy, Store, Tearing, Undurable};

/// Bytes of a cache line.
pub const LINE: usize = 64;
