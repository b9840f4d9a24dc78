// SPDX-License-Identifier: GPL-2.0

//! Files in a disk's sysfs directory.

use core::marker::PhantomData;
use kernel::{
    bindings::{
        attribute,
        attribute_group,
        device_attribute, //
    },
    error::{
        from_result,
        to_result, //
    },
    prelude::*, //
};

/// A sysfs file that holds a boolean.
pub(crate) trait BoolAttribute<T> {
    /// The directory of the file, below that of the disk.
    const DIRECTORY: &'static CStr;
    /// The name of the file.
    const NAME: &'static CStr;

    /// Returns the value.
    fn show(of: &T) -> bool;

    /// Sets the value. A write that `kstrtobool` does not accept fails with [`EINVAL`] before.
    fn store(of: &T, value: bool) -> Result;
}

/// The files of a disk: a pair of [`BoolAttribute`]s, each in a directory of its own.
pub(crate) trait Attributes<T> {
    /// The attribute groups, for a disk whose private data is a `T`; the last pointer is null.
    const GROUPS: &'static [*const attribute_group];
}

impl<T, A: BoolAttribute<T>, B: BoolAttribute<T>> Attributes<T> for (A, B) {
    const GROUPS: &'static [*const attribute_group] = &[
        AttributeFile::<T, A>::GROUP_REF,
        AttributeFile::<T, B>::GROUP_REF,
        core::ptr::null(),
    ];
}

/// The C structures of a [`BoolAttribute`].
struct AttributeFile<T, A>(PhantomData<(T, A)>);

impl<T, A: BoolAttribute<T>> AttributeFile<T, A> {
    #[allow(
        clippy::needless_update,
        reason = "with lockdep, an attribute has more fields"
    )]
    const ATTRIBUTE: device_attribute = device_attribute {
        attr: attribute {
            name: A::NAME.to_bytes_with_nul().as_ptr(),
            mode: 0o644,
            ..pin_init::zeroed()
        },
        __bindgen_anon_1: kernel::bindings::device_attribute__bindgen_ty_1 {
            show: Some(Self::show_callback),
        },
        __bindgen_anon_2: kernel::bindings::device_attribute__bindgen_ty_2 {
            store: Some(Self::store_callback),
        },
    };

    const ATTRIBUTES: [*mut attribute; 2] = [
        (&raw const Self::ATTRIBUTE_REF.attr).cast_mut(),
        core::ptr::null_mut(),
    ];
    const ATTRIBUTE_REF: &'static device_attribute = &Self::ATTRIBUTE;

    const GROUP: attribute_group = attribute_group {
        name: A::DIRECTORY.to_bytes_with_nul().as_ptr(),
        __bindgen_anon_2: kernel::bindings::attribute_group__bindgen_ty_2 {
            attrs: Self::ATTRIBUTES_REF.as_ptr().cast_mut(),
        },
        ..pin_init::zeroed()
    };
    const ATTRIBUTES_REF: &'static [*mut attribute; 2] = &Self::ATTRIBUTES;
    const GROUP_REF: &'static attribute_group = &Self::GROUP;

    extern "C" fn show_callback(
        dev: *mut kernel::bindings::device,
        _attr: *mut device_attribute,
        buf: *mut c_char,
    ) -> isize {
        // SAFETY: sysfs calls this for an access to a file of `GROUPS`, and waits for its end when
        // the disk is unregistered.
        let data = unsafe { data_of_device::<T>(dev) };
        let digit = if A::show(data) { b'1' } else { b'0' };

        // SAFETY: sysfs passes a buffer of a page.
        unsafe {
            buf.write(digit);
            buf.add(1).write(b'\n');
            buf.add(2).write(0);
        }
        2
    }

    extern "C" fn store_callback(
        dev: *mut kernel::bindings::device,
        _attr: *mut device_attribute,
        buf: *const c_char,
        len: usize,
    ) -> isize {
        // SAFETY: sysfs calls this for an access to a file of `GROUPS`, and waits for its end when
        // the disk is unregistered.
        let data = unsafe { data_of_device::<T>(dev) };
        let mut value = false;

        from_result(|| {
            // SAFETY: sysfs passes a buffer that ends with a null byte.
            to_result(unsafe { kernel::bindings::kstrtobool(buf, &mut value) })?;
            A::store(data, value)?;
            // CAST: At most a page.
            Ok(len as isize)
        })
    }
}

/// Returns the private data of a disk, by its device.
///
/// # Safety
///
/// `dev` is the device of a disk whose private data is a `T`, which stays in place for all of `'a`.
unsafe fn data_of_device<'a, T>(dev: *mut kernel::bindings::device) -> &'a T {
    // SAFETY: The device of a disk is embedded in its `part0`. `# Safety` requires the rest.
    unsafe {
        let part0 = kernel::container_of!(dev, kernel::bindings::block_device, bd_device);

        &*(*(*part0).bd_disk).private_data.cast::<T>()
    }
}
