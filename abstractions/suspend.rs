// SPDX-License-Identifier: GPL-2.0

//! System suspend and hibernation. A suspend of a Xen guest and a kexec jump (`KEXEC_JUMP`) suspend
//! devices without these notifications.
//!
//! C header: [`include/linux/suspend.h`](srctree/include/linux/suspend.h)

#[cfg(CONFIG_PM_SLEEP)]
use super::bindings;
use super::scope::{
    Registered,
    Scope,
    Scoped, //
};
#[cfg(CONFIG_PM_SLEEP)]
use kernel::error::to_result;
use kernel::{
    prelude::*,
    sync::Arc,
    types::Opaque, //
};

/// Is notified before the system suspends and after it resumes.
pub(crate) trait SuspendHandler: Send + Sync {
    /// The system is about to suspend: tasks will be frozen, then devices suspended. May sleep.
    fn prepare(&self);

    /// The system has resumed, or did not suspend.
    fn resume(&self);
}

/// A registration on the chain of power-management notifiers.
///
/// # Invariants
///
/// While it is registered, `block` is on the chain with [`Self::callback`].
pub(crate) struct PmNotifier<H: SuspendHandler> {
    #[cfg_attr(
        not(CONFIG_PM_SLEEP),
        allow(dead_code, reason = "the system does not suspend")
    )]
    block: Opaque<kernel::bindings::notifier_block>,
    #[cfg_attr(
        not(CONFIG_PM_SLEEP),
        allow(dead_code, reason = "the system does not suspend")
    )]
    handler: Arc<H>,
}

// SAFETY: Any thread may register and unregister a notifier. `H` is `Send` and `Sync`.
unsafe impl<H: SuspendHandler> Send for PmNotifier<H> {}
// SAFETY: The chain has a lock of its own. `H` is `Send` and `Sync`.
unsafe impl<H: SuspendHandler> Sync for PmNotifier<H> {}

impl<H: SuspendHandler> PmNotifier<H> {
    /// Registers `handler`. [`ENOMEM`].
    #[inline(never)]
    pub(crate) fn new<'bound>(
        handler: Arc<H>,
        scope: &'bound Scope<'bound>,
    ) -> Result<Scoped<'bound, Self>>
    where
        H: 'bound,
    {
        let this = Self {
            block: Opaque::uninit(),
            handler,
        };

        Scoped::new(scope, this, Self::register)
    }

    #[cfg(not(CONFIG_PM_SLEEP))]
    fn register(&self) -> Result {
        Ok(())
    }

    #[cfg(CONFIG_PM_SLEEP)]
    fn register(&self) -> Result {
        let block = self.block.get();

        // INVARIANT: It is on the chain.
        // SAFETY: `block` is valid for writes, and stays in place while it is registered.
        to_result(unsafe {
            block.write(kernel::bindings::notifier_block {
                notifier_call: Some(Self::callback),
                ..Default::default()
            });
            bindings::register_pm_notifier(block)
        })
    }

    #[cfg(CONFIG_PM_SLEEP)]
    extern "C" fn callback(
        block: *mut kernel::bindings::notifier_block,
        event: c_ulong,
        _data: *mut c_void,
    ) -> c_int {
        // SAFETY: By the type invariant `block` is a field of `Self`. `unregister` waits for the
        // end of this function before the value is freed.
        let this = unsafe { &*kernel::container_of!(Opaque::cast_from(block), Self, block) };

        // CAST: The numbers of events are small.
        match event as u32 {
            bindings::PM_SUSPEND_PREPARE
            | bindings::PM_HIBERNATION_PREPARE
            | bindings::PM_RESTORE_PREPARE => this.handler.prepare(),
            bindings::PM_POST_SUSPEND
            | bindings::PM_POST_HIBERNATION
            | bindings::PM_POST_RESTORE => this.handler.resume(),
            _ => (),
        }
        kernel::bindings::NOTIFY_DONE as c_int
    }
}

// SAFETY: `unregister_pm_notifier` waits for calls in progress; from then on, there are none.
unsafe impl<H: SuspendHandler> Registered for PmNotifier<H> {
    unsafe fn unregister(&self) {
        #[cfg(CONFIG_PM_SLEEP)]
        // SAFETY: `Registered::unregister` requires that the value is registered, so the notifier
        // is on the chain. It only fails for one that is not.
        unsafe {
            bindings::unregister_pm_notifier(self.block.get())
        };
    }
}
