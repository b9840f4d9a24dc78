// SPDX-License-Identifier: GPL-2.0

//! Write-only files in debugfs whose data belong to a bound device.
//!
//! The files of the `kernel` crate need static data, or a directory of their own. A [`File`] is
//! added to a directory that exists, and is removed when the device is unbound.
//!
//! C header: [`include/linux/debugfs.h`](srctree/include/linux/debugfs.h)

use super::scope::{
    Registered,
    Scope,
    Scoped, //
};
use core::ptr::NonNull;
use kernel::{
    bindings,
    error::from_result,
    prelude::*,
    sync::Arc,
    uaccess::{
        UserPtr,
        UserSlice, //
    }, //
};

/// The longest write that a [`File`] accepts, in bytes.
const MAX_LEN: usize = 80;

/// Receives what root writes to a [`File`].
pub(crate) trait Handler: Send + Sync {
    /// Handles one write.
    fn write(&self, text: &[u8]) -> Result;
}

/// A directory of debugfs.
///
/// # Invariants
///
/// `dentry` is a directory of debugfs that a reference is held to.
pub(crate) struct Dir {
    dentry: NonNull<bindings::dentry>,
}

// SAFETY: A reference to a directory may be used and put by any thread.
unsafe impl Send for Dir {}
// SAFETY: debugfs takes the directory's own lock to add, look up and remove files.
unsafe impl Sync for Dir {}

impl Dir {
    /// Looks up the directory `name` in the root of debugfs. `None` if it does not exist.
    pub(crate) fn lookup(name: &CStr) -> Option<Self> {
        #[cfg(CONFIG_DEBUG_FS)]
        // SAFETY: `name` is a valid C string; a null parent is the root.
        let dentry = unsafe { bindings::debugfs_lookup(name.as_char_ptr(), core::ptr::null_mut()) };
        #[cfg(not(CONFIG_DEBUG_FS))]
        let (dentry, _) = (core::ptr::null_mut(), name);

        // INVARIANT: `debugfs_lookup` takes a reference to what it finds.
        let this = Self {
            dentry: NonNull::new(dentry)?,
        };
        // SAFETY: What was found has an inode, whose type does not change, while a reference is
        // held.
        let mode = unsafe { (*(*dentry).d_inode).i_mode };

        (u32::from(mode) & bindings::S_IFMT == bindings::S_IFDIR).then_some(this)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        // SAFETY: By the type invariant a reference is held; it is put only here.
        unsafe { bindings::dput(self.dentry.as_ptr()) };
    }
}

/// A file that passes what root writes on to a [`Handler`], until it is unregistered.
pub(crate) struct File<'bound, H: Handler> {
    dir: Dir,
    name: &'bound CStr,
    handler: Arc<H>,
}

impl<'bound, H: Handler + 'bound> File<'bound, H> {
    #[cfg(CONFIG_DEBUG_FS)]
    const OPS: bindings::file_operations = bindings::file_operations {
        owner: (&raw const bindings::__this_module).cast_mut(),
        open: Some(bindings::simple_open),
        write: Some(Self::write_callback),
        ..pin_init::zeroed()
    };

    /// Adds the file `name` to `dir`. [`ENOMEM`].
    ///
    /// As everywhere in debugfs, there is no file, and no error, if debugfs fails to add it.
    pub(crate) fn new(
        dir: Dir,
        name: &'bound CStr,
        handler: Arc<H>,
        scope: &'bound Scope<'bound>,
    ) -> Result<Scoped<'bound, Self>> {
        let this = Self { dir, name, handler };

        Scoped::new(scope, this, |this| {
            #[cfg(CONFIG_DEBUG_FS)]
            // SAFETY: By the type invariant of `Dir` the parent is valid. `this` stays in place
            // until it is unregistered, which removes the file.
            unsafe {
                bindings::debugfs_create_file_full(
                    this.name.as_char_ptr(),
                    0o200,
                    this.dir.dentry.as_ptr(),
                    core::ptr::from_ref(this).cast_mut().cast(),
                    core::ptr::null(),
                    const { &Self::OPS },
                )
            };
            #[cfg(not(CONFIG_DEBUG_FS))]
            let _ = this;
            Ok(())
        })
    }

    #[cfg_attr(not(CONFIG_DEBUG_FS), expect(dead_code))]
    extern "C" fn write_callback(
        file: *mut bindings::file,
        from: *const c_char,
        len: usize,
        _offset: *mut bindings::loff_t,
    ) -> isize {
        // SAFETY: `simple_open` has set `private_data` to the data of the file: `this` in `new`.
        // Removing the file waits until this returns, and `this` stays until then.
        let this = unsafe { &*(*file).private_data.cast::<Self>() };
        let mut text = [0; MAX_LEN];

        from_result(|| {
            let text = text.get_mut(..len).ok_or(EINVAL)?;

            UserSlice::new(UserPtr::from_ptr(from.cast_mut().cast()), len)
                .reader()
                .read_slice(text)?;
            this.handler.write(text)?;
            // CAST: At most `MAX_LEN`.
            Ok(len as isize)
        })
    }
}

// SAFETY: The file is removed, and nobody is in `write_callback` any more. Only a name and
// references to the directory and the handler remain.
unsafe impl<H: Handler> Registered for File<'_, H> {
    unsafe fn unregister(&self) {
        #[cfg(CONFIG_DEBUG_FS)]
        // SAFETY: By the type invariant of `Dir` the parent is valid, and the name is a C string.
        // If the directory was removed before, so was the file, and nothing is found.
        unsafe {
            bindings::debugfs_lookup_and_remove(self.name.as_char_ptr(), self.dir.dentry.as_ptr())
        };
        #[cfg(not(CONFIG_DEBUG_FS))]
        let _ = (&self.name, &self.dir, &self.handler);
    }
}
