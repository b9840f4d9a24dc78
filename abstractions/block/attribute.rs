// SPDX-License-Identifier: GPL-2.0

//! Files in a disk's sysfs directory.

use super::disk::{
    Operations,
    UnregisteredDisk, //
};
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
    /// The name of the directory that the file is in, below the disk's own.
    const DIRECTORY: &'static CStr;
    /// The name of the file.
    const NAME: &'static CStr;
    /// Whether the file is there at all.
    const VISIBLE: bool;

    /// What is read.
    fn show(of: &T) -> bool;

    /// What is written; anything that `kstrtobool` does not know is [`EINVAL`].
    fn store(of: &T, value: bool) -> Result;
}

/// The files of a disk, as the core takes them.
pub(crate) trait Attributes<T> {
    /// Ends with a null pointer.
    const GROUPS: &'static [*const attribute_group];
}

impl<T, A, B> Attributes<T> for (A, B)
where
    T: Operations,
    A: BoolAttribute<T>,
    B: BoolAttribute<T>,
{
    const GROUPS: &'static [*const attribute_group] = &[
        AttributeFile::<T, A>::GROUP_REF,
        AttributeFile::<T, B>::GROUP_REF,
        core::ptr::null(),
    ];
}

/// The file of a [`BoolAttribute`].
struct AttributeFile<T, A>(PhantomData<(T, A)>);

impl<T: Operations, A: BoolAttribute<T>> AttributeFile<T, A> {
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
        __bindgen_anon_1: kernel::bindings::attribute_group__bindgen_ty_1 {
            is_visible: Some(Self::is_visible_callback),
        },
        __bindgen_anon_2: kernel::bindings::attribute_group__bindgen_ty_2 {
            attrs: Self::ATTRIBUTES_REF.as_ptr().cast_mut(),
        },
        ..pin_init::zeroed()
    };
    const ATTRIBUTES_REF: &'static [*mut attribute; 2] = &Self::ATTRIBUTES;
    const GROUP_REF: &'static attribute_group = &Self::GROUP;

    extern "C" fn is_visible_callback(
        _kobj: *mut kernel::bindings::kobject,
        attr: *mut attribute,
        _index: c_int,
    ) -> kernel::bindings::umode_t {
        if A::VISIBLE {
            // SAFETY: sysfs calls this for the attributes of the group.
            unsafe { (*attr).mode }
        } else {
            0
        }
    }

    extern "C" fn show_callback(
        dev: *mut kernel::bindings::device,
        _attr: *mut device_attribute,
        buf: *mut c_char,
    ) -> isize {
        // SAFETY: sysfs calls this for a file that `register` has made.
        let data = unsafe { UnregisteredDisk::<T>::data_of_device(dev) };
        let digit = if A::show(data) { b'1' } else { b'0' };

        // SAFETY: `buf` has a page.
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
        // SAFETY: sysfs calls this for a file that `register` has made.
        let data = unsafe { UnregisteredDisk::<T>::data_of_device(dev) };
        let mut value = false;

        from_result(|| {
            // SAFETY: sysfs ends what was written with a zero.
            to_result(unsafe { kernel::bindings::kstrtobool(buf, &mut value) })?;
            A::store(data, value)?;
            // CAST: No write to sysfs is longer than a page.
            Ok(len as isize)
        })
    }
}
