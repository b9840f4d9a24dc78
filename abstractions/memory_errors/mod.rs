// SPDX-License-Identifier: GPL-2.0

//! Uncorrected memory errors that the CPU or firmware reports.
//!
//! The module registers one notifier with each source ([`Chains`]), which notifies each
//! [`Listener`]. A notifier for each device would deadlock: unregistering it, with the device lock
//! held, waits for the chain, and the NFIT provider's notifier on the MCE decode chain takes the
//! device lock to notify the driver.

#[cfg(CONFIG_ACPI_APEI_GHES)]
mod ghes;
#[cfg(CONFIG_ACPI_APEI_GHES)]
mod waiting;
#[cfg(not(CONFIG_ACPI_APEI_GHES))]
use none as ghes;

#[cfg(CONFIG_X86_MCE)]
mod mce;
#[cfg(not(CONFIG_X86_MCE))]
use none as mce;

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

/// The reporter of a memory error.
#[derive(Clone, Copy)]
#[cfg_attr(
    not(all(CONFIG_X86_MCE, CONFIG_ACPI_APEI_GHES)),
    expect(dead_code, reason = "not all architectures have both")
)]
pub(crate) enum Source {
    /// The CPU, by a machine check.
    MachineCheck,
    /// Firmware, by an error record (APEI).
    Firmware,
}

/// Receives memory errors.
pub(crate) trait Handler: Send + Sync {
    /// Handles an uncorrected error of the memory at the physical `addresses`.
    ///
    /// May sleep. It must not wait for a lock that is held where a [`Listener`] is created or
    /// dropped, such as a device lock.
    fn memory_error(&self, addresses: Range<u64>, source: Source);
}

/// A node of the list of listeners, independent of the type of their handlers.
struct Node {
    /// The next node; null for the last one.
    next: *mut Node,
    /// Notifies the listener that has the node.
    #[cfg_attr(
        not(any(CONFIG_X86_MCE, CONFIG_ACPI_APEI_GHES)),
        expect(dead_code, reason = "there is no chain that calls it")
    )]
    notify: unsafe fn(*mut Node, Range<u64>, Source),
}

/// The first node of the list; null if it is empty.
struct Head(*mut Node);

// SAFETY: Nodes are only accessed with the lock of `LISTENERS` held, which has the head.
unsafe impl Send for Head {}

kernel::sync::global_lock! {
    // SAFETY: It is used after `IS_READY` was found set, or from a chain. `Chains::new` initialises
    // it before it sets `IS_READY` and registers the notifiers.
    unsafe(uninit) static LISTENERS: Mutex<Head> = Head(core::ptr::null_mut());
}

/// `LISTENERS` is initialised.
static IS_READY: Atomic<bool> = Atomic::new(false);

/// Notifies all listeners. May sleep.
#[cfg(any(CONFIG_X86_MCE, CONFIG_ACPI_APEI_GHES))]
fn notify_all(addresses: Range<u64>, source: Source) {
    let head = LISTENERS.lock();
    let mut node = head.0;

    while !node.is_null() {
        // SAFETY: The lock is held, which a listener takes to remove its node from the list before
        // it is freed.
        unsafe {
            ((*node).notify)(node, addresses.clone(), source);
            node = (*node).next;
        }
    }
}

/// Returns the physical addresses of an error in memory of the `unit` of bytes, a power of two,
/// around `address`. It is at most a page: the kernel gives up a page for any error in it.
#[cfg(any(CONFIG_X86_MCE, CONFIG_ACPI_APEI_GHES))]
fn around(address: u64, unit: u64) -> Range<u64> {
    let unit = unit.min(kernel::page::PAGE_SIZE as u64);
    let start = address & !unit.wrapping_sub(1);

    start..start.saturating_add(unit)
}

/// In place of a source that the kernel does not have.
#[cfg(not(all(CONFIG_X86_MCE, CONFIG_ACPI_APEI_GHES)))]
mod none {
    use kernel::prelude::*;

    #[pin_data]
    pub(super) struct Notifier {}

    impl Notifier {
        /// # Safety
        ///
        /// None; the others have requirements.
        pub(super) unsafe fn new() -> impl PinInit<Self, Error> {
            try_pin_init!(Self {})
        }
    }
}

/// The notifiers of the module, one for each source. They must not be leaked (`mem::forget`), as a
/// `Registration` of a driver must not be: the chains would call a module that is gone.
///
/// # Invariants
///
/// `LISTENERS` is initialised.
#[pin_data]
pub(crate) struct Chains {
    #[pin]
    _mce: mce::Notifier,
    #[pin]
    _ghes: ghes::Notifier,
}

impl Chains {
    /// Registers the notifiers. To be called when the module is loaded, before any listener is
    /// created. [`EBUSY`] for a second call.
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
            // INVARIANT: `LISTENERS` is initialised above.
            // SAFETY: This is the only call, and `LISTENERS` is initialised.
            _mce <- unsafe { mce::Notifier::new() },
            // SAFETY: This is the only call, and `LISTENERS` is initialised.
            _ghes <- unsafe { ghes::Notifier::new() },
        })
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
    /// Registers `handler`. [`ENODEV`] if there are no [`Chains`], [`ENOMEM`].
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

            // SAFETY: The node is not on the list yet, so nobody else accesses it. It stays in
            // place until it is unregistered.
            unsafe { (*node).next = head.0 };
            // INVARIANT: The node is on the list.
            head.0 = node;
            Ok(())
        })
    }

    /// # Safety
    ///
    /// `node` is a field of a listener that stays registered for the call.
    unsafe fn notify(node: *mut Node, addresses: Range<u64>, source: Source) {
        let node = Opaque::cast_from(node);

        // SAFETY: `# Safety` requires that `node` is a field of a valid listener.
        let handler = unsafe { &(*kernel::container_of!(node, Self, node)).handler };

        handler.memory_error(addresses, source);
    }
}

// SAFETY: The node is removed from the list with the lock held that `notify_all` holds during its
// calls. Only a reference to the handler remains.
unsafe impl<H: Handler> Registered for Listener<H> {
    unsafe fn unregister(&self) {
        let own = self.node.get();
        let mut head = LISTENERS.lock();
        let mut place = &raw mut head.0;

        // SAFETY: The lock is held, so nodes on the list belong to registered listeners. `own` is
        // one of them, because `Registered::unregister` requires that the value is registered.
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
