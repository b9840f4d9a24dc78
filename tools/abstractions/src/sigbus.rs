// SPDX-License-Identifier: GPL-2.0

//! SIGBUS as an answer rather than an end.
//!
//! After [`catch`], an access within one page of a mapping that the memory refuses is noted and
//! then goes on with a page of zeros put in its place, so that one pass over a mapping finds every
//! page that fails. For programs with one thread.

use std::io;
use std::mem;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};

/// One refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BusError {
    /// Why (`si_code`): 2 = nothing there (`BUS_ADRERR`), 4 = memory failed under this access
    /// (`BUS_MCEERR_AR`).
    pub code: i32,
    /// Where (`si_addr`).
    pub address: usize,
    /// How much: 2 to the power of this many bytes (`si_addr_lsb`), where the code is 4.
    pub lsb: i32,
}

/// The `si_code` of memory that failed under this access.
pub const MCEERR_AR: i32 = 4;
/// The `si_code` of a notice that memory has failed.
pub const MCEERR_AO: i32 = 5;

pub(crate) const PAGE: usize = 4096;

/// The page that is being accessed, 0 between accesses. The signal's own address does not always
/// name it: for a mapping by 2 MiB it may be the start of those.
static PAGE_AT: AtomicUsize = AtomicUsize::new(0);
/// A call of the kernel is under way in which memory may fail.
static IN_CALL: AtomicBool = AtomicBool::new(false);
static COUNT: AtomicUsize = AtomicUsize::new(0);
static CODE: AtomicI32 = AtomicI32::new(0);
static ADDRESS: AtomicUsize = AtomicUsize::new(0);
static LSB: AtomicI32 = AtomicI32::new(0);

static NOTICES: AtomicUsize = AtomicUsize::new(0);
static NOTICE_CODE: AtomicI32 = AtomicI32::new(0);
static NOTICE_ADDRESS: AtomicUsize = AtomicUsize::new(0);
static NOTICE_LSB: AtomicI32 = AtomicI32::new(0);

/// Has each SIGBUS of this process noted from now on.
pub fn catch() -> io::Result<()> {
    let handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) = handle;
    // SAFETY: All zeros is a valid `sigaction`; the handler has the signature that SA_SIGINFO asks
    // for, and lives for ever.
    let set = unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGBUS, &action, ptr::null_mut())
    };
    if set == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// What `access` to the page at address `page` is refused, if anything. Call [`catch`] first.
///
/// Only [`crate::Mapping`] calls it, with a page of its own.
pub(crate) fn catching<T>(page: usize, access: impl FnOnce() -> T) -> Result<T, BusError> {
    let before = COUNT.load(Ordering::SeqCst);
    PAGE_AT.store(page, Ordering::SeqCst);
    let value = access();
    PAGE_AT.store(0, Ordering::SeqCst);
    if COUNT.load(Ordering::SeqCst) == before {
        return Ok(value);
    }
    Err(BusError {
        code: CODE.load(Ordering::SeqCst),
        address: ADDRESS.load(Ordering::SeqCst),
        lsb: LSB.load(Ordering::SeqCst),
    })
}

/// How many notices have come of memory that failed while nobody accessed it, and the last of them.
pub fn notices() -> Option<(usize, BusError)> {
    let last = BusError {
        code: NOTICE_CODE.load(Ordering::SeqCst),
        address: NOTICE_ADDRESS.load(Ordering::SeqCst),
        lsb: NOTICE_LSB.load(Ordering::SeqCst),
    };
    Some((NOTICES.load(Ordering::SeqCst), last)).filter(|(count, _)| *count > 0)
}

/// Makes a call of the kernel in which a SIGBUS is a notice: it returns all the same.
pub(crate) fn in_call<T>(call: impl FnOnce() -> T) -> T {
    IN_CALL.store(true, Ordering::SeqCst);
    let value = call();
    IN_CALL.store(false, Ordering::SeqCst);
    value
}

/// The start of the kernel's `siginfo_t` for SIGBUS (`include/uapi/asm-generic/siginfo.h`).
#[repr(C)]
struct BusInfo {
    signo: i32,
    errno: i32,
    code: i32,
    address: *mut libc::c_void,
    lsb: i16,
}

extern "C" fn handle(_signal: i32, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: The kernel hands a valid `siginfo_t`, which is longer than `BusInfo` and begins so
    // for this signal.
    let info = unsafe { &*info.cast::<BusInfo>() };
    if info.code == MCEERR_AO || IN_CALL.load(Ordering::SeqCst) {
        // Nobody is accessing it: the accesses will tell.
        NOTICE_CODE.store(info.code, Ordering::SeqCst);
        NOTICE_ADDRESS.store(info.address as usize, Ordering::SeqCst);
        NOTICE_LSB.store(i32::from(info.lsb), Ordering::SeqCst);
        NOTICES.fetch_add(1, Ordering::SeqCst);
        return;
    }
    CODE.store(info.code, Ordering::SeqCst);
    ADDRESS.store(info.address as usize, Ordering::SeqCst);
    let memory_failed = info.code == MCEERR_AR;
    LSB.store(
        if memory_failed {
            i32::from(info.lsb)
        } else {
            0
        },
        Ordering::SeqCst,
    );
    COUNT.fetch_add(1, Ordering::SeqCst);
    let page = PAGE_AT.load(Ordering::SeqCst);
    if page == 0 {
        // Not an access of `catching`: it would be refused for ever.
        // SAFETY: _exit is async-signal-safe.
        unsafe { libc::_exit(128 + libc::SIGBUS) };
    }
    // SAFETY: mmap is async-signal-safe on Linux. The page it replaces is one of a `Mapping`, whose
    // bytes are only ever copied, so that no reference into it exists.
    let put = unsafe {
        libc::mmap(
            page as *mut libc::c_void,
            PAGE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
            -1,
            0,
        )
    };
    if put == libc::MAP_FAILED {
        // The access would be refused for ever.
        // SAFETY: _exit is async-signal-safe.
        unsafe { libc::_exit(128 + libc::SIGBUS) };
    }
}
