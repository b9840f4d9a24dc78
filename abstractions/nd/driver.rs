// SPDX-License-Identifier: GPL-2.0

//! Drivers of namespaces: the `Driver` trait and its adapter to the C callbacks of the bus.

use super::Device;
#[cfg(CONFIG_DEBUG_FS)]
use crate::abstractions::debugfs;
use crate::abstractions::{
    bindings,
    scope::Scope,
    sysfs::Window, //
};
use core::{
    marker::PhantomData,
    mem::offset_of, //
};
use kernel::{
    bindings::{
        attribute,
        attribute_group,
        bin_attribute, //
    },
    device::{
        Core,
        CoreInternal, //
    },
    driver,
    error::{
        from_result,
        to_result, //
    },
    prelude::*,
    types::{
        ForeignOwnable,
        Opaque, //
    }, //
};

/// What the bus tells the driver of a bound namespace.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// The bus's list of bad ranges has grown: read it again.
    RevalidatePoison,
    /// The region's read-only state has changed.
    RevalidateRegion,
}

/// A driver of persistent-memory namespaces.
pub(crate) trait Driver {
    /// What the driver keeps for each bound device.
    ///
    /// It is shared: the callbacks of files run in any thread, at the same time as each other and as
    /// those that hold the device's lock.
    type Data<'bound>: Send + Sync + 'bound;

    /// Takes the device, or declines it: with [`ENXIO`] or `EOPNOTSUPP` where another personality
    /// of the same namespace is to have it. What is registered in `scope` ends when the data are
    /// dropped.
    fn probe<'bound>(
        dev: &'bound Device<Core<'_>>,
        scope: &'bound Scope<'bound>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound;

    /// The machine goes down while the device is bound; it stays bound.
    fn shutdown<'bound>(dev: &'bound Device<Core<'_>>, this: Pin<&Self::Data<'bound>>);

    /// Writes the text of the bound device's file `errors/list`.
    fn list_errors(this: Pin<&Self::Data<'_>>, to: &mut Window<'_>);

    /// Carries out a command that was written there, or, if `inject`, to the file with the device's
    /// name in the folder of debugfs with the driver's name, which is there if somebody made that
    /// folder before the device was bound.
    fn command(this: Pin<&Self::Data<'_>>, command: &[u8], inject: bool) -> Result;

    /// Something about the namespace's region has changed. Not called during probe and unbind.
    fn notify<'bound>(dev: &'bound Device<Core<'_>>, this: Pin<&Self::Data<'bound>>, event: Event);
}

/// What the driver core keeps for a bound device. Fields are dropped from the top: whoever uses the
/// scope is gone when it ends what is left.
#[pin_data]
pub(crate) struct Attachment<'bound, T: Driver + 'bound> {
    #[pin]
    data: T::Data<'bound>,
    #[pin]
    scope: Scope<'bound>,
}

/// The adapter between the bus's C callbacks and a [`Driver`].
pub(crate) struct Adapter<T: Driver>(PhantomData<T>);

// SAFETY:
// - `bindings::nd_device_driver` is a C type declared as `repr(C)`.
// - `Attachment` is the type of the driver's device private data.
// - `struct nd_device_driver` embeds a `struct device_driver` at `drv`.
unsafe impl<T: Driver + 'static> driver::DriverLayout for Adapter<T> {
    type DriverType = bindings::nd_device_driver;
    type DriverData<'bound> = Attachment<'bound, T>;
    const DEVICE_DRIVER_OFFSET: usize = offset_of!(bindings::nd_device_driver, drv);
}

// SAFETY: `unregister` undoes what a successful `register` has done, and nothing else.
unsafe impl<T: Driver + 'static> driver::RegistrationOps for Adapter<T> {
    unsafe fn register(
        reg: &Opaque<Self::DriverType>,
        name: &'static CStr,
        module: &'static ThisModule,
    ) -> Result {
        let drv = reg.get();

        // SAFETY: `drv` is valid and not yet known to anybody, so its fields may be set.
        unsafe {
            (*drv).drv.name = name.as_char_ptr();
            (*drv).type_ = bindings::ND_DRIVER_NAMESPACE_IO | bindings::ND_DRIVER_NAMESPACE_PMEM;
            (*drv).probe = Some(Self::probe_callback);
            // The private data is dropped by the driver core's post-unbind step.
            (*drv).remove = Some(Self::remove_callback);
            // There from when a probe has succeeded until before `remove`, which waits for those who
            // use them.
            (*drv).drv.dev_groups = const { Self::GROUPS }.as_ptr().cast_mut();
            (*drv).shutdown = Some(Self::shutdown_callback);
            (*drv).notify = Some(Self::notify_callback);
        }

        // SAFETY: `drv` is set up, and `register` requires it to stay pinned and valid until
        // `unregister`.
        to_result(unsafe {
            bindings::__nd_driver_register(drv, module.as_ptr(), name.as_char_ptr())
        })
    }

    unsafe fn unregister(reg: &Opaque<Self::DriverType>) {
        // SAFETY: The caller promises that `register` has succeeded for `reg`.
        unsafe { kernel::bindings::driver_unregister(&raw mut (*reg.get()).drv) };
    }
}

