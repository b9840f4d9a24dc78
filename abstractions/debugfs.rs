// SPDX-License-Identifier: GPL-2.0

//! Files in debugfs for devices of a bus, which take commands of root.
//!
//! The `kernel` crate's own files need data that is static, as a bound device's is not.
//!
//! C header: [`include/linux/debugfs.h`](srctree/include/linux/debugfs.h)

use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    bindings,
    error::from_result,
    prelude::*,
    uaccess::{
        UserPtr,
        UserSlice, //
    }, //
};

/// What is written to the file of a device.
pub(super) trait Command {
    /// # Safety
    ///
    /// `dev` is a device that a file was added for, and not removed.
    unsafe fn command(dev: *mut bindings::device, text: &[u8]) -> Result;
}

/// A folder of debugfs, if it is there.
///
/// # Invariants
///
/// `dentry` is a folder of debugfs that a reference is held to.
pub(super) struct Folder<C: Command> {
    dentry: NonNull<bindings::dentry>,
    _command: PhantomData<C>,
}

impl<C: Command> Folder<C> {
    const OPS: bindings::file_operations = bindings::file_operations {
        // Such a file is not open when the module goes.
        owner: (&raw const bindings::__this_module).cast_mut(),
        open: Some(bindings::simple_open),
        write: Some(Self::write_callback),
        ..pin_init::zeroed()
    };

    /// The folder with the name of the driver of `dev`, if there is one.
    ///
    /// # Safety
    ///
    /// `dev` is a valid device that has a driver.
    pub(super) unsafe fn of_driver(dev: *mut bindings::device) -> Option<Self> {
        // SAFETY: `dev` is valid and has a driver, which has a name. Names may be looked up at any time.
        let dentry =
            unsafe { bindings::debugfs_lookup((*(*dev).driver).name, core::ptr::null_mut()) };

        // INVARIANT: The call has taken a reference.
        NonNull::new(dentry).map(|dentry| Self {
            dentry,
            _command: PhantomData,
        })
    }

    /// Adds a file with the name of `dev`, which root can write to until it is removed.
    ///
    /// # Safety
    ///
    /// It must be removed while `dev` is what `C` takes it for.
    pub(super) unsafe fn add(&self, dev: *mut bindings::device) {
        // SAFETY: `dentry` is a folder, and `dev` valid until the file is removed. There is nothing to be
        // done if it fails, as debugfs has it.
        unsafe {
            bindings::debugfs_create_file_full(
                bindings::dev_name(dev),
                0o200,
                self.dentry.as_ptr(),
                dev.cast(),
                core::ptr::null(),
                const { &Self::OPS },
            )
        };
    }

    /// Removes the file of `dev`, if there is one. Waits for those who are writing to it.
    ///
    /// # Safety
    ///
    /// `dev` is a valid device.
    pub(super) unsafe fn remove(&self, dev: *mut bindings::device) {
        // SAFETY: `dentry` is a folder, and `dev` has a name.
        unsafe {
            bindings::debugfs_lookup_and_remove(bindings::dev_name(dev), self.dentry.as_ptr())
        };
    }

    extern "C" fn write_callback(
        file: *mut bindings::file,
        from: *const c_char,
        len: usize,
        _offset: *mut bindings::loff_t,
    ) -> isize {
        // No command is longer.
        let mut text = [0; 80];

        from_result(|| {
            let text = text.get_mut(..len).ok_or(EINVAL)?;

            UserSlice::new(UserPtr::from_ptr(from.cast_mut().cast()), len)
                .reader()
                .read_slice(text)?;
            // SAFETY: `simple_open` has put there what `add` gave. Removing the file waits until
            // nobody is here.
            unsafe { C::command((*file).private_data.cast(), text) }?;
            // CAST: Not more than 80.
            Ok(len as isize)
        })
    }
}

impl<C: Command> Drop for Folder<C> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::dput(self.dentry.as_ptr()) };
    }
}
