// SPDX-License-Identifier: GPL-2.0

//! A QEMU plugin that counts the instructions of measured operations, or notes which code of modules is executed.
//!
//! With the option `out=FILE`, it counts the instructions between two `lfence; rdtsc` of a program, the brackets of
//! pmem-meter: from the first to the second one, from the third to the fourth one, and so on. Each such window is counted
//! separately; windows without a kernel instruction are empty brackets and are ignored. At an `rdtsc` without a fence, the windows with the median
//! number of instructions are summed and written (others were interrupted), and a new section begins.
//!
//! ```text
//! section WINDOWS
//! ADDRESS INSTRUCTIONS LOCKED (for each block of instructions; the address is hexadecimal)
//! ```
//!
//! Locked instructions keep other processors from the memory. There is one count, so the guest must have one processor.
//!
//! With the option `blocks=FILE`, it writes each block of instructions of a kernel module when it is first executed, again if
//! other instructions are at its address:
//!
//! ```text
//! ADDRESS BYTES (both hexadecimal)
//! ```
//!
//! The interface is that of `qemu-plugin.h`, version 4.

#![deny(clippy::undocumented_unsafe_blocks, clippy::missing_safety_doc)]
#![warn(missing_docs)]

use persistence::instruction::{Kind, decode};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::ops::Range;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

type Id = u64;
/// `enum qemu_plugin_cb_flags`: the callback reads no registers.
const NO_REGS: c_int = 0;

unsafe extern "C" {
    fn qemu_plugin_register_vcpu_tb_trans_cb(id: Id, callback: extern "C" fn(Id, *mut c_void));
    fn qemu_plugin_tb_n_insns(tb: *const c_void) -> usize;
    fn qemu_plugin_tb_vaddr(tb: *const c_void) -> u64;
    fn qemu_plugin_tb_get_insn(tb: *const c_void, index: usize) -> *mut c_void;
    fn qemu_plugin_insn_vaddr(insn: *const c_void) -> u64;
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

/// Version of the interface.
#[unsafe(no_mangle)]
pub static qemu_plugin_version: c_int = 4;

/// A block of instructions that were translated together.
struct Block {
    address: u64,
    instructions: u64,
    locked: u64,
    /// Number of executions in this window.
    executed: AtomicU64,
}

static COUNTING: AtomicBool = AtomicBool::new(false);
/// Blocks executed in this window.
static TOUCHED: Mutex<Vec<&'static Block>> = Mutex::new(Vec::new());
/// Addresses of the `rdtsc` that follow a fence.
static FENCED: Mutex<BTreeSet<u64>> = Mutex::new(BTreeSet::new());
static WINDOWS: Mutex<BTreeMap<u64, Windows>> = Mutex::new(BTreeMap::new());
static OUT: OnceLock<Mutex<File>> = OnceLock::new();
/// Blocks of modules that were written.
static WRITTEN: Mutex<BTreeSet<(u64, Vec<u8>)>> = Mutex::new(BTreeSet::new());

/// Windows with the same number of instructions.
#[derive(Default)]
struct Windows {
    count: u64,
    /// Instructions, and locked ones, by the address of their block.
    sums: BTreeMap<u64, (u64, u64)>,
}

fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Addresses of user space are below this.
const KERNEL: u64 = 1 << 63;
/// Where x86-64 loads modules (Documentation/arch/x86/x86_64/mm.rst), with KASLR.
const MODULES: Range<u64> = 0xffff_ffff_c000_0000..0xffff_ffff_ff00_0000;
/// The longest instruction.
const INSTRUCTION: usize = 15;
const LFENCE: &[u8] = &[0x0f, 0xae, 0xe8];
const RDTSC: &[u8] = &[0x0f, 0x31];

/// QEMU calls this at its start, with one of the options `out=FILE` and `blocks=FILE`. Returns other than 0 on failure.
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
    let mut callback: extern "C" fn(Id, *mut c_void) = count;
    for index in 0..usize::try_from(argc).unwrap_or(0) {
        // SAFETY: `index` is below `argc`, and `argv` has `argc` strings.
        let word = unsafe { CStr::from_ptr(*argv.add(index)) }.to_string_lossy();
        let file = match word.split_once('=') {
            Some(("out", path)) => File::create(path),
            Some(("blocks", path)) => {
                callback = write_block;
                File::create(path)
            }
            _ => return 1,
        };
        let Ok(file) = file else {
            return 1;
        };
        let _ = OUT.set(Mutex::new(file));
    }
    if OUT.get().is_none() {
        return 1;
    }
    // SAFETY: `callback` has the type that qemu-plugin.h declares for this callback, and is a static function.
    unsafe { qemu_plugin_register_vcpu_tb_trans_cb(id, callback) };
    0
}

/// Copies an instruction of a block to `bytes`. Returns its handle, its address, and its bytes.
///
/// # Safety
///
/// `index` is below the number of instructions of `tb`, a block that QEMU is translating.
unsafe fn instruction(
    tb: *const c_void,
    index: usize,
    bytes: &mut [u8; INSTRUCTION],
) -> (*mut c_void, u64, &[u8]) {
    // SAFETY: By this function's requirement, `tb` has this instruction, and QEMU keeps both valid during the translation. At
    // most `bytes.len()` bytes are copied.
    let (insn, at, length) = unsafe {
        let insn = qemu_plugin_tb_get_insn(tb, index);
        let length = qemu_plugin_insn_data(insn, bytes.as_mut_ptr().cast(), bytes.len());
        (insn, qemu_plugin_insn_vaddr(insn), length.min(INSTRUCTION))
    };
    (insn, at, &bytes[..length])
}

