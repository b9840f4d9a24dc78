// SPDX-License-Identifier: GPL-2.0

//! The only code of the host tools that the compiler can't check.
//!
//! These need it: a [`Mapping`] of a file, whose bytes may change or fault at any time; what the
//! kernel does with its pages ([`pinning`]); memory whose pages come late ([`userfault`]); the report of a fault ([`sigbus`]); instructions of the
//! processor ([`cache`], [`tsc`]); requests by io_uring ([`ring`]); ioctl requests to block
//! devices ([`ioctl`]) and to file systems ([`extents`], [`xattr`]); what runs between fork and exec, and the mask of signals
//! ([`process`]).

#![warn(missing_docs)]
#![deny(clippy::undocumented_unsafe_blocks, clippy::missing_safety_doc)]

pub mod cache;
mod direct_buffer;
pub mod extents;
pub mod ioctl;
pub mod lease;
pub mod mapping;
pub mod pinning;
pub mod process;
pub mod ring;
pub mod sigbus;
pub mod tsc;
pub mod userfault;
pub mod xattr;

pub use direct_buffer::DirectBuffer;
pub use mapping::Mapping;
