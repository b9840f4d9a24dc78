// SPDX-License-Identifier: GPL-2.0

//! SIGBUS as an error rather than the end of the process.
//!
//! After [`catch`], the signal handler records the SIGBUS of an access and maps a zero page there, so
//! the access completes. One pass over a mapping thus finds every page that fails. Only for programs
//! with one thread that accesses mappings.

use std::io;
use std::mem;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};

/// A SIGBUS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BusError {
    /// `si_code`: 2 (`BUS_ADRERR`) if no page is there, 4 ([`MCEERR_AR`]) or 5 ([`MCEERR_AO`]).
    pub code: i32,
    /// `si_addr`.
    pub address: usize,
    /// `si_addr_lsb`, the binary logarithm of the size of the poison in bytes, or 0.
    pub lsb: i32,
}

/// `BUS_MCEERR_AR`: an access consumed poison, action required.
pub const MCEERR_AR: i32 = 4;
/// `BUS_MCEERR_AO`: memory failed without an access, action optional.
pub const MCEERR_AO: i32 = 5;

pub(crate) const PAGE: usize = 4096;

/// The page that is being accessed, or 0. `si_addr` may not be in it: for a huge page it may be the
/// start of that.
static PAGE_AT: AtomicUsize = AtomicUsize::new(0);
/// A system call is in progress that may raise SIGBUS without an access.
static IN_CALL: AtomicBool = AtomicBool::new(false);
static COUNT: AtomicUsize = AtomicUsize::new(0);
static CODE: AtomicI32 = AtomicI32::new(0);
static ADDRESS: AtomicUsize = AtomicUsize::new(0);
static LSB: AtomicI32 = AtomicI32::new(0);

static NOTICES: AtomicUsize = AtomicUsize::new(0);
static NOTICE_CODE: AtomicI32 = AtomicI32::new(0);
static NOTICE_ADDRESS: AtomicUsize = AtomicUsize::new(0);
static NOTICE_LSB: AtomicI32 = AtomicI32::new(0);

/// Installs the signal handler.
pub fn catch() -> io::Result<()> {
    let handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) = handle;
    // SAFETY: Zero bytes are a valid `sigaction`. `handle` has the signature that SA_SIGINFO
    // requires, and makes only async-signal-safe calls.
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

/// Runs `access`, which accesses the page at address `page`, and returns its SIGBUS as an error.
///
/// Needs [`catch`]. Only [`crate::Mapping`] calls it, with one of its pages.
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

/// Returns the number of SIGBUS that no access raised, and the last one.
pub fn notices() -> Option<(usize, BusError)> {
    let last = BusError {
        code: NOTICE_CODE.load(Ordering::SeqCst),
        address: NOTICE_ADDRESS.load(Ordering::SeqCst),
        lsb: NOTICE_LSB.load(Ordering::SeqCst),
    };
    Some((NOTICES.load(Ordering::SeqCst), last)).filter(|(count, _)| *count > 0)
}

/// Makes a system call that may raise SIGBUS and returns nevertheless.
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
    // SAFETY: The kernel passes a valid `siginfo_t`, which for SIGBUS starts like `BusInfo`.
    let info = unsafe { &*info.cast::<BusInfo>() };
    if info.code == MCEERR_AO || IN_CALL.load(Ordering::SeqCst) {
        // No access raised it. A later access to the page raises its own.
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
        // Not an access of `catching`: to return would repeat it forever.
        // SAFETY: _exit is async-signal-safe.
        unsafe { libc::_exit(128 + libc::SIGBUS) };
    }
    // SAFETY: mmap(2) is a plain system call on Linux, so it is async-signal-safe. Only
    // `Mapping` calls `catching`, with one of its pages, and no reference to those bytes exists.
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
        // To return would repeat the access forever.
        // SAFETY: _exit is async-signal-safe.
        unsafe { libc::_exit(128 + libc::SIGBUS) };
    }
}