/// Writes a block of a module. QEMU translates a block when it is first executed.
extern "C" fn write_block(_id: Id, tb: *mut c_void) {
    // SAFETY: QEMU keeps `tb` valid during this callback.
    let (address, count) = unsafe { (qemu_plugin_tb_vaddr(tb), qemu_plugin_tb_n_insns(tb)) };
    if !MODULES.contains(&address) {
        return;
    }
    let mut bytes = Vec::new();
    for index in 0..count {
        let mut buffer = [0; INSTRUCTION];
        // SAFETY: `index` is below the number of instructions of `tb`, which QEMU is translating.
        let (_, _, instruction) = unsafe { instruction(tb, index, &mut buffer) };
        bytes.extend_from_slice(instruction);
    }
    let mut line = format!("{address:x} ");
    for byte in &bytes {
        let _ = write!(line, "{byte:02x}");
    }
    line.push('\n');
    if let Some(out) = OUT
        .get()
        .filter(|_| hold(&WRITTEN).insert((address, bytes)))
    {
        let _ = hold(out).write_all(line.as_bytes());
    }
}

/// Has the instructions of a block counted.
extern "C" fn count(_id: Id, tb: *mut c_void) {
    // SAFETY: QEMU keeps `tb` valid during this callback.
    let (address, count) = unsafe { (qemu_plugin_tb_vaddr(tb), qemu_plugin_tb_n_insns(tb)) };
    let (mut fenced, mut locked) = (false, 0);
    for index in 0..count {
        let mut bytes = [0; INSTRUCTION];
        // SAFETY: `index` is below the number of instructions of `tb`, which QEMU is translating.
        let (insn, at, bytes) = unsafe { instruction(tb, index, &mut bytes) };
        locked += u64::from(decode(bytes) == Some(Kind::Locked));
        if bytes == RDTSC && address < KERNEL {
            let mut known = hold(&FENCED);
            if fenced {
                known.insert(at);
            }
            // A block ends after the fence if a timer of QEMU expires there: then the `rdtsc` begins another block.
            let callback = if known.contains(&at) { bracket } else { mark };
            // SAFETY: QEMU keeps `insn` valid during this callback; the callback ignores its data pointer.
            unsafe {
                qemu_plugin_register_vcpu_insn_exec_cb(insn, callback, NO_REGS, ptr::null_mut());
            }
        }
        fenced = bytes == LFENCE;
    }
    let block: &'static Block = Box::leak(Box::new(Block {
        address,
        instructions: count as u64,
        locked,
        executed: AtomicU64::new(0),
    }));
    // SAFETY: QEMU keeps `tb` valid during this callback; `block` is leaked, so the data pointer stays valid.
    unsafe {
        let data = ptr::from_ref(block).cast_mut().cast();
        qemu_plugin_register_vcpu_tb_exec_cb(tb, executed, NO_REGS, data);
    }
}

extern "C" fn executed(_cpu: c_uint, data: *mut c_void) {
    if !COUNTING.load(Ordering::Relaxed) {
        return;
    }
    // SAFETY: `data` is the leaked block that `translated` registered with this callback.
    let block: &'static Block = unsafe { &*data.cast::<Block>() };
    if block.executed.fetch_add(1, Ordering::Relaxed) == 0 {
        hold(&TOUCHED).push(block);
    }
}

extern "C" fn bracket(_cpu: c_uint, _data: *mut c_void) {
    if !COUNTING.fetch_xor(true, Ordering::Relaxed) {
        return;
    }
    let blocks: Vec<(&Block, u64)> = hold(&TOUCHED)
        .drain(..)
        .map(|block| (block, block.executed.swap(0, Ordering::Relaxed)))
        .collect();
    if blocks.iter().all(|(block, _)| block.address < KERNEL) {
        return;
    }
    let instructions = |(block, times): &(&Block, u64)| block.instructions * times;
    let total = blocks.iter().map(instructions).sum();
    let mut windows = hold(&WINDOWS);
    let same = windows.entry(total).or_default();
    same.count += 1;
    for (block, times) in blocks {
        let (instructions, locked) = same.sums.entry(block.address).or_default();
        *instructions += block.instructions * times;
        *locked += block.locked * times;
    }
}

extern "C" fn mark(_cpu: c_uint, _data: *mut c_void) {
    let windows = std::mem::take(&mut *hold(&WINDOWS));
    let half = windows
        .values()
        .map(|same| same.count)
        .sum::<u64>()
        .div_ceil(2);
    let mut before = 0;
    let median = windows.values().find(|same| {
        before += same.count;
        before >= half
    });
    let Some(median) = median else {
        return;
    };
    let mut text = format!("section {}\n", median.count);
    for (address, (instructions, locked)) in &median.sums {
        let _ = writeln!(text, "{address:x} {instructions} {locked}");
    }
    if let Some(out) = OUT.get() {
        let _ = hold(out).write_all(text.as_bytes());
    }
}
