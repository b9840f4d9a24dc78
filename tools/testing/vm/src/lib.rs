// SPDX-License-Identifier: GPL-2.0

//! Virtual machines with persistent memory.
//!
//! [`Options`] describe a machine, [`Vm::boot`] starts it, [`Vm::run`] runs a command line in the guest. The memory
//! of its devices is in files that QEMU maps shared: after QEMU is killed ([`Vm::cut_power`]), the files have what the
//! guest's processors had stored, and a new guest on the same files sees the same as a real machine after a power
//! failure if its caches were persistent. A virtio-pmem device with `volatile-cache` loses pages that no flush has made
//! durable.
//!
//! ```text
//!  this program                       QEMU                          guest
//!  Vm::run            ◄── control ──► virtio-serial ◄──►  guest/main     runs command lines, streams their output
//!  requests (thread)  ◄── host ─────► virtio-serial ◄──►  guest/host     requests machine checks, devices, a power cut
//!  Monitor            ◄── QMP ──────► monitor
//!  Poison (thread)    ◄── GDB ──────► debugger stub                      stops behind loads from poison
//!  Serial             ◄── file ────── serial port   ◄───  the kernel's log
//!  the checkout       ─── files ────► 9p (or virtiofsd) ─► /rust_pmem
//! ```

mod architecture;
mod control;
mod cper;
mod driver;
mod host_cache;
mod monitor;
mod options;
mod poison;
mod process;
mod qemu_args;
mod serial;
pub mod terminal;
mod virtiofs;
mod vm;

pub use architecture::Architecture;
pub use control::{Ended, Loss};
pub use cper::Severity;
pub use driver::Driver;
pub use monitor::Monitor;
pub use options::{Cxl, Nvdimm, Options, VirtioPmem};
pub use qemu_args::Images;
pub use serial::{LogFile, Report, Serial, reports};
pub use vm::{BootError, PowerSwitch, Vm, command_line};
