// SPDX-License-Identifier: GPL-2.0

//! Binding to a namespace: which mode it is in, and what is set up for it.
//!
//! | mode (`ndctl`) | device that is probed | result of the probe                                |
//! |----------------|-----------------------|----------------------------------------------------|
//! | raw            | namespace             | [`Mode::Mapped`]; with `struct page`s where the region asks for them |
//! | fsdax          | namespace, then pfn   | declined; libnvdimm creates the pfn device: [`Mode::Mapped`] |
//! | sector         | namespace, then btt   | declined; libnvdimm creates the btt device: [`Mode::Sector`] |
//! | devdax         | namespace             | declined; libnvdimm creates a dax device, for `dax_pmem` |

#![forbid(unsafe_code)]

use crate::{
    abstractions::{
        badblocks::BadblocksTable,
        block::{
            Disk,
            UnregisteredDisk, //
        },
        dax::{
            DaxDevice,
            FailureLink,
            Properties,
            Registration, //
        },
        errno::eopnotsupp,
        iomem,
        memory::Memory,
        memory_errors,
        memremap::{
            orphans,
            Layout, //
        },
        nd::{
            Btt,
            Device,
            Event,
            InfoAccess,
            Namespace, //
        },
        scope::{
            Scope,
            Scoped, //
        }, //
    },
    badblocks::{
        Badblocks,
        Failures,
        Table, //
    },
    control::{
        Control,
        InjectFile, //
    },
    disk::PmemDisk,
    flush::{
        Flush,
        LastFlush, //
    },
    media::Media,
    units::{
        half_open,
        SECTOR_SHIFT, //
    }, //
};
use core::ops::{
    Range,
    RangeInclusive, //
};
use kernel::{
    device::{
        Bound,
        Core, //
    },
    page::PAGE_SIZE,
    prelude::*,
    sync::Arc, //
};

/// A namespace that the driver is bound to.
///
/// Fields are dropped from the top: first nobody can start to use the memory, and the file system
/// is notified; then I/O ends, all writes are made durable, and the memory is unmapped; last, the
/// bad blocks are handed over to the bus.
pub(crate) struct BoundNamespace<'bound> {
    #[expect(dead_code, reason = "held to be dropped")]
    inject: Option<InjectFile<'bound>>,
    mode: Mode<'bound>,
    flush: LastFlush<'bound>,
    control: Arc<Control<'bound>>,
    #[expect(dead_code, reason = "held to be dropped")]
    memory_errors: Scoped<'bound, memory_errors::Listener<Badblocks<'bound>>>,
}

/// How a namespace is served. Fields are dropped from the top.
enum Mode<'bound> {
    /// Through a block translation table, which makes sector writes atomic; the disk is that of
    /// `nd_btt`.
    Sector(Scoped<'bound, Btt<'bound>>),
    /// Mapped, with a block device and a DAX device of this driver.
    Mapped {
        #[expect(dead_code, reason = "held to be dropped")]
        dax: Option<Scoped<'bound, Registration<'bound, Media<'bound>>>>,
        disk: Scoped<'bound, Disk<PmemDisk<'bound>>>,
    },
}

impl<'bound> BoundNamespace<'bound> {
    /// Binds to the namespace that `dev` is, or has claimed.
    ///
    /// [`ENXIO`] if a device of another mode claims the namespace, `EOPNOTSUPP` if its info block
    /// is valid but cannot be served, [`EBUSY`] if pages of an earlier binding are in use.
    pub(crate) fn probe(
        dev: &'bound Device<Core<'_>>,
        scope: &'bound Scope<'bound>,
    ) -> Result<Self> {
        let ns = dev.namespace()?;

        if let Some(frame) = orphans::frame_in_use(&ns.range()) {
            dev_warn!(
                dev.as_ref(),
                "page frame {frame:#x} of an earlier binding is in use: close the files that map it, or unmount their file system\n"
            );
            return Err(EBUSY);
        }
        if dev.is_btt() {
            return Self::new_sector(dev, &ns, scope);
        }
        if !dev.is_pfn() {
            decline_if_claimed(dev, &ns)?;
        }
        Self::new_mapped(dev, &ns, scope)
    }

