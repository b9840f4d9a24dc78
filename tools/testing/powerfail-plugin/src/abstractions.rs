// SPDX-License-Identifier: GPL-2.0

//! QEMU's interface for plugins, version 7 (docs/devel/tcg-plugins.rst and qemu-plugin.h of QEMU 11.1).

#![deny(clippy::undocumented_unsafe_blocks, clippy::missing_safety_doc)]

use crate::watch::{Options, Watch};
use persistence::instruction::{Address, Kind, Segment, decode};
use persistence::{LINE, Line, Store, log::operation};
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::io;
use std::ptr;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

type Id = u64;
/// Callback of an instruction: the CPU, and the data that it was registered with.
type Executed = extern "C" fn(c_uint, *mut c_void);

/// `enum qemu_plugin_cb_flags`: which registers a callback may access.
const NO_REGISTERS: c_int = 0;
const READS_REGISTERS: c_int = 1;
const WRITES_REGISTERS: c_int = 2;
/// `QEMU_PLUGIN_MEM_W`.
const WRITES: c_int = 2;

/// `GByteArray` of GLib.
#[repr(C)]
struct Bytes {
    data: *mut u8,
    length: c_uint,
}

/// `GArray` of GLib.
#[repr(C)]
struct Array {
    data: *mut c_char,
    length: c_uint,
}

/// The begin of `qemu_plugin_reg_descriptor`.
#[repr(C)]
struct Descriptor {
    handle: *mut c_void,
    name: *const c_char,
}

// GLib is linked into QEMU.
unsafe extern "C" {
    fn g_byte_array_new() -> *mut Bytes;
    fn g_byte_array_set_size(array: *mut Bytes, length: c_uint) -> *mut Bytes;
    fn g_byte_array_append(array: *mut Bytes, data: *const u8, length: c_uint) -> *mut Bytes;
    fn g_byte_array_unref(array: *mut Bytes);
    fn g_array_get_element_size(array: *mut Array) -> c_uint;
    fn g_array_unref(array: *mut Array);

    fn qemu_plugin_register_vcpu_init_cb(id: Id, callback: Executed, data: *mut c_void);
    fn qemu_plugin_register_vcpu_tb_trans_cb(
        id: Id,
        callback: extern "C" fn(*mut c_void, *mut c_void),
        data: *mut c_void,
    );
    fn qemu_plugin_reset(id: Id, callback: extern "C" fn(*mut c_void), data: *mut c_void);
    fn qemu_plugin_tb_n_insns(tb: *const c_void) -> usize;
    fn qemu_plugin_tb_get_insn(tb: *const c_void, index: usize) -> *mut c_void;
    fn qemu_plugin_insn_vaddr(insn: *const c_void) -> u64;
    fn qemu_plugin_insn_data(insn: *const c_void, to: *mut c_void, length: usize) -> usize;
    fn qemu_plugin_register_vcpu_insn_exec_cb(
        insn: *mut c_void,
        callback: Executed,
        flags: c_int,
        data: *mut c_void,
    );
    fn qemu_plugin_register_vcpu_mem_cb(
        insn: *mut c_void,
        callback: extern "C" fn(c_uint, u32, u64, *mut c_void),
        flags: c_int,
        accesses: c_int,
        data: *mut c_void,
    );
    fn qemu_plugin_mem_size_shift(info: u32) -> c_uint;
    fn qemu_plugin_get_hwaddr(info: u32, address: u64) -> *mut c_void;
    fn qemu_plugin_hwaddr_is_io(address: *const c_void) -> bool;
    fn qemu_plugin_hwaddr_phys_addr(address: *const c_void) -> u64;
    fn qemu_plugin_translate_vaddr(address: u64, physical: *mut u64) -> bool;
    fn qemu_plugin_read_memory_hwaddr(physical: u64, to: *mut Bytes, length: usize) -> c_int;
    fn qemu_plugin_get_registers() -> *mut Array;
    fn qemu_plugin_read_register(handle: *mut c_void, to: *mut Bytes) -> bool;
    fn qemu_plugin_write_register(handle: *mut c_void, from: *mut Bytes) -> bool;
}

