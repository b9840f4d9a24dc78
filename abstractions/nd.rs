// SPDX-License-Identifier: GPL-2.0

//! Abstractions for the `nd` bus of libnvdimm, and for drivers of its namespaces.
//!
//! C headers: [`include/linux/nd.h`](srctree/include/linux/nd.h),
//! [`include/linux/libnvdimm.h`](srctree/include/linux/libnvdimm.h),
//! [`drivers/nvdimm/nd.h`](srctree/drivers/nvdimm/nd.h)

#[cfg(CONFIG_DEBUG_FS)]
use super::debugfs;
use super::{
    badblocks::BadBlocks,
    bindings,
    block::{
        self,
        Bio, //
    },
    errno::eopnotsupp,
    pagemap::Layout,
    scope::{
        Registered,
        Scope,
        Scoped, //
    },
    sysfs::Window, //
};
use core::{
    marker::PhantomData,
    mem::{
        offset_of,
        ManuallyDrop, //
    },
    ops::{
        Range,
        RangeInclusive, //
    },
    ptr::NonNull, //
};
use kernel::{
    bindings::{
        attribute,
        attribute_group,
        bin_attribute, //
    },
    device::{
        self,
        Bound,
        Core,
        CoreInternal,
        DeviceContext, //
    },
    driver,
    error::{
        from_err_ptr,
        from_result,
        to_result, //
    },
    prelude::*,
    sizes::SZ_8K,
    sync::SpinLock,
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

/// A device of the `nd` bus: a namespace, or a personality (BTT, page map) that has claimed one.
///
/// # Invariants
///
/// An instance is a valid `struct device` that libnvdimm has created, whose parent is a region.
#[repr(transparent)]
pub(crate) struct Device<Ctx: DeviceContext = device::Normal>(
    Opaque<kernel::bindings::device>,
    PhantomData<Ctx>,
);

// SAFETY: `Device` is a transparent wrapper of a type that doesn't depend on its generic argument.
kernel::impl_device_context_deref!(unsafe { Device });

// SAFETY: All methods of `Device<Normal>` only read what does not change while the device is there.
unsafe impl Sync for Device {}

// SAFETY: As for `Device<Normal>`; `nvdimm_clear_poison` takes the bus's lock. `Bound` is a type state
// that does not affect thread safety, unlike `Core`, which stands for the device's lock.
unsafe impl Sync for Device<Bound> {}

impl<Ctx: DeviceContext> AsRef<device::Device<Ctx>> for Device<Ctx> {
    fn as_ref(&self) -> &device::Device<Ctx> {
        let dev: *const Self = self;

        // SAFETY: CAST: Both are transparent wrappers of a `struct device`, with the same context.
        unsafe { &*dev.cast::<device::Device<Ctx>>() }
    }
}

/// What a personality says when it is asked whether a namespace is its own.
pub(crate) enum Probed {
    /// An info block of that personality was found; a device of its own now has the namespace.
    Claimed,
    /// None was found.
    Unclaimed,
}

impl<Ctx: DeviceContext> Device<Ctx> {
    fn as_raw(&self) -> *mut kernel::bindings::device {
        self.0.get()
    }

    /// The NUMA node of the memory, [`NUMA_NO_NODE`](kernel::bindings::NUMA_NO_NODE) if unknown.
    pub(crate) fn numa_node(&self) -> c_int {
        #[cfg(CONFIG_NUMA)]
        // SAFETY: By the type invariant.
        let node = unsafe { (*self.as_raw()).numa_node };
        #[cfg(not(CONFIG_NUMA))]
        let node = kernel::bindings::NUMA_NO_NODE;

        node
    }
}

impl Device<Bound> {
    /// The region that the namespace is a part of.
    pub(crate) fn region(&self) -> &Region {
        // SAFETY: By the type invariant the parent is a region; it is referenced by its child.
        let region = unsafe { bindings::to_nd_region((*self.as_raw()).parent) };

        // INVARIANT: A region stays bound while one of its namespaces is: `nd_region_remove` unregisters
        // them first.
        // SAFETY: `to_nd_region` returned a valid region, and `Region` is a transparent wrapper of it.
        unsafe { &*region.cast::<Region>() }
    }

    /// Clears media errors in the `len` bytes from physical address `phys` with the bus's
    /// clear-error command (ACPI 6.5, 9.20.7.6) and takes them off the bus's and the region's
    /// lists. May sleep.
    ///
    /// Returns the number of bytes cleared, from `phys` on. A bus without commands (e820,
    /// virtio-pmem) says that all is cleared. [`ENXIO`] where the bus can't clear or where the
    /// range is not a multiple of what it clears at once.
    pub(crate) fn clear_poison(&self, phys: u64, len: u32) -> Result<u32> {
        // SAFETY: By the type invariant; a bound device keeps its bus.
        let cleared = unsafe { bindings::nvdimm_clear_poison(self.as_raw(), phys, len) };

        match u32::try_from(cleared) {
            Ok(cleared) => Ok(cleared.min(len)),
            Err(_) => Err(Error::from_errno(
                c_int::try_from(cleared).unwrap_or(EIO.to_errno()),
            )),
        }
    }
}

impl<'b> Device<Core<'b>> {
    /// Makes a disk that is registered below this device read-only, or writable again, as the
    /// region is.
    pub(crate) fn follow_read_only<T: block::Operations>(&self, disk: &block::Disk<T>) {
        let disk: &block::GenDisk = disk.as_ref();

        if disk.parent() == self.as_raw() {
            // SAFETY: The disk's parent is this device, whose parent is a region. The scope ends disks
            // under the device's lock, which is held: the disk is registered or not, and the call stands
            // both.
            unsafe { bindings::nvdimm_check_and_set_ro(disk.as_raw()) };
        }
    }

    /// The namespace that this device is, or has claimed, after the checks that are common to all
    /// personalities.
    ///
    /// [`ENODEV`] if it is too small or has no namespace or uuid, [`EBUSY`] or [`ENXIO`] if it is
    /// in other hands, [`EACCES`] if it is locked, `EOPNOTSUPP` if it can't be mapped.
    pub(crate) fn namespace(&self) -> Result<Namespace<'_, 'b>> {
        // SAFETY: By the type invariant, under the device's lock, as libnvdimm wants it.
        let ndns = unsafe { bindings::nvdimm_namespace_common_probe(self.as_raw()) };
        let ndns = NonNull::new(from_err_ptr(ndns)?).ok_or(ENODEV)?;

        // INVARIANT: All namespaces that this driver is given are embedded so.
        Ok(Namespace { ndns, dev: self })
    }

    /// Whether this is a BTT that has claimed a namespace.
    pub(crate) fn is_btt(&self) -> bool {
        // SAFETY: By the type invariant.
        unsafe { bindings::is_nd_btt(self.as_raw()) }
    }

    /// Whether this is a page map ("pfn") device that has claimed a namespace.
    pub(crate) fn is_page_map(&self) -> bool {
        // SAFETY: By the type invariant.
        unsafe { bindings::is_nd_pfn(self.as_raw()) }
    }

    /// Whether memory of this region is to have `struct page`s without an info block asking.
    pub(crate) fn maps_pages_by_default(&self) -> bool {
        // SAFETY: By the type invariant.
        unsafe { bindings::pmem_should_map_pages(self.as_raw()) }
    }
}

/// A range of persistent memory, as libnvdimm describes it, and the device that has it: itself, or
/// the personality that has claimed it.
///
/// # Invariants
///
/// `ndns` is the `common` part of a valid `struct nd_namespace_io`, and the namespace of `dev`.
pub(crate) struct Namespace<'a, 'b> {
    ndns: NonNull<bindings::nd_namespace_common>,
    dev: &'a Device<Core<'b>>,
}

impl<'a> Namespace<'a, '_> {
    fn as_raw(&self) -> *mut bindings::nd_namespace_common {
        self.ndns.as_ptr()
    }

    /// The namespace's own device.
    pub(crate) fn device(&self) -> &'a device::Device {
        // SAFETY: By the type invariant; it is referenced by the device that has it.
        unsafe { device::Device::from_raw(&raw mut (*self.as_raw()).dev) }
    }

    /// The physical addresses of the namespace.
    pub(crate) fn range(&self) -> RangeInclusive<u64> {
        // CAST: By the type invariant, `common` being the first field.
        let nsio = self.as_raw().cast::<bindings::nd_namespace_io>();

        // SAFETY: By the type invariant; the range does not change while a driver is bound.
        unsafe { (*nsio).res.start..=(*nsio).res.end }
    }

    /// The logical sector size that the namespace's label asks for, in bytes.
    pub(crate) fn sector_size(&self) -> u32 {
        // SAFETY: By the type invariant.
        unsafe { bindings::pmem_sector_size(self.as_raw()) }
    }

    /// Writes the name of the namespace's disk.
    pub(crate) fn name_disk(&self, disk: &mut block::DiskName) {
        // SAFETY: By the type invariant; a disk name has `DISK_NAME_LEN` bytes.
        unsafe { bindings::nvdimm_namespace_disk_name(self.as_raw(), disk.as_mut_ptr()) };
    }

    /// Makes the raw bytes of the namespace readable for the personalities' probes, until the
    /// result is dropped.
    ///
    /// [`EBUSY`] if the range is claimed in iomem, [`ENOMEM`].
    pub(crate) fn enable(&self) -> Result<InfoAccess<'_>> {
        // `nd_info_block_reserve()`: 8 KiB, but never less than a page.
        let reserve = SZ_8K.max(kernel::page::PAGE_SIZE) as u64;
        let dev = self.dev.as_raw();

        // SAFETY: By the type invariants, in probe.
        to_result(unsafe { bindings::devm_namespace_enable(dev, self.as_raw(), reserve) })?;
        Ok(InfoAccess {
            dev,
            ndns: self.as_raw(),
            _namespace: PhantomData,
        })
    }
}

