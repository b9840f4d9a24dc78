// SPDX-License-Identifier: GPL-2.0

//! Drivers of namespaces: the [`Driver`] trait and its adapter to the C callbacks of the bus.

use super::{
    bus,
    Device, //
};
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
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
    types::{
        ForeignOwnable,
        Opaque, //
    }, //
};

/// An event that the bus notifies a bound driver of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// The bus has added entries to its badrange list (`NVDIMM_REVALIDATE_POISON`).
    RevalidatePoison,
    /// The region has become read-only, or writable again (`NVDIMM_REVALIDATE_REGION`).
    RevalidateRegion,
}

/// A driver of persistent-memory namespaces.
pub(crate) trait Driver {
    /// The driver's private data of a bound device.
    ///
    /// It is shared: file accesses run in any thread, concurrently with each other and with the
    /// callbacks that hold the device lock.
    type Data<'bound>: Send + Sync + 'bound;

    /// The file that each bound device has in sysfs.
    type Attribute<'bound>: BinAttribute + 'bound;

    /// Binds the driver to `dev`.
    ///
    /// Fails with [`ENXIO`] or `EOPNOTSUPP` to leave the namespace to another device (btt, pfn or
    /// dax). Registrations in `scope` end when the private data are dropped.
    fn probe<'bound>(
        dev: &'bound Device<Core<'_>>,
        scope: &'bound Scope<'bound>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound;

    /// Prepares for the machine to go down. The device stays bound.
    fn shutdown<'bound>(dev: &'bound Device<Core<'_>>, this: Pin<&Self::Data<'bound>>);

    /// Returns what serves [`Self::Attribute`].
    fn attribute<'a, 'bound>(this: Pin<&'a Self::Data<'bound>>) -> &'a Self::Attribute<'bound>;

    /// Handles an event of the namespace's region. Not called during probe and unbind.
    fn notify<'bound>(dev: &'bound Device<Core<'_>>, this: Pin<&Self::Data<'bound>>, event: Event);
}

/// A sysfs file of a bound device whose text may be longer than a page (`struct bin_attribute`).
///
/// Anyone can read it, and only root can write to it.
pub(crate) trait BinAttribute {
    /// The directory of the file, below that of the device.
    const DIRECTORY: &'static CStr;
    /// The name of the file.
    const NAME: &'static CStr;

    /// Writes the part of the text that `window` asks for.
    fn read(&self, window: &mut Window<'_>);

    /// Handles a write of `text` at offset 0.
    fn write(&self, text: &[u8]) -> Result;
}

/// The private data of a bound device, as the driver core keeps them.
///
/// Fields are dropped from the top: `scope` ends the registrations whose handles were leaked, after
/// `data`, which could use them, is gone.
#[pin_data]
pub(crate) struct Attachment<'bound, T: Driver + 'bound> {
    #[pin]
    data: T::Data<'bound>,
    #[pin]
    scope: Scope<'bound>,
}

/// An adapter for the registration of namespace drivers.
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

// SAFETY: A call to `unregister` for a given instance of `DriverType` is guaranteed to be valid if
// a preceding call to `register` has been successful.
unsafe impl<T: Driver + 'static> driver::RegistrationOps for Adapter<T> {
    unsafe fn register(
        reg: &Opaque<Self::DriverType>,
        name: &'static CStr,
        module: &'static ThisModule,
    ) -> Result {
        static IS_TAKEN: Atomic<bool> = Atomic::new(false);
        let drv = reg.get();

        // The module has one driver.
        if IS_TAKEN.xchg(true, Relaxed) {
            return Err(EBUSY);
        }
        // SAFETY: Only the first caller gets here, and no driver is registered yet.
        unsafe { bus::init() };

        // SAFETY: `drv` is valid and not registered yet, so nobody else accesses its fields.
        unsafe {
            (*drv).drv.name = name.as_char_ptr();
            (*drv).type_ = bindings::ND_DRIVER_NAMESPACE_IO | bindings::ND_DRIVER_NAMESPACE_PMEM;
            // There is no `remove`: the driver core drops the private data in its post-unbind step.
            (*drv).probe = Some(Self::probe_callback);
            // The driver core adds the groups after a successful probe and removes them before it
            // unbinds, and waits for file accesses that are in progress.
            (*drv).drv.dev_groups = const { Self::GROUPS }.as_ptr().cast_mut();
            (*drv).shutdown = Some(Self::shutdown_callback);
            (*drv).notify = Some(Self::notify_callback);
        }

        // SAFETY: `drv` is set up, and the caller of `register` keeps it pinned and valid until
        // `unregister`.
        to_result(unsafe {
            bindings::__nd_driver_register(drv, module.as_ptr(), name.as_char_ptr())
        })
    }

    unsafe fn unregister(reg: &Opaque<Self::DriverType>) {
        // SAFETY: `RegistrationOps::unregister` requires that `register` has succeeded for `reg`.
        unsafe { kernel::bindings::driver_unregister(&raw mut (*reg.get()).drv) };
    }
}

