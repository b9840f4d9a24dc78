// SPDX-License-Identifier: GPL-2.0

//! The unsafe code of the host tools, behind safe interfaces.
//!
//! A [`Mapping`] of a file, whose bytes may change or fault at any time, and what the kernel does with
//! its pages ([`pinning`]); SIGBUS as an error ([`sigbus`]); pages that a process supplies on demand
//! ([`userfault`]); what the page cache has ([`page_cache`]); cache write-back ([`cache`]) and the time-stamp
//! counter ([`tsc`]); io_uring ([`ring`], [`queue`]); ioctls of block devices ([`ioctl`], [`raw_ioctl`]) and of file systems ([`extents`], [`xattr`],
//! [`xfs_parents`]); errors that file systems report ([`fs_errors`]); leases
//! ([`lease`]); kernel modules ([`module`]); what runs between fork and exec, and signal masks
//! ([`process`]); child processes without privileges ([`sandbox`]); [`mark`] for the power-failure plugin.

#![warn(missing_docs)]
#![deny(clippy::undocumented_unsafe_blocks, clippy::missing_safety_doc)]

pub mod cache;
mod direct_buffer;
pub mod extents;
pub mod fs_errors;
pub mod ioctl;
pub mod lease;
pub mod mapping;
mod mark;
pub mod module;
pub mod page_cache;
pub mod pinning;
pub mod process;
pub mod queue;
pub mod raw_ioctl;
pub mod ring;
pub mod sandbox;
pub mod sigbus;
pub mod tsc;
pub mod userfault;
pub mod xattr;
pub mod xfs_parents;

pub use direct_buffer::DirectBuffer;
pub use mapping::Mapping;
pub use mark::mark;