    fn new_sector(
        dev: &'bound Device<Core<'_>>,
        ns: &Namespace<'bound, '_>,
        scope: &'bound Scope<'bound>,
    ) -> Result<Self> {
        let bound: &'bound Device<Bound> = dev;
        let namespace = half_open(&ns.range());
        let before = bound.region().lock_bus().badranges(&namespace)?;
        let btt = Btt::attach(ns, scope)?;

        // Its disk is there, and writable.
        follow_read_only(&btt, dev);
        if !bound.region().is_synchronous() {
            dev_warn!(
                dev.as_ref(),
                "sector mode is read-only where a flush has to wait for the host\n"
            );
        }
        let table = Table::Btt(btt.badblocks());
        let badblocks = Badblocks::new(bound, namespace.clone(), namespace, table, scope)?;
        // On failure it is detached before the bad blocks are dropped, as in `Self`.
        let btt = btt;

        let memory_errors = memory_errors::Listener::new(badblocks.clone(), scope)?;

        badblocks.fill(&before)?;

        let control = Control::new(badblocks.clone(), None)?;

        Ok(Self {
            inject: control.add_inject_file(bound, scope),
            mode: Mode::Sector(btt),
            flush: LastFlush::new(Flush::new(bound.region()), bound.as_ref()),
            control,
            memory_errors,
        })
    }

    fn new_mapped(
        dev: &'bound Device<Core<'_>>,
        ns: &Namespace<'bound, '_>,
        scope: &'bound Scope<'bound>,
    ) -> Result<Self> {
        let bound: &'bound Device<Bound> = dev;
        let range = ns.range();

        let mapping = Mapping::set_up(dev, ns)?;
        let claim = ns.claim().inspect_err(|_| {
            dev_warn!(
                dev.as_ref(),
                "could not reserve region [mem {:#010x}-{:#010x}]\n",
                range.start(),
                range.end()
            )
        })?;
        let link = Arc::new(FailureLink::new(), GFP_KERNEL)?;
        let data = mapping.data(&range)?;
        let table = Table::Disk(KBox::pin_init(BadblocksTable::new(), GFP_KERNEL)?);
        let badblocks = Badblocks::new(bound, half_open(&range), half_open(&data), table, scope)?;

        // First: nobody else keeps an error that is reported while the list is read.
        let memory_errors = memory_errors::Listener::new(badblocks.clone(), scope)?;

        badblocks.fill(&[])?;
        ensure_memmap_is_good(dev, &mapping, &badblocks)?;
        let failures = Failures::new(badblocks.clone(), link.clone());
        let memory = mapping.map(dev, claim, failures, scope)?;
        let media = Arc::new(Media::new(bound, memory, badblocks.clone())?, GFP_KERNEL)?;
        let control = Control::new(badblocks, Some(media.clone()))?;

        let device = dax_device(dev, &media, scope)?;
        let limits = PmemDisk::limits(&media, ns.sector_size(), needs_flush(dev));
        let sectors = (media.memory.len() >> SECTOR_SHIFT) as u64;
        let name = ns.disk_name();
        let flush = Flush::for_disk(bound.region(), dev.as_ref(), name, scope)?;
        let data = PmemDisk::new(media, flush.clone(), device.clone());
        let disk = UnregisteredDisk::new(&limits, dev.numa_node(), sectors, data, name)?;
        let dax = match device {
            Some(device) => Some(Registration::new(device, disk.as_ref(), link, scope)?),
            None => None,
        };
        let disk = disk.register(dev.as_ref(), scope)?;

        dev.follow_read_only(&disk);
        if control.badblocks().publish(dev.as_ref(), &disk).is_err() {
            dev_warn!(dev.as_ref(), "'badblocks' notification disabled\n");
        }
        Ok(Self {
            inject: control.add_inject_file(bound, scope),
            mode: Mode::Mapped { dax, disk },
            flush: LastFlush::new(flush, bound.as_ref()),
            control,
            memory_errors,
        })
    }

