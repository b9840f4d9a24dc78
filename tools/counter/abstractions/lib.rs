// SPDX-License-Identifier: GPL-2.0

//! A plugin of QEMU that counts which instructions a measured operation takes.
//!
//! It counts from one `lfence; rdtsc` of a program to the next, and not from that one to the third:
//! what pmem-meter has between its brackets. At an `rdtsc` of a program without a fence, what was
//! counted is written out, if there is anything, and forgotten:
//!
//! ```text
//! section WINDOWS
//! ADDRESS INSTRUCTIONS        (address of a block of instructions in hexadecimal; for each block)
//! ```
//!
//! For one processor: there is one count. The interface is that of `qemu-plugin.h`, version 4.

#![deny(clippy::undocumented_unsafe_blocks, clippy::missing_safety_doc)]
#![warn(missing_docs)]

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

type Id = u64;
/// `enum qemu_plugin_cb_flags`: the callback reads no registers.
const NO_REGS: c_int = 0;

unsafe extern "C" {
    fn qemu_plugin_register_vcpu_tb_trans_cb(id: Id, callback: extern "C" fn(Id, *mut c_void));
    fn qemu_plugin_tb_n_insns(tb: *const c_void) -> usize;
    fn qemu_plugin_tb_vaddr(tb: *const c_void) -> u64;
    fn qemu_plugin_tb_get_insn(tb: *const c_void, index: usize) -> *mut c_void;
    fn qemu_plugin_insn_data(insn: *const c_void, to: *mut c_void, length: usize) -> usize;
    fn qemu_plugin_register_vcpu_tb_exec_cb(
        tb: *mut c_void,
        callback: extern "C" fn(c_uint, *mut c_void),
        flags: c_int,
        data: *mut c_void,
    );
    fn qemu_plugin_register_vcpu_insn_exec_cb(
        insn: *mut c_void,
        callback: extern "C" fn(c_uint, *mut c_void),
        flags: c_int,
        data: *mut c_void,
    );
}

/// The version of the interface that is meant.
#[unsafe(no_mangle)]
pub static qemu_plugin_version: c_int = 4;

/// Instructions that were translated together.
struct Block {
    address: u64,
    instructions: u64,
    /// How many of them were executed while it counted.
    executed: AtomicU64,
}

static COUNTING: AtomicBool = AtomicBool::new(false);
static WINDOWS: AtomicU64 = AtomicU64::new(0);
/// All that were ever translated; QEMU may call back for each of them as long as it runs.
static BLOCKS: Mutex<Vec<&'static Block>> = Mutex::new(Vec::new());
static OUT: OnceLock<Mutex<File>> = OnceLock::new();

/// Addresses of programs are below this.
const KERNEL: u64 = 1 << 63;
const LFENCE: &[u8] = &[0x0f, 0xae, 0xe8];
const RDTSC: &[u8] = &[0x0f, 0x31];

/// Called by QEMU at its start, with the option `out=FILE`; other than 0 where it can't work.
///
/// # Safety
///
/// `argv` has `argc` strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_plugin_install(
    id: Id,
    _info: *const c_void,
    argc: c_int,
    argv: *const *const c_char,
) -> c_int {
    for index in 0..usize::try_from(argc).unwrap_or(0) {
        // SAFETY: It is one of the strings that the caller promises.
        let word = unsafe { CStr::from_ptr(*argv.add(index)) }.to_string_lossy();
        let file = word
            .strip_prefix("out=")
            .and_then(|path| File::create(path).ok());
        if let Some(file) = file {
            let _ = OUT.set(Mutex::new(file));
        }
    }
    if OUT.get().is_none() {
        return 1;
    }
    // SAFETY: The callback has the signature that is asked for and lives for ever.
    unsafe { qemu_plugin_register_vcpu_tb_trans_cb(id, translated) };
    0
}

extern "C" fn translated(_id: Id, tb: *mut c_void) {
    // SAFETY: The block is valid during this callback.
    let (address, count) = unsafe { (qemu_plugin_tb_vaddr(tb), qemu_plugin_tb_n_insns(tb)) };
    let block: &'static Block = Box::leak(Box::new(Block {
        address,
        instructions: count as u64,
        executed: AtomicU64::new(0),
    }));
    BLOCKS
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(block);
    // SAFETY: The block is valid during this callback; the data live for ever and are shared.
    unsafe {
        let data = ptr::from_ref(block).cast_mut().cast();
        qemu_plugin_register_vcpu_tb_exec_cb(tb, executed, NO_REGS, data);
    }
    if address >= KERNEL {
        return;
    }
    let mut fenced = false;
    for index in 0..count {
        let mut bytes = [0; 3];
        // SAFETY: There are `count` instructions, which are valid during this callback; no more bytes
        // than there is room for are copied.
        let (insn, length) = unsafe {
            let insn = qemu_plugin_tb_get_insn(tb, index);
            let length = qemu_plugin_insn_data(insn, bytes.as_mut_ptr().cast(), bytes.len());
            (insn, length.min(bytes.len()))
        };
        if &bytes[..length] == RDTSC {
            let callback = if fenced { bracket } else { mark };
            // SAFETY: The instruction is valid during this callback; the callback takes no data.
            unsafe {
                qemu_plugin_register_vcpu_insn_exec_cb(insn, callback, NO_REGS, ptr::null_mut());
            }
        }
        fenced = &bytes[..length] == LFENCE;
    }
}

extern "C" fn executed(_cpu: c_uint, data: *mut c_void) {
    if COUNTING.load(Ordering::Relaxed) {
        // SAFETY: It is what `translated` gave: a block that lives for ever.
        let block = unsafe { &*data.cast::<Block>() };
        block
            .executed
            .fetch_add(block.instructions, Ordering::Relaxed);
    }
}

extern "C" fn bracket(_cpu: c_uint, _data: *mut c_void) {
    if !COUNTING.fetch_xor(true, Ordering::Relaxed) {
        WINDOWS.fetch_add(1, Ordering::Relaxed);
    }
}

extern "C" fn mark(_cpu: c_uint, _data: *mut c_void) {
    COUNTING.store(false, Ordering::Relaxed);
    let windows = WINDOWS.swap(0, Ordering::Relaxed);
    if windows == 0 {
        return;
    }
    let mut sums = BTreeMap::<u64, u64>::new();
    for block in BLOCKS.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        let executed = block.executed.swap(0, Ordering::Relaxed);
        if executed > 0 {
            *sums.entry(block.address).or_default() += executed;
        }
    }
    let mut text = format!("section {windows}\n");
    for (address, executed) in sums {
        let _ = writeln!(text, "{address:x} {executed}");
    }
    if let Some(out) = OUT.get() {
        let mut out = out.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = out.write_all(text.as_bytes());
    }
}