/// Access to the info blocks of a namespace.
///
/// # Invariants
///
/// `ndns` is the namespace of `dev`, which is bound to a driver that is probing, and is enabled.
pub(crate) struct InfoAccess<'a> {
    dev: *mut kernel::bindings::device,
    ndns: *mut bindings::nd_namespace_common,
    _namespace: PhantomData<&'a ()>,
}

impl InfoAccess<'_> {
    /// `probe` answers [`ENOMEM`] where it has no memory for a device, but [`ENODEV`] where it has
    /// none for a copy of the info block (`devm_kzalloc` in `nd_btt_probe`, 7.2): a namespace with
    /// one must not be taken for raw then, so it is asked again.
    fn claim(probe: impl Fn() -> c_int) -> Result<Probed> {
        for _ in 0..2 {
            match to_result(probe()) {
                Ok(()) => return Ok(Probed::Claimed),
                // The info block is there but can't be used: nobody else may have the namespace.
                Err(e) if e == eopnotsupp() || e == ENOMEM => return Err(e),
                Err(_) => (),
            }
        }
        Ok(Probed::Unclaimed)
    }

    /// Asks the block translation table personality; [`ENOMEM`].
    pub(crate) fn probe_btt(&self) -> Result<Probed> {
        // SAFETY: By the type invariant.
        Self::claim(|| unsafe { bindings::nd_btt_probe(self.dev, self.ndns) })
    }

    /// Asks the page map personality; `EOPNOTSUPP` if its info block can't be served, [`ENOMEM`].
    pub(crate) fn probe_page_map(&self) -> Result<Probed> {
        // SAFETY: By the type invariant.
        Self::claim(|| unsafe { bindings::nd_pfn_probe(self.dev, self.ndns) })
    }

    /// Asks the device DAX personality; `EOPNOTSUPP` if its info block can't be served, [`ENOMEM`].
    pub(crate) fn probe_dax(&self) -> Result<Probed> {
        // SAFETY: By the type invariant.
        Self::claim(|| unsafe { bindings::nd_dax_probe(self.dev, self.ndns) })
    }

    /// Reads, or makes and writes, the info block of a page map device.
    ///
    /// Returns the layout of the page map, and the offset of the data in it, in bytes. [`ENODEV`]
    /// if the device is not configured, [`ENXIO`] or [`EINVAL`] if it is no page map device or the
    /// info block makes no sense, [`EBUSY`] if it makes so little that the page map can't be looked
    /// at.
    pub(crate) fn set_up_page_map(self) -> Result<(Layout, u64)> {
        // To look at the page map, libnvdimm disables the namespace and enables it at another size.
        // If that fails, whatever it has left enabled is released by devres after the probe.
        let this = ManuallyDrop::new(self);
        let mut pgmap = super::pagemap::zeroed();

        // SAFETY: By the type invariant.
        if !unsafe { bindings::is_nd_pfn(this.dev) } {
            return Err(ENXIO);
        }
        // SAFETY: `dev` is a page map device.
        let pfn = unsafe { bindings::to_nd_pfn(this.dev) };
        // SAFETY: `pfn` is the device's own, `pgmap` is zeroed as libnvdimm wants it.
        to_result(unsafe { bindings::nvdimm_setup_pfn(pfn, &mut pgmap) })?;
        // SAFETY: A successful set-up leaves a valid info block behind, for as long as the driver
        // is bound.
        let data_offset = u64::from_le(unsafe { (*(*pfn).pfn_sb).dataoff });

        drop(ManuallyDrop::into_inner(this));
        Ok((Layout::from_raw(pgmap), data_offset))
    }
}