impl<T: Driver + 'static> Adapter<T> {
    /// # Safety
    ///
    /// `dev` is a device of the `nd` bus that is, for the whole of `'a`, in a callback of the bus or
    /// bound, and the result is used in such a callback only.
    unsafe fn device<'a, 'b>(dev: *mut kernel::bindings::device) -> &'a Device<CoreInternal<'b>> {
        // SAFETY: `dev` is a valid device of libnvdimm's. CAST: `Device` is a transparent wrapper.
        unsafe { &*dev.cast::<Device<CoreInternal<'b>>>() }
    }

    extern "C" fn probe_callback(dev: *mut kernel::bindings::device) -> c_int {
        // SAFETY: The bus calls this with a device of its own, under the device's lock.
        let dev = unsafe { Self::device(dev) };

        from_result(|| {
            dev.as_ref()
                .set_drvdata(try_pin_init!(Attachment::<'_, T> {
                scope <- Scope::new(),
                data <- {
                    // SAFETY: The scope is pinned, and initialised. It is dropped after `data`, and
                    // when it is, it ends all else that has the reference.
                    let scope = unsafe { &*core::ptr::from_ref(scope.as_ref().get_ref()) };

                    T::probe(dev, scope)
                },
            }? Error))?;
            #[cfg(CONFIG_DEBUG_FS)]
            if let Some(folder) = Self::debugfs(dev) {
                // SAFETY: The data were just stored, and stay until `remove_callback`, which removes
                // the file, is over.
                unsafe { folder.add(dev.as_raw()) };
            }
            Ok(0)
        })
    }

    extern "C" fn remove_callback(dev: *mut kernel::bindings::device) {
        // SAFETY: The bus calls this with a device of its own, under the device's lock.
        let dev = unsafe { Self::device(dev) };

        #[cfg(CONFIG_DEBUG_FS)]
        if let Some(folder) = Self::debugfs(dev) {
            // SAFETY: `dev` is valid.
            unsafe { folder.remove(dev.as_raw()) };
        }
        #[cfg(not(CONFIG_DEBUG_FS))]
        let _ = dev;
    }

    /// The folder of debugfs for the driver of `dev`, if there is one.
    #[cfg(CONFIG_DEBUG_FS)]
    fn debugfs(dev: &Device<CoreInternal<'_>>) -> Option<debugfs::Folder<Self>> {
        // SAFETY: The device is in a callback of its driver.
        unsafe { debugfs::Folder::of_driver(dev.as_raw()) }
    }

    /// The driver's data of a bound device.
    ///
    /// # Safety
    ///
    /// `dev` is a device of the `nd` bus. For all of `'a`, `probe_callback` has stored its data, and
    /// they have not been dropped.
    unsafe fn data<'a>(dev: *mut kernel::bindings::device) -> Pin<&'a T::Data<'a>> {
        // SAFETY: `dev` is a valid device.
        let data = unsafe { kernel::bindings::dev_get_drvdata(dev) };

        // SAFETY: `set_drvdata` in `probe_callback` stored what `into_foreign` of a pinned box of this
        // type gave; only the post-unbind step takes it back. `data` is a pinned field.
        unsafe { Pin::<KBox<Attachment<'a, T>>>::borrow(data.cast()).map_unchecked(|it| &it.data) }
    }

    extern "C" fn shutdown_callback(dev: *mut kernel::bindings::device) {
        // SAFETY: The bus calls this with a device of its own, under the device's lock.
        let dev = unsafe { Self::device(dev) };
        // SAFETY: The bus calls this only for a device that this driver is bound to, and post-unbind,
        // which takes the data, needs the device's lock.
        let data = unsafe { Self::data(dev.as_raw()) };

        T::shutdown(dev, data);
    }

    extern "C" fn notify_callback(
        dev: *mut kernel::bindings::device,
        event: bindings::nvdimm_event,
    ) {
        // SAFETY: The bus calls this with a device of its own, under the device's lock.
        let dev = unsafe { Self::device(dev) };
        // SAFETY: The bus calls this only for a device that this driver is bound to, with the device's
        // lock held, which post-unbind needs.
        let data = unsafe { Self::data(dev.as_raw()) };

        let event = match event {
            bindings::nvdimm_event_NVDIMM_REVALIDATE_POISON => Event::RevalidatePoison,
            bindings::nvdimm_event_NVDIMM_REVALIDATE_REGION => Event::RevalidateRegion,
            _ => {
                dev_warn!(dev.as_ref(), "notify: unknown event: {}\n", event);
                return;
            }
        };
        T::notify(dev, data, event);
    }
}

