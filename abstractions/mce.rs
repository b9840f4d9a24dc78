// SPDX-License-Identifier: GPL-2.0

//! Machine checks: uncorrected memory errors that the CPU reports.
//!
//! The module registers one notifier on the MCE decode chain ([`Chain`]), which notifies each
//! [`Listener`]. A notifier for each device would deadlock: unregistering it, with the device lock held,
//! waits for the chain, and the NFIT provider's notifier on the chain takes the device lock to notify
//! the driver.
//!
//! C header: [`arch/x86/include/asm/mce.h`](srctree/arch/x86/include/asm/mce.h)

use super::scope::{
    Registered,
    Scope,
    Scoped, //
};
use core::ops::Range;
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

/// Receives memory errors.
pub(crate) trait Handler: Send + Sync {
    /// Handles an uncorrected error of the memory at the physical `addresses`.
    ///
    /// May sleep. It must not wait for a lock that is held where a [`Listener`] is created or dropped,
    /// such as a device lock.
    fn memory_error(&self, addresses: Range<u64>);
}

/// A node of the list of listeners, independent of the type of their handlers.
struct Node {
    /// The next node; null for the last one.
    next: *mut Node,
    /// Notifies the listener that has the node.
    #[cfg_attr(
        not(CONFIG_X86_MCE),
        expect(dead_code, reason = "there is no chain that calls it")
    )]
    notify: unsafe fn(*mut Node, Range<u64>),
}

/// The first node of the list; null if it is empty.
struct Head(*mut Node);

// SAFETY: Nodes are only accessed with the lock of `LISTENERS` held, which has the head.
unsafe impl Send for Head {}

kernel::sync::global_lock! {
    // SAFETY: It is used after `IS_READY` was found set, or from the chain. `Chain::new` initialises it
    // before it sets `IS_READY` and registers the notifier.
    unsafe(uninit) static LISTENERS: Mutex<Head> = Head(core::ptr::null_mut());
}

/// `LISTENERS` is initialised.
static IS_READY: Atomic<bool> = Atomic::new(false);

/// Notifies all listeners.
#[cfg(CONFIG_X86_MCE)]
fn notify_all(addresses: Range<u64>) {
    let head = LISTENERS.lock();
    let mut node = head.0;

    while !node.is_null() {
        // SAFETY: The lock is held, which a listener takes to remove its node from the list before it is
        // freed.
        unsafe {
            ((*node).notify)(node, addresses.clone());
            node = (*node).next;
        }
    }
}

/// The notifier of the module on the MCE decode chain. There is no chain but on x86.
///
/// # Invariants
///
/// `block` is registered, and `LISTENERS` is initialised.
#[pin_data(PinnedDrop)]
pub(crate) struct Chain {
    #[pin]
    block: Opaque<kernel::bindings::notifier_block>,
}

// SAFETY: The chain has its own lock, and any thread may unregister the notifier.
unsafe impl Send for Chain {}
// SAFETY: There are no methods that take a reference.
unsafe impl Sync for Chain {}