impl Drop for InfoAccess<'_> {
    fn drop(&mut self) {
        // SAFETY: Undoes `devm_namespace_enable`, which succeeded for the same pair.
        unsafe { bindings::devm_namespace_disable(self.dev, self.ndns) };
    }
}

/// A region: interleaved memory that is flushed, and goes read-only, as one.
///
/// # Invariants
///
/// An instance is a valid `struct nd_region` that is bound to its driver.
#[repr(transparent)]
pub(crate) struct Region(Opaque<bindings::nd_region>);

// SAFETY: The methods of `Region` are safe to be called from any thread.
unsafe impl Sync for Region {}

/// How a flush on behalf of a [`Bio`] went.
pub(crate) enum Flushed<'a> {
    /// It is over; here is the bio back.
    Done(Bio<'a>, Result),
    /// It goes on in the background, and ends the bio.
    Pending,
}

impl Region {
    fn as_raw(&self) -> *mut bindings::nd_region {
        self.0.get()
    }

    /// Makes all earlier writes of this CPU, and all that other CPUs have fenced, durable. May
    /// sleep where the provider's flush is asynchronous.
    pub(crate) fn flush(&self) -> Result {
        // SAFETY: By the type invariant.
        match unsafe { bindings::nvdimm_flush(self.as_raw(), core::ptr::null_mut()) } {
            // No call for that.
            0 => Ok(()),
            rc => to_result(rc),
        }
    }

