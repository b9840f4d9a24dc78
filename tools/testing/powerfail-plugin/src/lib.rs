// SPDX-License-Identifier: GPL-2.0

//! A QEMU plugin that follows which stores to persistent memory are durable.
//!
//! ```text
//!  guest instruction             abstractions              watch                  persistence
//!  store, clwb, sfence, … ─────► physical address, ──────► crash points, ───────► Domain: what is on the medium
//!  mark (a no-op)         ◄───── registers          ◄───── the log of events ───► log: read by pmem-powerfail
//! ```
//!
//! Options of `-plugin file=…`: see [`watch::Options`]. Stores are followed from the guest's mark `WATCH` on; before that,
//! QEMU runs at its own speed.

#![deny(unsafe_code)]
#![warn(missing_docs)]

#[expect(unsafe_code, reason = "QEMU's interface is that of C")]
mod abstractions;
mod watch;