/// Version of the interface.
#[unsafe(no_mangle)]
pub static qemu_plugin_version: c_int = 7;

/// A `GByteArray`, freed when dropped.
struct Buffer(*mut Bytes);

impl Buffer {
    fn new() -> Self {
        // SAFETY: The function has no preconditions, and aborts rather than return null.
        Self(unsafe { g_byte_array_new() })
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: `self.0` is the array that `new` has made, which nobody else uses.
        let array = unsafe { &*self.0 };
        match array.length {
            0 => &[],
            // SAFETY: GLib keeps `length` initialized bytes at `data`, and the array does not change while it is borrowed.
            length => unsafe { std::slice::from_raw_parts(array.data, length as usize) },
        }
    }

    fn clear(&mut self) {
        // SAFETY: `self.0` is the array that `new` has made.
        unsafe { g_byte_array_set_size(self.0, 0) };
    }

    /// Reads guest memory at a physical address. Called by callbacks of a CPU.
    fn read_memory(&mut self, physical: u64, length: usize) -> Option<&[u8]> {
        self.clear();
        // SAFETY: `self.0` is the array that `new` has made; QEMU extends it. This runs in a callback of a CPU, which is what
        // the function needs.
        let result = unsafe { qemu_plugin_read_memory_hwaddr(physical, self.0, length) };
        (result == 0 && self.bytes().len() == length).then(|| self.bytes())
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: `self.0` is the array that `new` has made, and nobody else holds a reference.
        unsafe { g_byte_array_unref(self.0) };
    }
}

/// Handles of the registers that are used, which are the same for each CPU.
struct Registers {
    /// General registers, by their numbers in instructions.
    general: [usize; 16],
    fs: usize,
    gs: usize,
}

const GENERAL: [&str; 16] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15",
];
const RAX: usize = 0;
const RDX: usize = 2;

static ID: AtomicU64 = AtomicU64::new(0);
static START: AtomicU64 = AtomicU64::new(0);
static END: AtomicU64 = AtomicU64::new(0);
static REGISTERS: OnceLock<Registers> = OnceLock::new();
static OPTIONS: Mutex<Option<Options>> = Mutex::new(None);
static WATCH: Mutex<Option<Watch>> = Mutex::new(None);
/// Number of undurable lines: while it is 0, fences need no lock.
static UNDURABLE: AtomicUsize = AtomicUsize::new(0);

/// Stages of the begin.
static STAGE: AtomicU8 = AtomicU8::new(IDLE);
const IDLE: u8 = 0;
/// Translated code is being dropped.
const RESETTING: u8 = 1;
/// New code has callbacks.
const READY: u8 = 2;
/// The memory's contents are known.
const WATCHING: u8 = 3;

fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends QEMU: without its log, the plugin is worth nothing.
fn check<T>(result: io::Result<T>) -> T {
    result.unwrap_or_else(|error| {
        eprintln!("pmem_powerfail: the log can't be written: {error}");
        std::process::abort()
    })
}