    /// As [`Self::flush`], but an asynchronous flush goes on in the background and ends the bio.
    pub(crate) fn flush_for<'a>(&self, bio: Bio<'a>) -> Flushed<'a> {
        let bio = bio.into_raw();

        // SAFETY: By the type invariant; the bio is ours, and if the flush is pending its owner is
        // the provider.
        let rc = unsafe { bindings::nvdimm_flush(self.as_raw(), bio.as_ptr()) };
        if rc == bindings::NVDIMM_FLUSH_ASYNC as c_int {
            return Flushed::Pending;
        }
        // SAFETY: The flush is not pending, so the bio has been left to us.
        let bio = unsafe { Bio::from_raw(bio) };
        match rc {
            0 => Flushed::Done(bio, Ok(())),
            rc => Flushed::Done(bio, to_result(rc)),
        }
    }

    /// Whether writes need a flush to be durable. [`ENXIO`] if that can't be known.
    pub(crate) fn has_flush(&self) -> Result<bool> {
        // SAFETY: By the type invariant.
        let rc = unsafe { bindings::nvdimm_has_flush(self.as_raw()) };

        to_result(rc).map(|()| rc > 0)
    }

    /// Whether CPU caches are lost with the power, so that stores must be written back.
    pub(crate) fn has_cache(&self) -> bool {
        // SAFETY: By the type invariant.
        unsafe { bindings::nvdimm_has_cache(self.as_raw()) != 0 }
    }

    /// Whether a store is durable once it is out of the CPU's caches, without a flush by the
    /// provider.
    pub(crate) fn is_synchronous(&self) -> bool {
        // SAFETY: By the type invariant.
        unsafe { bindings::is_nvdimm_sync(self.as_raw()) }
    }

    fn bus(&self) -> *mut bindings::nvdimm_bus {
        // SAFETY: By the type invariant; the parent of a region is its bus.
        unsafe { bindings::to_nvdimm_bus((*self.as_raw()).dev.parent) }
    }

    /// Whether the bus has commands. If not, its provider can't clear errors, and does not know of
    /// them.
    pub(crate) fn has_commands(&self) -> bool {
        // SAFETY: A bus and its descriptor outlive the regions on it.
        unsafe { (*(*self.bus()).nd_desc).ndctl.is_some() }
    }

    /// Takes the lock of the bus, with which libnvdimm walks its badrange list. Sleeps.
    pub(crate) fn lock_bus(&self) -> Bus<'_> {
        // SAFETY: By the type invariant; the bus of a region outlives it.
        unsafe { bindings::nvdimm_bus_lock(&raw mut (*self.as_raw()).dev) };
        // INVARIANT: It was just taken.
        Bus(self)
    }

    /// The region's own list, which is that of all its namespaces.
    fn list(&self) -> &BadBlocks {
        // SAFETY: By the type invariant the region is bound: its driver initialises the list before it
        // creates the namespaces.
        unsafe { BadBlocks::from_raw(&raw mut (*self.as_raw()).bb) }
    }

    /// What the physical `addresses` are on the region's list: first sector, and length.
    fn sectors(&self, addresses: &Range<u64>) -> (u64, u64) {
        // SAFETY: By the type invariant; the start of a region does not change.
        let base = unsafe { (*self.as_raw()).ndr_start };
        let start = addresses.start.saturating_sub(base) >> 9;
        let end = addresses.end.saturating_sub(base).div_ceil(512);

        (start, end.saturating_sub(start))
    }

    /// Wakes those who poll the region's `badblocks`.
    pub(crate) fn notify_list(&self) {
        // SAFETY: By the type invariant the region is bound, and its driver holds a reference to the
        // file until it is unbound.
        unsafe {
            let file = (&raw const (*self.as_raw()).bb_state).read_volatile();

            if !file.is_null() {
                kernel::bindings::kernfs_notify(file);
            }
        }
    }
}