    /// The errors of the namespace.
    pub(crate) fn control(&self) -> &Control<'bound> {
        &self.control
    }

    /// Makes all writes durable before the machine goes down.
    pub(crate) fn shut_down(&self) {
        self.flush.now();
    }

    /// Handles a change of the region.
    pub(crate) fn notify(&self, dev: &Device<Core<'_>>, event: Event) {
        match (&self.mode, event) {
            (_, Event::RevalidatePoison) => self.control.badblocks().read_badrange(),
            (Mode::Sector(btt), Event::RevalidateRegion) => follow_read_only(btt, dev),
            (Mode::Mapped { disk, .. }, Event::RevalidateRegion) => dev.follow_read_only(disk),
        }
    }
}

/// Makes the BTT's disk read-only, or writable again, as the region is.
///
/// It is always read-only where the provider flushes asynchronously (virtio-pmem): `nd_btt` flushes
/// with a spinlock held, and cannot wait for the host.
fn follow_read_only(btt: &Btt<'_>, dev: &Device<Core<'_>>) {
    if dev.region().is_synchronous() {
        btt.follow_read_only(dev);
    } else {
        btt.set_read_only(dev);
    }
}

/// Fails with [`ENXIO`] if an info block assigns the namespace to another mode, and with [`EIO`] if
/// that is unknown.
fn decline_if_claimed(dev: &Device<Core<'_>>, ns: &Namespace<'_, '_>) -> Result {
    let info = ns.enable()?;

    info.ensure_no_btt()?;
    info.ensure_no_pfn()?;
    info.ensure_no_dax()?;
    refuse_if_unreadable(dev, ns, &info)
}

/// Fails with [`EIO`] if the info block can't be read, but a label says that there is one:
/// libnvdimm takes it for none, and in raw mode the data would be elsewhere. Without a label nobody
/// knows whether there is one.
fn refuse_if_unreadable(
    dev: &Device<Core<'_>>,
    ns: &Namespace<'_, '_>,
    info: &InfoAccess<'_>,
) -> Result {
    if ns.is_forced_raw() || info.is_readable()? {
        return Ok(());
    }
    let address = info.address();

    if ns.is_labelled_with_mode() {
        dev_err!(
            dev.as_ref(),
            "error at {address:#x}, in the info block: write over it in raw mode (force_raw)\n"
        );
        return Err(EIO);
    }
    dev_warn!(
        dev.as_ref(),
        "error at {address:#x}, where an info block may be: bound in raw mode\n"
    );
    Ok(())
}

/// How the memory of a namespace is mapped, and where its data area begins.
enum Mapping {
    /// With `struct page`s; the data area begins at this offset, in bytes.
    Pages(Layout, u64),
    /// Without `struct page`s.
    Plain,
}

impl Mapping {
    fn set_up(dev: &Device<Core<'_>>, ns: &Namespace<'_, '_>) -> Result<Self> {
        if dev.is_pfn() {
            return Self::set_up_pfn(dev, ns);
        }
        Ok(if dev.should_map_pages() {
            Self::Pages(Layout::in_ram(&ns.range()), 0)
        } else {
            Self::Plain
        })
    }

    fn set_up_pfn(dev: &Device<Core<'_>>, ns: &Namespace<'_, '_>) -> Result<Self> {
        // The caller claims the range, and then the info block can't be read any more. On a bus
        // without commands, `Badblocks::fill` adds the bad blocks to the region again.
        let (layout, data_offset) = ns.setup_pfn()?;

        if let Some(memmap) = layout.memmap() {
            clear_memmap(dev, &memmap)?;
        }
        Ok(Self::Pages(layout, data_offset))
    }

