// SPDX-License-Identifier: GPL-2.0

//! Machine checks: what the platform says of memory that it can't read.
//!
//! C header: [`arch/x86/include/asm/mce.h`](srctree/arch/x86/include/asm/mce.h)

use core::ops::{
    Deref,
    Range, //
};
use kernel::{
    prelude::*,
    types::Opaque, //
};

/// Who is told of memory errors.
pub(crate) trait Handler: Send + Sync {
    /// The memory at the physical `addresses` has an uncorrected error; `listed` if its provider has
    /// put it on the bus's list (the NFIT provider does).
    ///
    /// May sleep. Do not wait for anything that is held when the [`Listener`] is dropped.
    fn memory_error(&self, addresses: Range<u64>, listed: bool);
}

/// A handler that hears of machine checks until it is dropped.
///
/// Only on x86; on other architectures it hears nothing.
#[pin_data(PinnedDrop)]
pub(crate) struct Listener<H: Handler> {
    #[pin]
    block: Opaque<kernel::bindings::notifier_block>,
    #[pin]
    handler: H,
}

// SAFETY: The notifier block is the chain's, which has its own lock; `H` is `Send` and `Sync`.
unsafe impl<H: Handler> Send for Listener<H> {}
// SAFETY: As above.
unsafe impl<H: Handler> Sync for Listener<H> {}

impl<H: Handler> Deref for Listener<H> {
    type Target = H;

    #[inline]
    fn deref(&self) -> &H {
        &self.handler
    }
}

#[cfg(CONFIG_X86_MCE)]
mod chain {
    use super::{
        super::bindings,
        *, //
    };

    impl<H: Handler> Listener<H> {
        /// Initialises the handler, then begins to tell it.
        pub(crate) fn new(handler: impl PinInit<H, Error>) -> impl PinInit<Self, Error> {
            try_pin_init!(Self {
                // First, as it is called from the moment of the registration.
                handler <- handler,
                block <- Opaque::ffi_init(|block: *mut kernel::bindings::notifier_block| {
                    // SAFETY: `block` is valid for writes, and stays where it is until `drop`.
                    unsafe {
                        block.write(kernel::bindings::notifier_block {
                            notifier_call: Some(Self::callback),
                            // After the memory has been taken out of use (`MCE_PRIO_UC`) and the NFIT
                            // provider has had its turn.
                            priority: bindings::mce_notifier_prios_MCE_PRIO_EDAC as c_int,
                            ..Default::default()
                        });
                        bindings::mce_register_decode_chain(block);
                    }
                }),
            })
        }

        extern "C" fn callback(
            block: *mut kernel::bindings::notifier_block,
            _severity: c_ulong,
            mce: *mut c_void,
        ) -> c_int {
            let mce = mce.cast::<bindings::mce>();
            let block = Opaque::cast_from(block);

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
                // "IA32_MCi_MISC MSRs").
                let size = 1_u64 << (record.misc & 0x3f);
                let start = record.addr & !size.wrapping_sub(1);
                // SAFETY: `block` is a field of a listener that is not being dropped:
                // unregistering waits for the chain.
                let handler = unsafe { &(*kernel::container_of!(block, Self, block)).handler };

                handler.memory_error(
                    start..start.saturating_add(size),
                    record.kflags & bindings::MCE_HANDLED_NFIT != 0,
                );
            }
            kernel::bindings::NOTIFY_DONE as c_int
        }
    }

    #[pinned_drop]
    impl<H: Handler> PinnedDrop for Listener<H> {
        fn drop(self: Pin<&mut Self>) {
            // SAFETY: It was registered by `new`.
            unsafe { bindings::mce_unregister_decode_chain(self.block.get()) };
        }
    }
}

#[cfg(not(CONFIG_X86_MCE))]
mod chain {
    use super::*;

    impl<H: Handler> Listener<H> {
        /// Initialises the handler.
        pub(crate) fn new(handler: impl PinInit<H, Error>) -> impl PinInit<Self, Error> {
            try_pin_init!(Self {
                handler <- handler,
                block: Opaque::uninit(),
            })
        }
    }

    #[pinned_drop]
    impl<H: Handler> PinnedDrop for Listener<H> {
        fn drop(self: Pin<&mut Self>) {}
    }
}