/// The bus of a region, locked.
///
/// # Invariants
///
/// The lock of the region's bus is held until the value is dropped.
pub(crate) struct Bus<'a>(&'a Region);

impl Bus<'_> {
    /// The entries of the badrange list that touch the physical addresses `within`, cut to these.
    /// [`ENOMEM`].
    pub(crate) fn badrange(&self, within: &Range<u64>) -> Result<KVVec<Range<u64>>> {
        let mut entries = KVVec::new();

        loop {
            let mut missing = 0_usize;

            entries.clear();
            self.for_each_badrange(|entry| {
                let entry = entry.start.max(within.start)..entry.end.min(within.end);

                if !entry.is_empty() && entries.push_within_capacity(entry).is_err() {
                    missing = missing.saturating_add(1);
                }
            });
            if missing == 0 {
                return Ok(entries);
            }
            entries = KVVec::with_capacity(entries.len().saturating_add(missing), GFP_KERNEL)?;
        }
    }

    /// Calls `see` with the physical addresses of each entry of the badrange list. It must not
    /// sleep.
    fn for_each_badrange(&self, mut see: impl FnMut(Range<u64>)) {
        // SAFETY: The bus outlives the region; `badrange_init` has initialised list and lock.
        let badrange = unsafe { &raw mut (*self.0.bus()).badrange };
        // SAFETY: As above, and the lock is that of a `SpinLock<()>`: a `spinlock_t`.
        let lock = unsafe { SpinLock::<()>::from_raw(&raw mut (*badrange).lock) };
        let guard = lock.lock();
        // SAFETY: The list is initialised, its entries are embedded in `badrange_entry` at `list`,
        // and they are neither added nor freed without `badrange->lock`, which is held.
        let mut node = unsafe { (*badrange).list.next };

        // SAFETY: As above: each node but the head is a live entry.
        while node != unsafe { &raw mut (*badrange).list } {
            // SAFETY: As above.
            let entry = unsafe { &*kernel::container_of!(node, bindings::badrange_entry, list) };

            see(entry.start..entry.start.saturating_add(entry.length));
            node = entry.list.next;
        }
        drop(guard);
    }

    /// Puts the physical `addresses` on the badrange list, and on that of the region. [`ENOMEM`].
    pub(crate) fn add(&self, addresses: &Range<u64>) -> Result {
        let len = addresses.end.saturating_sub(addresses.start);
        let mut known = false;

        // An entry with the same start would get this length, even if its provider has given it more.
        if self.0.has_commands() {
            self.for_each_badrange(|entry| {
                known |= entry.start <= addresses.start && entry.end >= addresses.end;
            });
        }
        if !known {
            // SAFETY: The bus outlives the region.
            to_result(unsafe {
                bindings::nvdimm_bus_add_badrange(self.0.bus(), addresses.start, len)
            })?;
        }
        let (start, len) = self.0.sectors(addresses);
        // One that is full shows what fits.
        let _ = self.0.list().set(start, len);
        Ok(())
    }

    /// Takes the physical `addresses`, which are whole sectors, off the badrange list, and off that
    /// of the region.
    pub(crate) fn forget(&self, addresses: &Range<u64>) {
        let mut start = addresses.start;

        while start < addresses.end {
            let len = u32::try_from(addresses.end.wrapping_sub(start)).unwrap_or(1 << 31);

            // SAFETY: The bus outlives the region. Its lock is held, without which nobody walks the
            // list but under `badrange->lock`.
            unsafe { bindings::badrange_forget(&raw mut (*self.0.bus()).badrange, start, len) };
            start = start.saturating_add(len.into());
        }
        let (mut start, len) = self.0.sectors(addresses);
        let end = start.saturating_add(len);
        let list = self.0.list();

        // `badblocks_clear` keeps an entry that it has no room to split, and nobody would ever take it
        // off again: of what is left of an entry, the list gets what fits.
        while let Some((first, count)) = list.entry_in(start, end.saturating_sub(start)) {
            let behind = first.saturating_add(count);

            list.clear(first, count);
            let _ = list.set(first, start.saturating_sub(first));
            let _ = list.set(end, behind.saturating_sub(end));
            start = behind.max(start.saturating_add(1));
        }
    }
}

