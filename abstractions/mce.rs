// SPDX-License-Identifier: GPL-2.0

//! Machine checks: what the platform says of memory that it can't read.
//!
//! The module is on the kernel's chain from its start to its end ([`Chain`]), and passes on what it is
//! told to each [`Listener`]. A listener of its own for each device would be taken off the chain under
//! the device's lock, for which others on the chain wait: the NFIT provider's notice to the driver.
//!
//! C header: [`arch/x86/include/asm/mce.h`](srctree/arch/x86/include/asm/mce.h)

use super::scope::{
    Registered,
    Scope,
    Scoped, //
};
use core::ops::{
    Deref,
    Range, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Relaxed,
            Release, //
        },
        Arc, //
    },
    types::Opaque, //
};

/// Who is told of memory errors.
pub(crate) trait Handler: Send + Sync {
    /// The memory at the physical `addresses` has an uncorrected error; `listed` if its provider has
    /// put it on the bus's list (the NFIT provider does).
    ///
    /// May sleep. Do not wait for anything that is held when a [`Listener`] is made or dropped, such
    /// as a device's lock.
    fn memory_error(&self, addresses: Range<u64>, listed: bool);
}

/// What all listeners have in common.
struct Link {
    /// The next one; null for the last.
    next: *mut Link,
    /// Tells the listener that the link is a part of.
    tell: unsafe fn(*mut Link, Range<u64>, bool),
}

/// The first of the listeners; null if there is none.
struct First(*mut Link);

// SAFETY: The links are only followed with the lock held that has the first one.
unsafe impl Send for First {}

kernel::sync::global_lock! {
    // SAFETY: Used only where `IS_READY` was found set, and by what the chain calls: `Chain::new`
    // initialises it before it sets the one and joins the other.
    unsafe(uninit) static LISTENERS: Mutex<First> = First(core::ptr::null_mut());
}

/// `LISTENERS` is initialised.
static IS_READY: Atomic<bool> = Atomic::new(false);

/// Tells all listeners.
#[cfg(CONFIG_X86_MCE)]
fn tell_all(addresses: Range<u64>, listed: bool) {
    let first = LISTENERS.lock();
    let mut link = first.0;

    while !link.is_null() {
        // SAFETY: A link is on the list as long as its listener is there; the lock is held.
        unsafe {
            ((*link).tell)(link, addresses.clone(), listed);
            link = (*link).next;
        }
    }
}

/// The module's place on the chain of those who are told of machine checks. There is none but on x86.
///
/// # Invariants
///
/// `block` is on the chain, and `LISTENERS` is initialised.
#[pin_data(PinnedDrop)]
pub(crate) struct Chain {
    #[pin]
    block: Opaque<kernel::bindings::notifier_block>,
}

// SAFETY: The notifier block is the chain's, which has its own lock.
unsafe impl Send for Chain {}
// SAFETY: As above.
unsafe impl Sync for Chain {}

impl Chain {
    /// Joins the chain: to be done when the module is loaded, before any listener is made, and undone
    /// last. [`EBUSY`] if it has been done.
    pub(crate) fn new() -> impl PinInit<Self, Error> {
        static IS_TAKEN: Atomic<bool> = Atomic::new(false);

        try_pin_init!(Self {
            _: {
                if IS_TAKEN.xchg(true, Relaxed) {
                    return Err(EBUSY);
                }
                // SAFETY: Only the first caller comes here.
                unsafe { LISTENERS.init() };
                IS_READY.store(true, Release);
            },
            // INVARIANT: Joined here, after the list was initialised.
            block <- Opaque::ffi_init(|block: *mut kernel::bindings::notifier_block| {
                #[cfg(CONFIG_X86_MCE)]
                // SAFETY: `block` is valid for writes, and stays where it is until `drop`.
                unsafe {
                    x86::join(block)
                };
                #[cfg(not(CONFIG_X86_MCE))]
                let _ = block;
            }),
        })
    }
}

#[pinned_drop]
impl PinnedDrop for Chain {
    fn drop(self: Pin<&mut Self>) {
        #[cfg(CONFIG_X86_MCE)]
        // SAFETY: By the type invariant it is on the chain. This waits for those who are being told.
        unsafe {
            super::bindings::mce_unregister_decode_chain(self.block.get())
        };
    }
}

#[cfg(CONFIG_X86_MCE)]
mod x86 {
    use super::{
        super::bindings,
        *, //
    };
    use kernel::page::PAGE_SHIFT;