impl Chain {
    /// Registers the notifier. To be called when the module is loaded, before any listener is created.
    /// [`EBUSY`] for a second call.
    pub(crate) fn new() -> impl PinInit<Self, Error> {
        static IS_TAKEN: Atomic<bool> = Atomic::new(false);

        try_pin_init!(Self {
            _: {
                if IS_TAKEN.xchg(true, Relaxed) {
                    return Err(EBUSY);
                }
                // SAFETY: Only the first caller gets here.
                unsafe { LISTENERS.init() };
                IS_READY.store(true, Release);
            },
            // INVARIANT: `LISTENERS` is initialised above; `register` registers the notifier.
            block <- Opaque::ffi_init(|block: *mut kernel::bindings::notifier_block| {
                #[cfg(CONFIG_X86_MCE)]
                // SAFETY: `block` is valid for writes. It is pinned, and `drop` unregisters it.
                unsafe {
                    x86::register(block)
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
        // SAFETY: By the type invariant the notifier is registered. This waits for calls in progress.
        unsafe {
            super::bindings::mce_unregister_decode_chain(self.block.get());
        }
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
    /// `block` is valid for writes, and stays in place until it is unregistered.
    pub(super) unsafe fn register(block: *mut kernel::bindings::notifier_block) {
        // SAFETY: `# Safety` requires that `block` is valid for writes, and stays in place.
        unsafe {
            block.write(kernel::bindings::notifier_block {
                notifier_call: Some(callback),
                // After the kernel has unmapped the page (`MCE_PRIO_UC`), and after the NFIT provider.
                priority: bindings::mce_notifier_prios_MCE_PRIO_EDAC as c_int,
                ..Default::default()
            });
            bindings::mce_register_decode_chain(block);
        }
    }

    /// The physical bits of an address (`MCI_ADDR_PHYSADDR`). Bits above may be the key that the memory
    /// is encrypted with.
    fn physical_mask() -> u64 {
        // SAFETY: The kernel sets it at boot, and does not change it.
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

        // SAFETY: The chain is called with a valid record, which does not change during the call.
        let record = unsafe { &*mce };
        // SAFETY: `mce` is valid; the functions only read it.
        let is_lost = unsafe {
            bindings::mce_is_memory_error(mce)
                && !bindings::mce_is_correctable(mce)
                && bindings::mce_usable_address(mce)
        };

        if is_lost {
            // The least significant valid bit of the address (Intel SDM volume 3, "IA32_MCi_MISC MSRs").
            // AMD has other bits there. As the kernel does for Intel, limit it to a page.
            let size = 1_u64 << (record.misc & 0x3f).min(PAGE_SHIFT as u64);
            let start = record.addr & physical_mask() & !size.wrapping_sub(1);

            notify_all(start..start.saturating_add(size));
        }
        kernel::bindings::NOTIFY_DONE as c_int
    }
}

/// Notifies a handler of memory errors until it is unregistered.
///
/// # Invariants
///
/// `node` is on the list of `LISTENERS` while the listener is registered.
pub(crate) struct Listener<H: Handler> {
    node: Opaque<Node>,
    handler: Arc<H>,
}

// SAFETY: The node is only accessed with the lock of `LISTENERS` held. `H` is `Send` and `Sync`.
unsafe impl<H: Handler> Send for Listener<H> {}
// SAFETY: The node is only accessed with the lock of `LISTENERS` held. `H` is `Send` and `Sync`.
unsafe impl<H: Handler> Sync for Listener<H> {}

impl<H: Handler> Listener<H> {
    /// Registers `handler`. [`ENODEV`] if there is no [`Chain`], [`ENOMEM`].
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
            node: Opaque::new(Node {
                next: core::ptr::null_mut(),
                notify: Self::notify,
            }),
            handler,
        };

        Scoped::new(scope, this, |this| {
            let node = this.node.get();
            let mut head = LISTENERS.lock();

            // SAFETY: The node is not on the list yet, so nobody else accesses it. It stays in place until
            // it is unregistered.
            unsafe { (*node).next = head.0 };
            // INVARIANT: The node is on the list.
            head.0 = node;
            Ok(())
        })
    }

    /// # Safety
    ///
    /// `node` is a field of a listener that stays registered for the call.
    unsafe fn notify(node: *mut Node, addresses: Range<u64>) {
        let node = Opaque::cast_from(node);

        // SAFETY: `# Safety` requires that `node` is a field of a valid listener.
        let handler = unsafe { &(*kernel::container_of!(node, Self, node)).handler };

        handler.memory_error(addresses);
    }
}

// SAFETY: The node is removed from the list with the lock held that `notify_all` holds during its
// calls. Only a reference to the handler remains.
unsafe impl<H: Handler> Registered for Listener<H> {
    unsafe fn unregister(&self) {
        let own = self.node.get();
        let mut head = LISTENERS.lock();
        let mut place = &raw mut head.0;

        // SAFETY: The lock is held: nodes on the list belong to registered listeners, and `own` is one of
        // them, as the caller promises that the value is registered.
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