impl Drop for Bus<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::nvdimm_bus_unlock(&raw mut (*self.0.as_raw()).dev) };
    }
}

/// A block translation table that serves its namespace: sector mode.
///
/// The disk, its data path and its metadata are those of `nd_btt`.
///
/// # Invariants
///
/// `btt` is a BTT device that is bound for `'bound`, and has claimed a namespace that is enabled until
/// after `'bound`.
pub(crate) struct Btt<'bound> {
    btt: NonNull<bindings::nd_btt>,
    _dev: PhantomData<&'bound Device<Bound>>,
}

// SAFETY: Detaching waits for the users of the disk, which any thread may do.
unsafe impl Send for Btt<'_> {}
// SAFETY: Its list of errors has its own lock; the rest does not change.
unsafe impl Sync for Btt<'_> {}

impl<'bound> Btt<'bound> {
    /// Starts the disk of a BTT device.
    pub(crate) fn attach(
        ns: &Namespace<'bound, '_>,
        scope: &'bound Scope<'bound>,
    ) -> Result<Scoped<'bound, Self>> {
        if !ns.dev.is_btt() {
            return Err(ENXIO);
        }
        // SAFETY: The device is a BTT.
        let btt = unsafe { bindings::to_nd_btt(ns.dev.as_raw()) };
        // INVARIANT: By the type invariant of `Namespace` the BTT has claimed it. Attaching enables it,
        // and devres disables it, after the scope has ended.
        let this = Self {
            btt: NonNull::new(btt).ok_or(ENXIO)?,
            _dev: PhantomData,
        };

