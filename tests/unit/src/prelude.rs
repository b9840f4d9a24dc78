// SPDX-License-Identifier: GPL-2.0

//! `kernel::prelude`.

pub use crate::{dev_warn, pin_init};
pub use pinned_init::pin_data;
pub use std::ffi::CStr;

/// An errno.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Error(pub i32);

pub type Result<T = (), E = Error> = std::result::Result<T, E>;

/// Flags of allocations, which do not fail here.
pub struct Flags;

pub const GFP_KERNEL: Flags = Flags;

/// What makes a value in its place: here the value, which is moved there.
pub trait PinInit<T> {
    fn value(self) -> T;
}

impl<T> PinInit<T> for T {
    fn value(self) -> T {
        self
    }
}

#[macro_export]
macro_rules! pin_init {
    (Self { $($field:ident $(<- $init:expr)?),* $(,)? }) => {
        Self { $($field: $crate::pin_init!(@ $field $($init)?)),* }
    };
    (@ $field:ident) => { $field };
    (@ $field:ident $init:expr) => { $init };
}
