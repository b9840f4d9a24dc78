// SPDX-License-Identifier: GPL-2.0

//! Virtual machines with persistent memory.
//!
//! [`Options`] say what machine, [`Vm::boot`] starts it, [`Vm::run`] runs a command line in it. The
//! memory of its devices is in files that QEMU maps shared: when QEMU is killed
//! ([`Vm::cut_power`]), what the guest's processors had stored is in the files, and a new machine
//! on the same files sees what a real one would see after the power came back, if its caches were
//! persistent.
//!
//! ```text
//!  this program                       QEMU                          guest
//!  Vm::run            ◄── control ──► virtio-serial ◄──►  guest/main     runs command lines, streams their output
//!  requests (thread)  ◄── host ─────► virtio-serial ◄──►  guest/host     asks for machine checks, devices, a power cut
//!  Monitor            ◄── QMP ──────► monitor
//!  Serial             ◄── file ────── serial port   ◄───  the kernel's log
//! ```

mod control;
mod machine;
mod monitor;
mod options;
mod serial;
pub mod terminal;
mod vm;

pub use control::{Ended, Loss};
pub use machine::Images;
pub use monitor::Monitor;
pub use options::{Cxl, Nvdimm, Options, VirtioPmem};
pub use serial::{LogFile, Report, Serial, reports};
pub use vm::{BootError, Plug, Vm, command_line};