impl<T: Driver + 'static> Adapter<T> {
    /// # Safety
    ///
    /// `dev` is a device of the `nd` bus that is, for the whole of `'a`, in a callback of the bus,
    /// and the result is only used in that callback.
    unsafe fn device<'a, 'b>(dev: *mut kernel::bindings::device) -> &'a Device<CoreInternal<'b>> {
        // SAFETY: `# Safety` requires a valid device of the `nd` bus. CAST: `Device` is a
        // transparent wrapper of `struct device`.
        unsafe { &*dev.cast::<Device<CoreInternal<'b>>>() }
    }

    extern "C" fn probe_callback(dev: *mut kernel::bindings::device) -> c_int {
        // SAFETY: The bus calls this with a device of its own, and holds the device lock.
        let dev = unsafe { Self::device(dev) };

        from_result(|| {
            dev.as_ref()
                .set_drvdata(try_pin_init!(Attachment::<'_, T> {
                scope <- Scope::new(),
                data <- {
                    // SAFETY: `scope` is initialised and pinned in the attachment. It is dropped
                    // after `data`, and then ends every registration that still has the reference.
                    let scope = unsafe { &*core::ptr::from_ref(scope.as_ref().get_ref()) };

                    T::probe(dev, scope)
                },
            }? Error))?;
            Ok(0)
        })
    }

    /// Returns the driver's private data of a bound device.
    ///
    /// # Safety
    ///
    /// `dev` is a device of the `nd` bus. For all of `'a`, `probe_callback` has stored its data,
    /// and they have not been dropped.
    unsafe fn data<'a>(dev: *mut kernel::bindings::device) -> Pin<&'a T::Data<'a>> {
        // SAFETY: `# Safety` requires a valid device.
        let data = unsafe { kernel::bindings::dev_get_drvdata(dev) };

        // SAFETY: `set_drvdata` in `probe_callback` stored what `into_foreign` of a pinned box of
        // this type returned; only the post-unbind step takes it back. `data` is a pinned field.
        unsafe { Pin::<KBox<Attachment<'a, T>>>::borrow(data.cast()).map_unchecked(|it| &it.data) }
    }

    extern "C" fn shutdown_callback(dev: *mut kernel::bindings::device) {
        // SAFETY: The bus calls this with a device of its own, and holds the device lock.
        let dev = unsafe { Self::device(dev) };
        // SAFETY: The bus calls this only while the driver is bound, and holds the device lock,
        // which the post-unbind step that drops the data needs.
        let data = unsafe { Self::data(dev.as_raw()) };

        T::shutdown(dev, data);
    }

    extern "C" fn notify_callback(
        dev: *mut kernel::bindings::device,
        event: bindings::nvdimm_event,
    ) {
        // SAFETY: The bus calls this with a device of its own, and holds the device lock.
        let dev = unsafe { Self::device(dev) };
        // SAFETY: The bus calls this only while the driver is bound, and holds the device lock,
        // which the post-unbind step that drops the data needs.
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

/// The sysfs file of a bound device.
impl<T: Driver + 'static> Adapter<T> {
    #[allow(
        clippy::needless_update,
        reason = "with lockdep, an attribute has more fields"
    )]
    const ATTRIBUTE: &'static bin_attribute = &bin_attribute {
        attr: attribute {
            name: <T::Attribute<'static> as BinAttribute>::NAME
                .to_bytes_with_nul()
                .as_ptr(),
            mode: 0o644,
            ..pin_init::zeroed()
        },
        read: Some(Self::read_callback),
        write: Some(Self::write_callback),
        ..pin_init::zeroed()
    };
    const BIN_ATTRIBUTES: &'static [*const bin_attribute; 2] =
        &[Self::ATTRIBUTE, core::ptr::null()];
    const GROUP: &'static attribute_group = &attribute_group {
        name: <T::Attribute<'static> as BinAttribute>::DIRECTORY
            .to_bytes_with_nul()
            .as_ptr(),
        bin_attrs: Self::BIN_ATTRIBUTES.as_ptr(),
        ..pin_init::zeroed()
    };
    const GROUPS: &'static [*const attribute_group; 2] = &[Self::GROUP, core::ptr::null()];

    /// # Safety
    ///
    /// `kobj` is that of a device with this attribute group, one of whose files is being accessed
    /// for all of `'a`.
    unsafe fn attribute<'a>(kobj: *mut kernel::bindings::kobject) -> &'a T::Attribute<'a> {
        // SAFETY: `# Safety` requires the kobject of a device with the group. The driver core adds
        // the group after a successful probe. Before it drops the data, it removes the group, which
        // waits for this access.
        let data =
            unsafe { Self::data(kernel::container_of!(kobj, kernel::bindings::device, kobj)) };

        T::attribute(data)
    }

    extern "C" fn read_callback(
        file: *mut kernel::bindings::file,
        kobj: *mut kernel::bindings::kobject,
        _attribute: *const bin_attribute,
        buf: *mut c_char,
        offset: kernel::bindings::loff_t,
        len: usize,
    ) -> isize {
        // SAFETY: sysfs calls this for an access to a file of the group.
        let attribute = unsafe { Self::attribute(kobj) };
        // SAFETY: sysfs passes a buffer of `len` bytes, which is this call's alone.
        let buf = unsafe {
            buf.write_bytes(0, len);
            core::slice::from_raw_parts_mut(buf, len)
        };
        let skip = usize::try_from(offset).unwrap_or(usize::MAX);
        let mut window = Window::new(file, skip, buf);

        attribute.read(&mut window);
        // CAST: At most `len`, which is at most a page.
        window.len() as isize
    }

    extern "C" fn write_callback(
        _file: *mut kernel::bindings::file,
        kobj: *mut kernel::bindings::kobject,
        _attribute: *const bin_attribute,
        buf: *mut c_char,
        offset: kernel::bindings::loff_t,
        len: usize,
    ) -> isize {
        // SAFETY: sysfs calls this for an access to a file of the group.
        let attribute = unsafe { Self::attribute(kobj) };
        // SAFETY: sysfs passes a buffer of `len` bytes, which nobody else changes.
        let text = unsafe { core::slice::from_raw_parts(buf, len) };

        from_result(|| {
            if offset != 0 {
                return Err(EINVAL);
            }
            attribute.write(text)?;
            // CAST: At most a page.
            Ok(len as isize)
        })
    }
}