#[cfg(CONFIG_DEBUG_FS)]
impl<T: Driver + 'static> debugfs::Command for Adapter<T> {
    unsafe fn command(dev: *mut kernel::bindings::device, text: &[u8]) -> Result {
        // SAFETY: The file is there from after `probe_callback` has stored the data until
        // `remove_callback`, before they are dropped.
        T::command(unsafe { Self::data(dev) }, text, true)
    }
}

/// The file `errors/list` of a bound device.
impl<T: Driver + 'static> Adapter<T> {
    #[allow(
        clippy::needless_update,
        reason = "with lockdep, an attribute has more fields"
    )]
    const LIST: &'static bin_attribute = &bin_attribute {
        attr: attribute {
            name: c"list".to_bytes_with_nul().as_ptr(),
            mode: 0o644,
            ..pin_init::zeroed()
        },
        read: Some(Self::read_list_callback),
        write: Some(Self::write_list_callback),
        ..pin_init::zeroed()
    };
    const BIN_ATTRIBUTES: &'static [*const bin_attribute; 2] = &[Self::LIST, core::ptr::null()];
    const GROUP: &'static attribute_group = &attribute_group {
        name: c"errors".to_bytes_with_nul().as_ptr(),
        bin_attrs: Self::BIN_ATTRIBUTES.as_ptr(),
        ..pin_init::zeroed()
    };
    const GROUPS: &'static [*const attribute_group; 2] = &[Self::GROUP, core::ptr::null()];

    /// # Safety
    ///
    /// `kobj` is that of a device with this group of files, one of which is being used.
    unsafe fn data_of_file<'a>(kobj: *mut kernel::bindings::kobject) -> Pin<&'a T::Data<'a>> {
        // SAFETY: The group is there from after a successful probe until before `remove`: removing it
        // waits for its users, and the data are dropped after that.
        unsafe { Self::data(kernel::container_of!(kobj, kernel::bindings::device, kobj)) }
    }

    extern "C" fn read_list_callback(
        _file: *mut kernel::bindings::file,
        kobj: *mut kernel::bindings::kobject,
        _attribute: *const bin_attribute,
        buf: *mut c_char,
        offset: kernel::bindings::loff_t,
        len: usize,
    ) -> isize {
        // SAFETY: sysfs calls this for a file of the group.
        let data = unsafe { Self::data_of_file(kobj) };
        // SAFETY: `buf` has `len` bytes.
        let buf = unsafe {
            buf.write_bytes(0, len);
            core::slice::from_raw_parts_mut(buf, len)
        };
        let mut window = Window::new(usize::try_from(offset).unwrap_or(usize::MAX), buf);

        T::list_errors(data, &mut window);
        // CAST: Not more than `len`, which is a page at most.
        window.len() as isize
    }

    extern "C" fn write_list_callback(
        _file: *mut kernel::bindings::file,
        kobj: *mut kernel::bindings::kobject,
        _attribute: *const bin_attribute,
        buf: *mut c_char,
        offset: kernel::bindings::loff_t,
        len: usize,
    ) -> isize {
        // SAFETY: sysfs calls this for a file of the group.
        let data = unsafe { Self::data_of_file(kobj) };
        // SAFETY: `buf` has `len` bytes.
        let text = unsafe { core::slice::from_raw_parts(buf, len) };

        from_result(|| {
            if offset != 0 {
                return Err(EINVAL);
            }
            T::command(data, text, false)?;
            // CAST: A page at most.
            Ok(len as isize)
        })
    }
}
