// SPDX-License-Identifier: GPL-2.0

//! The only code of the host tools that the compiler can't check.
//!
//! Three things need it: a [`Mapping`] of a file, whose bytes may change or fault at any time; the
//! report of such a fault ([`sigbus`]); and instructions of the processor ([`cache`]). A fourth,
//! [`process::die_with_parent`], runs between fork and exec.

#![warn(missing_docs)]
#![deny(clippy::undocumented_unsafe_blocks, clippy::missing_safety_doc)]

pub mod cache;
pub mod mapping;
pub mod process;
pub mod sigbus;

pub use mapping::Mapping;
