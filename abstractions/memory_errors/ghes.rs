// SPDX-License-Identifier: GPL-2.0

//! Memory errors that firmware reports: records of generic hardware error sources (ACPI
//! specification, "ACPI Platform Error Interfaces").
//!
//! For memory with `struct page`s the kernel's memory-failure recovery reports them as well, a page
//! each.
//!
//! C header: [`include/acpi/ghes.h`](srctree/include/acpi/ghes.h)

use super::{
    super::bindings,
    around,
    notify_all,
    waiting::Waiting,
    Source, //
};
use kernel::{
    prelude::*,
    static_lock_class,
    types::Opaque, //
};

/// The notifier on the chain of memory errors from firmware.
///
/// # Invariants
///
/// `work` is initialised with [`run`], and `block` is registered with [`callback`].
#[pin_data(PinnedDrop)]
pub(super) struct Notifier {
    waiting: Waiting,
    #[pin]
    work: Opaque<kernel::bindings::work_struct>,
    #[pin]
    block: Opaque<kernel::bindings::notifier_block>,
}

// SAFETY: The chain and the queue have their own locks; any thread may unregister the notifier, and
// disable the work item.
unsafe impl Send for Notifier {}
// SAFETY: `waiting` is atomic, and any thread may queue the work item.
unsafe impl Sync for Notifier {}

impl Notifier {
    /// Registers the notifier.
    ///
    /// # Safety
    ///
    /// `LISTENERS` is initialised.
    pub(super) unsafe fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            waiting: Waiting::new(),
            // INVARIANT: `init_work_with_key` initialises it.
            work <- Opaque::ffi_init(|work: *mut kernel::bindings::work_struct| {
                // SAFETY: `work` is valid for writes. It is pinned, and `drop` disables it.
                unsafe {
                    kernel::bindings::init_work_with_key(
                        work,
                        Some(run),
                        false,
                        c"ghes::Notifier".as_char_ptr(),
                        static_lock_class!().as_ptr(),
                    )
                }
            }),
            // INVARIANT: It is registered, after all other fields are initialised.
            block <- Opaque::ffi_init(|block: *mut kernel::bindings::notifier_block| {
                // SAFETY: `block` is valid for writes. It is pinned, and `drop` unregisters it.
                unsafe {
                    block.write(kernel::bindings::notifier_block {
                        notifier_call: Some(callback),
                        ..Default::default()
                    });
                    bindings::ghes_register_report_chain(block);
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
        unsafe { bindings::ghes_unregister_report_chain(self.block.get()) };
        // SAFETY: By the type invariant the work item is initialised. This waits for its end.
        unsafe { kernel::bindings::disable_work_sync(self.work.get()) };
    }
}

/// Takes note of an error. In atomic context, possibly with interrupts off.
extern "C" fn callback(
    block: *mut kernel::bindings::notifier_block,
    severity: c_ulong,
    error: *mut c_void,
) -> c_int {
    // SAFETY: By the type invariant `block` is a field of a notifier, which is not dropped before
    // the chain has let go of it.
    let this = unsafe { &*kernel::container_of!(Opaque::cast_from(block), Notifier, block) };
    let error = error.cast::<bindings::cper_sec_mem_err>();
    // SAFETY: The chain is called with a record that does not change during the call. It is packed,
    // and has all fields but the last ones (UEFI 2.1, `cper_sec_mem_err_old`), as the firmware has
    // to write them: the chain does not pass its length.
    let (valid, address, mask) = unsafe {
        (
            (&raw const (*error).validation_bits).read_unaligned(),
            (&raw const (*error).physical_addr).read_unaligned(),
            (&raw const (*error).physical_addr_mask).read_unaligned(),
        )
    };
    let has = |field| valid & field != 0;

    if severity >= bindings::GHES_SEV_RECOVERABLE as c_ulong && has(bindings::CPER_MEM_VALID_PA) {
        // The lowest bit of the address that is valid.
        let unit = match has(bindings::CPER_MEM_VALID_PA_MASK) {
            true => 1_u64.checked_shl(mask.trailing_zeros()).unwrap_or(u64::MAX),
            false => u64::MAX,
        };

        this.waiting.push(around(address, unit));
        // SAFETY: By the type invariant the work item is initialised; the system's queue is always
        // there.
        unsafe {
            kernel::bindings::queue_work_on(
                kernel::bindings::wq_misc_consts_WORK_CPU_UNBOUND as c_int,
                kernel::bindings::system_dfl_wq,
                this.work.get(),
            )
        };
    }
    kernel::bindings::NOTIFY_DONE as c_int
}

/// Notifies the listeners of the errors that wait.
extern "C" fn run(work: *mut kernel::bindings::work_struct) {
    // SAFETY: By the type invariant `work` is a field of a notifier. `drop` waits for the end of
    // this.
    let this = unsafe { &*kernel::container_of!(Opaque::cast_from(work), Notifier, work) };

    let lost = this
        .waiting
        .take_all(|addresses| notify_all(addresses, Source::Firmware));

    if lost > 0 {
        pr_warn!(
            "firmware reported memory errors too fast: {lost} were not listed; run pmemctl scrub\n"
        );
    }
}
