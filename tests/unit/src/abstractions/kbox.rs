// SPDX-License-Identifier: GPL-2.0

//! `kernel::alloc::KBox`.

use crate::prelude::{allocate, Flags, Result};
use std::ops::{Deref, DerefMut};
use std::pin::Pin;

pub struct KBox<T>(Box<T>);

impl<T> KBox<T> {
    pub fn new(value: T, _flags: Flags) -> Result<Self> {
        allocate()?;
        Ok(Self(Box::new(value)))
    }

    pub fn pin(value: T, flags: Flags) -> Result<Pin<Self>> {
        // SAFETY: Nobody moves the value out of the box.
        Ok(unsafe { Pin::new_unchecked(Self::new(value, flags)?) })
    }

    pub fn into_raw(this: Self) -> *mut T {
        Box::into_raw(this.0)
    }

    /// # Safety
    ///
    /// `value` is of [`Self::into_raw`], and this is called once.
    pub unsafe fn from_raw(value: *mut T) -> Self {
        // SAFETY: `# Safety` requires the pointer of a box.
        Self(unsafe { Box::from_raw(value) })
    }
}

impl<T> Deref for KBox<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for KBox<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}