/// QEMU calls this at its start. Returns other than 0 on failure.
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
    let words: Vec<String> = (0..usize::try_from(argc).unwrap_or(0))
        .map(|index| {
            // SAFETY: `index` is below `argc`, and `argv` has `argc` strings.
            unsafe { CStr::from_ptr(*argv.add(index)) }
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    let options = match Options::parse(words.iter().map(String::as_str)) {
        Ok(options) => options,
        Err(problem) => {
            eprintln!("pmem_powerfail: {problem}");
            return 1;
        }
    };
    ID.store(id, Ordering::Relaxed);
    START.store(options.range.start, Ordering::Relaxed);
    END.store(options.range.end, Ordering::Relaxed);
    *hold(&OPTIONS) = Some(options);
    // SAFETY: The functions have the types that version 7 of the interface calls, and are static.
    unsafe {
        qemu_plugin_register_vcpu_init_cb(id, cpu_made, ptr::null_mut());
        qemu_plugin_register_vcpu_tb_trans_cb(id, translated, ptr::null_mut());
    }
    0
}

extern "C" fn cpu_made(_cpu: c_uint, _data: *mut c_void) {
    REGISTERS.get_or_init(|| {
        // SAFETY: This is a CPU's init callback, where the function may be called. It returns an array, which is freed below.
        let array = unsafe { qemu_plugin_get_registers() };
        let mut found = Vec::new();
        // SAFETY: `array` is valid until it is freed. Its elements are descriptors of the size that GLib gives, which begin
        // with a handle and a name; names are strings that are never freed.
        unsafe {
            let size = g_array_get_element_size(array) as usize;
            for index in 0..(*array).length as usize {
                let descriptor = &*(*array).data.add(index * size).cast::<Descriptor>();
                let name = CStr::from_ptr(descriptor.name)
                    .to_string_lossy()
                    .into_owned();
                found.push((name, descriptor.handle as usize));
            }
            g_array_unref(array);
        }
        let handle = |name: &str| {
            let found = found.iter().find(|(known, _)| known == name);
            found.map_or(0, |(_, handle)| *handle)
        };
        Registers {
            general: GENERAL.map(handle),
            fs: handle("fs_base"),
            gs: handle("gs_base"),
        }
    });
}

/// Reads a register. Called by callbacks that read registers.
fn read_register(handle: usize) -> Option<u64> {
    let buffer = Buffer::new();
    // SAFETY: `handle` is one that QEMU returned. The callback was registered as one that reads registers.
    let read = handle != 0 && unsafe { qemu_plugin_read_register(handle as *mut c_void, buffer.0) };
    let bytes = buffer.bytes().get(..8).filter(|_| read)?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

/// Writes a register. Called by callbacks that write registers.
fn write_register(handle: usize, value: u64) {
    let buffer = Buffer::new();
    let bytes = value.to_le_bytes();
    // SAFETY: `bytes` has the 8 bytes of a general register; `handle` is one that QEMU returned. The callback was registered
    // as one that writes registers.
    unsafe {
        g_byte_array_append(buffer.0, bytes.as_ptr(), 8);
        qemu_plugin_write_register(handle as *mut c_void, buffer.0);
    }
}

/// An instruction that writes a line back.
struct WriteBack {
    address: Address,
    next: u64,
    ordered: bool,
}

/// Adds the callbacks to a block of instructions: before [`READY`], to marks only.
extern "C" fn translated(tb: *mut c_void, _data: *mut c_void) {
    let ready = STAGE.load(Ordering::Acquire) >= READY;
    // SAFETY: QEMU keeps `tb` valid during this callback.
    let count = unsafe { qemu_plugin_tb_n_insns(tb) };
    for index in 0..count {
        let mut bytes = [0; 15];
        // SAFETY: `index` is below the number of instructions of `tb`, which QEMU keeps valid during this callback. At most
        // `bytes.len()` bytes are copied.
        let (insn, at, length) = unsafe {
            let insn = qemu_plugin_tb_get_insn(tb, index);
            let length = qemu_plugin_insn_data(insn, bytes.as_mut_ptr().cast(), bytes.len());
            (insn, qemu_plugin_insn_vaddr(insn), length.min(bytes.len()))
        };
        let kind = decode(&bytes[..length]);
        let write_back = |address, ordered| {
            let next = at.wrapping_add(length as u64);
            let leaked: *mut WriteBack = Box::leak(Box::new(WriteBack {
                address,
                next,
                ordered,
            }));
            leaked.cast()
        };
        let address = at as *mut c_void;
        let callback: Option<(Executed, c_int, *mut c_void)> = match kind {
            Some(Kind::Mark) => Some((mark, WRITES_REGISTERS, ptr::null_mut())),
            _ if !ready => None,
            Some(Kind::Fence) => Some((fence, NO_REGISTERS, address)),
            Some(Kind::Locked) => Some((lock, NO_REGISTERS, address)),
            Some(Kind::WriteBack(to)) => {
                Some((written_back, READS_REGISTERS, write_back(to, false)))
            }
            Some(Kind::Flush(to)) => Some((written_back, READS_REGISTERS, write_back(to, true))),
            Some(Kind::NonTemporal) | None => None,
        };
        // SAFETY: QEMU keeps `insn` valid during this callback. The data are an address that is not dereferenced, null, or a
        // leaked `WriteBack` for `written_back`.
        unsafe {
            if let Some((callback, flags, data)) = callback {
                qemu_plugin_register_vcpu_insn_exec_cb(insn, callback, flags, data);
            }
            if ready {
                let stored = match kind {
                    Some(Kind::NonTemporal) => stored_non_temporal,
                    _ => stored,
                };
                qemu_plugin_register_vcpu_mem_cb(insn, stored, NO_REGISTERS, WRITES, address);
            }
        }
    }
}

extern "C" fn stored(cpu: c_uint, info: u32, address: u64, pc: *mut c_void) {
    store(cpu, info, address, pc as u64, false);
}

extern "C" fn stored_non_temporal(cpu: c_uint, info: u32, address: u64, pc: *mut c_void) {
    store(cpu, info, address, pc as u64, true);
}

/// Returns the offset of a physical address in the watched memory.
fn offset(physical: u64) -> Option<u64> {
    let inside =
        physical >= START.load(Ordering::Relaxed) && physical < END.load(Ordering::Relaxed);
    inside.then(|| physical - START.load(Ordering::Relaxed))
}

fn store(cpu: c_uint, info: u32, address: u64, pc: u64, non_temporal: bool) {
    // SAFETY: This is a callback of a memory access, with its `info` and `address`; the handle is used in the callback only.
    let (physical, length) = unsafe {
        let handle = qemu_plugin_get_hwaddr(info, address);
        if handle.is_null() || qemu_plugin_hwaddr_is_io(handle) {
            return;
        }
        (
            qemu_plugin_hwaddr_phys_addr(handle),
            1 << qemu_plugin_mem_size_shift(info),
        )
    };
    let in_page = ((4096 - address % 4096) as usize).min(length);
    pieces(cpu, physical, in_page, pc, non_temporal);
    if in_page < length {
        let mut physical = 0;
        let next = address.wrapping_add(in_page as u64);
        // SAFETY: This is a callback of a CPU; `physical` is a place for the result.
        if unsafe { qemu_plugin_translate_vaddr(next, &mut physical) } {
            pieces(cpu, physical, length - in_page, pc, non_temporal);
        }
    }
}

/// Records a store to one page as stores to its lines.
fn pieces(cpu: c_uint, physical: u64, length: usize, pc: u64, non_temporal: bool) {
    let Some(mut at) = offset(physical) else {
        return;
    };
    let end = at + length as u64;
    // Waits for `begin`, which reads the memory.
    let mut watch = hold(&WATCH);
    let Some(watch) = watch.as_mut() else { return };
    while at < end {
        let line_end = (at / LINE as u64 + 1) * LINE as u64;
        let store = Store {
            cpu: cpu as usize,
            at,
            length: (end.min(line_end) - at) as usize,
            pc,
            non_temporal,
        };
        if let Some(data) = line_at(at) {
            check(watch.store(&store, &data));
        }
        at = line_end;
    }
    UNDURABLE.store(watch.undurable(), Ordering::Release);
}

/// Reads the line at an offset, as CPUs see it.
fn line_at(at: u64) -> Option<Line> {
    let start = START.load(Ordering::Relaxed) + at / LINE as u64 * LINE as u64;
    Buffer::new().read_memory(start, LINE)?.try_into().ok()
}

extern "C" fn fence(cpu: c_uint, pc: *mut c_void) {
    if UNDURABLE.load(Ordering::Acquire) == 0 {
        return;
    }
    if let Some(watch) = hold(&WATCH).as_mut() {
        check(watch.fence(cpu as usize, pc as u64));
        UNDURABLE.store(watch.undurable(), Ordering::Release);
    }
}

extern "C" fn lock(cpu: c_uint, _pc: *mut c_void) {
    if UNDURABLE.load(Ordering::Acquire) == 0 {
        return;
    }
    if let Some(watch) = hold(&WATCH).as_mut() {
        watch.lock(cpu as usize);
    }
}

extern "C" fn written_back(cpu: c_uint, data: *mut c_void) {
    if UNDURABLE.load(Ordering::Acquire) == 0 {
        return;
    }
    // SAFETY: `data` is the leaked `WriteBack` that `translated` registered with this callback.
    let instruction: &'static WriteBack = unsafe { &*data.cast::<WriteBack>() };
    let Some(registers) = REGISTERS.get() else {
        return;
    };
    let address = instruction.address.compute(
        instruction.next,
        |number| read_register(*registers.general.get(number as usize)?),
        |segment| match segment {
            Segment::Fs => read_register(registers.fs),
            Segment::Gs => read_register(registers.gs),
        },
    );
    let Some(address) = address else { return };
    let mut physical = 0;
    // SAFETY: This is a callback of a CPU; `physical` is a place for the result.
    if !unsafe { qemu_plugin_translate_vaddr(address, &mut physical) } {
        return;
    }
    let Some(at) = offset(physical) else { return };
    let mut watch = hold(&WATCH);
    let (Some(watch), Some(data)) = (watch.as_mut(), line_at(at)) else {
        return;
    };
    let line = (at / LINE as u64) as u32;
    check(watch.write_back(cpu as usize, line, &data, instruction.ordered));
    UNDURABLE.store(watch.undurable(), Ordering::Release);
}

extern "C" fn mark(_cpu: c_uint, _data: *mut c_void) {
    let Some(registers) = REGISTERS.get() else {
        return;
    };
    let (rax, rdx) = (registers.general[RAX], registers.general[RDX]);
    let (Some(operation), Some(argument)) = (read_register(rax), read_register(rdx)) else {
        return;
    };
    let result = match operation {
        operation::WATCH => begin(),
        _ => match hold(&WATCH).as_mut() {
            Some(watch) => check(watch.mark(operation, argument)),
            None => 0,
        },
    };
    write_register(rax, result);
}

/// Takes the next step towards [`WATCHING`]; returns 1 there.
fn begin() -> u64 {
    match STAGE.load(Ordering::Acquire) {
        IDLE => {
            STAGE.store(RESETTING, Ordering::Release);
            // SAFETY: `id` is this plugin's, and `reset` a static function of the type that the interface calls.
            unsafe { qemu_plugin_reset(ID.load(Ordering::Relaxed), reset, ptr::null_mut()) };
            0
        }
        READY => {
            let mut watch = hold(&WATCH);
            let Some(options) = hold(&OPTIONS).take() else {
                return 0;
            };
            let length = (options.range.end - options.range.start) as usize;
            let mut buffer = Buffer::new();
            let memory = buffer
                .read_memory(options.range.start, length)
                .map(<[u8]>::to_vec);
            let Some(memory) = memory else {
                eprintln!(
                    "pmem_powerfail: there is no memory at {:#x}",
                    options.range.start
                );
                std::process::abort();
            };
            *watch = Some(check(Watch::new(options, memory)));
            STAGE.store(WATCHING, Ordering::Release);
            1
        }
        WATCHING => 1,
        _ => 0,
    }
}

extern "C" fn reset(_data: *mut c_void) {
    STAGE.store(READY, Ordering::Release);
    // SAFETY: `translated` has the type that the interface calls, and is a static function.
    unsafe {
        qemu_plugin_register_vcpu_tb_trans_cb(
            ID.load(Ordering::Relaxed),
            translated,
            ptr::null_mut(),
        );
    }
}
