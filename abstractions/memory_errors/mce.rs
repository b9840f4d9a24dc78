// SPDX-License-Identifier: GPL-2.0

//! Machine checks: memory errors that x86 CPUs report.
//!
//! C header: [`arch/x86/include/asm/mce.h`](srctree/arch/x86/include/asm/mce.h)

use super::{
    super::bindings,
    around,
    notify_all,
    Source, //
};
use kernel::{
    prelude::*,
    types::Opaque, //
};

/// The notifier on the MCE decode chain.
///
/// # Invariants
///
/// `block` is registered.
#[pin_data(PinnedDrop)]
pub(super) struct Notifier {
    #[pin]
    block: Opaque<kernel::bindings::notifier_block>,
}

// SAFETY: The chain has its own lock, and any thread may unregister the notifier.
unsafe impl Send for Notifier {}
// SAFETY: There are no methods that take a reference.
unsafe impl Sync for Notifier {}

impl Notifier {
    /// Registers the notifier.
    ///
    /// # Safety
    ///
    /// `LISTENERS` is initialised.
    pub(super) unsafe fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            // INVARIANT: It is registered.
            block <- Opaque::ffi_init(|block: *mut kernel::bindings::notifier_block| {
                // SAFETY: `block` is valid for writes. It is pinned, and `drop` unregisters it.
                unsafe {
                    block.write(kernel::bindings::notifier_block {
                        notifier_call: Some(callback),
                        // After the NFIT provider, and after the kernel has unmapped the page of
                        // an error that no access has met (`MCE_PRIO_UC`).
                        priority: bindings::mce_notifier_prios_MCE_PRIO_EDAC as c_int,
                        ..Default::default()
                    });
                    bindings::mce_register_decode_chain(block);
                }
            }),
        })
    }
}

#[pinned_drop]
impl PinnedDrop for Notifier {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariant the notifier is registered. This waits for calls in
        // progress.
        unsafe { bindings::mce_unregister_decode_chain(self.block.get()) };
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
        // The least significant valid bit of the address (Intel SDM volume 3, "IA32_MCi_MISC
        // MSRs"). AMD has other bits there. As the kernel does for Intel, limit it to a page.
        let unit = 1_u64 << (record.misc & 0x3f);

        notify_all(
            around(record.addr & physical_mask(), unit),
            Source::MachineCheck,
        );
    }
    kernel::bindings::NOTIFY_DONE as c_int
}