    /// The physical addresses of the data area of a namespace at `range`.
    fn data(&self, range: &RangeInclusive<u64>) -> Result<RangeInclusive<u64>> {
        match self {
            Self::Plain => Ok(range.clone()),
            Self::Pages(layout, data_offset) => {
                let pages = layout.range();
                let start = pages.start().checked_add(*data_offset).ok_or(ENXIO)?;

                Ok(start..=*pages.end())
            }
        }
    }

    fn map<'bound>(
        self,
        dev: &Device<Core<'_>>,
        claim: iomem::Claim,
        failures: Failures<'bound>,
        scope: &'bound Scope<'bound>,
    ) -> Result<Memory<'bound, Failures<'bound>>> {
        match self {
            Self::Plain => Memory::remap(claim, scope),
            Self::Pages(layout, data_offset) => {
                Memory::map_pages(layout, data_offset, dev.numa_node(), claim, failures, scope)
            }
        }
    }
}

/// Clears poison in the memory for `struct page`s, which has no data, if the bus can. [`ENOMEM`].
///
/// libnvdimm has cleared what it found there. It looks at the region's bad blocks, which may be
/// full, and (7.2, 7.3) at other sectors of these if the namespace does not begin where the region
/// does.
fn clear_memmap(dev: &Device<Core<'_>>, memmap: &Range<u64>) -> Result {
    if !dev.region().has_clear_error() {
        return Ok(());
    }
    let bad = dev.region().lock_bus().badranges(memmap)?;

    for range in &bad {
        let mut page = range.start & !(PAGE_SIZE as u64 - 1);

        while page < range.end {
            // What can't be cleared stays in the list.
            // CAST: A page has less than 4 GiB.
            let _ = dev.clear_poison(page, PAGE_SIZE as u32);
            page = page.saturating_add(PAGE_SIZE as u64);
        }
    }
    Ok(())
}

/// Fails with [`EIO`] if memory for `struct page`s is bad: the kernel would not survive reading
/// them.
fn ensure_memmap_is_good(
    dev: &Device<Core<'_>>,
    mapping: &Mapping,
    badblocks: &Badblocks<'_>,
) -> Result {
    let Mapping::Pages(layout, _) = mapping else {
        return Ok(());
    };
    let bad = layout
        .memmap()
        .and_then(|memmap| badblocks.first_at(&memmap));

    if let Some(address) = bad {
        dev_warn!(
            dev.as_ref(),
            "error at {address:#x}, in the memory for struct pages: write over it in raw mode, or use --map=mem\n"
        );
        return Err(EIO);
    }
    Ok(())
}

/// Returns whether writes need a flush to be durable. Warns, and returns `false`, if that is
/// unknown.
fn needs_flush(dev: &Device<Core<'_>>) -> bool {
    dev.region().has_flush().unwrap_or_else(|_| {
        dev_warn!(dev.as_ref(), "unable to guarantee persistence of writes\n");
        false
    })
}

/// Creates the DAX device over `media`. Warns, and returns `None`, if there can't be one.
fn dax_device<'bound>(
    dev: &Device<Core<'_>>,
    media: &Arc<Media<'bound>>,
    scope: &'bound Scope<'bound>,
) -> Result<Option<Arc<Scoped<'bound, DaxDevice<Media<'bound>>>>>> {
    let properties = Properties {
        synchronous: dev.region().is_synchronous(),
        write_cache: dev.region().has_cache(),
    };

    match DaxDevice::new(media.clone(), properties, scope) {
        Ok(device) => Ok(Some(Arc::new(device, GFP_KERNEL)?)),
        Err(e) if e == eopnotsupp() => {
            dev_warn!(
                dev.as_ref(),
                "no DAX device: files on the disk can't be mapped directly\n"
            );
            Ok(None)
        }
        Err(e) => Err(e),
    }
}