    /// # Safety
    ///
    /// `block` is valid for writes, and stays where it is until it has left the chain.
    pub(super) unsafe fn join(block: *mut kernel::bindings::notifier_block) {
        // SAFETY: `block` is valid for writes, and stays where it is until it has left the chain.
        unsafe {
            block.write(kernel::bindings::notifier_block {
                notifier_call: Some(callback),
                // After the memory has been taken out of use (`MCE_PRIO_UC`) and the NFIT provider has
                // had its turn.
                priority: bindings::mce_notifier_prios_MCE_PRIO_EDAC as c_int,
                ..Default::default()
            });
            bindings::mce_register_decode_chain(block);
        }
    }

    /// The bits of an address that are physical: `MCI_ADDR_PHYSADDR`. Those above may be the key that
    /// the memory is encrypted with.
    fn physical_mask() -> u64 {
        // SAFETY: Set at boot, and not changed since.
        let bits = unsafe { kernel::bindings::boot_cpu_data.x86_phys_bits };

        u64::MAX
            .checked_shr(64_u32.saturating_sub(bits.into()))
            .unwrap_or(u64::MAX)
    }

    extern "C" fn callback(
        _block: *mut kernel::bindings::notifier_block,
        _severity: c_ulong,
        mce: *mut c_void,
    ) -> c_int {
        let mce = mce.cast::<bindings::mce>();

        // SAFETY: The chain is called with a machine check's record.
        let record = unsafe { &*mce };
        // SAFETY: As above; the functions only look at it.
        let lost = unsafe {
            bindings::mce_is_memory_error(mce)
                && !bindings::mce_is_correctable(mce)
                && bindings::mce_usable_address(mce)
        };

        if lost {
            // The least significant valid bit of the address (Intel SDM volume 3,
            // "IA32_MCi_MISC MSRs"). AMD has other bits there: as the kernel does for Intel, none
            // above that of a page is believed.
            let size = 1_u64 << (record.misc & 0x3f).min(PAGE_SHIFT as u64);
            let start = record.addr & physical_mask() & !size.wrapping_sub(1);

            tell_all(
                start..start.saturating_add(size),
                record.kflags & bindings::MCE_HANDLED_NFIT != 0,
            );
        }
        kernel::bindings::NOTIFY_DONE as c_int
    }
}

/// A handler that hears of machine checks until it is unregistered.
///
/// # Invariants
///
/// `link` is on the list while the listener is registered.
pub(crate) struct Listener<H: Handler> {
    link: Opaque<Link>,
    handler: Arc<H>,
}

// SAFETY: The link is followed with a lock held; `H` is `Send` and `Sync`.
unsafe impl<H: Handler> Send for Listener<H> {}
// SAFETY: As above.
unsafe impl<H: Handler> Sync for Listener<H> {}

impl<H: Handler> Listener<H> {
    /// Begins to tell the handler. [`ENODEV`] if there is no [`Chain`], [`ENOMEM`].
    pub(crate) fn new<'bound>(
        handler: Arc<H>,
        scope: &'bound Scope<'bound>,
    ) -> Result<Scoped<'bound, Self>>
    where
        H: 'bound,
    {
        if !IS_READY.load(Acquire) {
            return Err(ENODEV);
        }
        let this = Self {
            link: Opaque::new(Link {
                next: core::ptr::null_mut(),
                tell: Self::tell,
            }),
            handler,
        };

        Scoped::new(scope, this, |this| {
            let link = this.link.get();
            let mut first = LISTENERS.lock();

            // SAFETY: The link stays where it is while it is on the list, and the lock is held.
            unsafe { (*link).next = first.0 };
            // INVARIANT: It is on the list when it is registered.
            first.0 = link;
            Ok(())
        })
    }

    /// # Safety
    ///
    /// `link` is a field of a listener that is registered, and stays so for the call.
    unsafe fn tell(link: *mut Link, addresses: Range<u64>, listed: bool) {
        let link = Opaque::cast_from(link);

        // SAFETY: The link is a field of a listener that is there.
        let handler = unsafe { &(*kernel::container_of!(link, Self, link)).handler };

        handler.memory_error(addresses, listed);
    }
}

// SAFETY: The link is off the list, under the lock that the handler is told with. What is left is the
// handler.
unsafe impl<H: Handler> Registered for Listener<H> {
    unsafe fn unregister(&self) {
        let own = self.link.get();
        let mut first = LISTENERS.lock();
        let mut place = &raw mut first.0;

        // SAFETY: The lock is held, with which the links are those of listeners that are there, this
        // one among them.
        unsafe {
            while *place != own && !(*place).is_null() {
                place = &raw mut (**place).next;
            }
            if *place == own {
                *place = (*own).next;
            }
        }
    }
}

impl<H: Handler> Deref for Listener<H> {
    type Target = H;

    #[inline]
    fn deref(&self) -> &H {
        &self.handler
    }
}