        Scoped::new(scope, this, |_| {
            // SAFETY: The device is a BTT that has claimed the namespace, and is probing.
            to_result(unsafe { bindings::nvdimm_namespace_attach_btt(ns.as_raw()) })
        })
    }

    /// The disk, if the BTT is that of `dev`.
    fn disk(&self, dev: &Device<Core<'_>>) -> Option<NonNull<kernel::bindings::gendisk>> {
        // SAFETY: By the type invariant the BTT is valid.
        if unsafe { &raw mut (*self.btt.as_ptr()).dev } != dev.as_raw() {
            return None;
        }
        // SAFETY: By the type invariant the BTT is valid. It is detached when the handle is dropped, which
        // lends `self`, or by the scope, under the device's lock, which is held: it has a disk, or `btt`
        // is null.
        unsafe {
            let btt = (*self.btt.as_ptr()).btt;

            btt.as_ref().and_then(|btt| NonNull::new(btt.btt_disk))
        }
    }

    /// The list of errors that the BTT goes by, in sectors of the namespace.
    pub(crate) fn list(&self) -> &'bound BadBlocks {
        // SAFETY: By the type invariant the namespace is there, and its list initialised; devres
        // releases that after the driver's data are dropped.
        unsafe {
            let nsio = (*self.btt.as_ptr())
                .ndns
                .cast::<bindings::nd_namespace_io>();

            BadBlocks::from_raw(&raw mut (*nsio).bb)
        }
    }

    /// Makes the BTT's disk read-only, or writable again, as its region is.
    pub(crate) fn follow_read_only(&self, dev: &Device<Core<'_>>) {
        if let Some(disk) = self.disk(dev) {
            // SAFETY: The disk is that of `dev`, whose lock is held, and whose parent is a region.
            unsafe { bindings::nvdimm_check_and_set_ro(disk.as_ptr()) };
        }
    }

    /// Makes the BTT's disk read-only.
    pub(crate) fn set_read_only(&self, dev: &Device<Core<'_>>) {
        if let Some(disk) = self.disk(dev) {
            // SAFETY: The disk is that of `dev`, whose lock is held.
            unsafe { kernel::bindings::set_disk_ro(disk.as_ptr(), true) };
        }
    }
}

// SAFETY: A BTT that is detached has no disk any more that would use it. Its list is that of the
// namespace, which stays until after `'bound`, and the other methods look whether there is a disk.
unsafe impl Registered for Btt<'_> {
    unsafe fn unregister(&self) {
        // SAFETY: It was attached when it was registered, and is detached only here.
        unsafe { bindings::nvdimm_namespace_detach_btt(self.btt.as_ptr()) };
    }
}
