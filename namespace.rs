// SPDX-License-Identifier: GPL-2.0

//! The personalities of a namespace, and how each is set up.
//!
//! | mode (`ndctl`) | device that is probed | what becomes of it                                 |
//! |----------------|-----------------------|----------------------------------------------------|
//! | raw            | namespace             | [`Attached`]; with `struct page`s where the region says so |
//! | fsdax          | namespace, then pfn   | declined; libnvdimm makes the pfn device: [`Attached`] |
//! | sector         | namespace, then btt   | declined; libnvdimm makes the btt device: [`Personality::Sector`] |
//! | devdax         | namespace             | declined; libnvdimm makes a dax device, for `dax_pmem` |

#![forbid(unsafe_code)]

use crate::{
    abstractions::{
        badblocks::BadBlocks,
        block::{
            Disk,
            Limits,
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
        mce,
        memory::Memory,
        memremap::Layout,
        nd::{
            Btt,
            Device,
            Event,
            Namespace,
            Probed,
            Region, //
        },
        orphans,
        scope::{
            Scope,
            Scoped, //
        },
        sysfs::Window, //
    },
    badblocks::{
        Badblocks,
        Failures,
        Table, //
    },
    control::Command,
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
use core::ops::RangeInclusive;
use kernel::{
    device::{
        Bound,
        Core, //
    },
    prelude::*,
    sizes::SZ_16M,
    sync::Arc, //
};

/// What a bound device serves its namespace as.
pub(crate) enum Personality<'bound> {
    /// Through a block translation table, which makes sector writes atomic; the disk is `nd_btt`'s.
    Sector(Sector<'bound>),
    /// As it is: block device and DAX device are ours.
    Memory(Attached<'bound>),
}

/// A namespace in sector mode. Fields are dropped from the top.
pub(crate) struct Sector<'bound> {
    btt: Scoped<'bound, Btt<'bound>>,
    flush: LastFlush<'bound>,
    badblocks: Arc<Badblocks<'bound>>,
    region: &'bound Region,
    #[expect(dead_code, reason = "held to be dropped")]
    machine_checks: Scoped<'bound, mce::Listener<Badblocks<'bound>>>,
}

/// A namespace with its block device and DAX device. Fields are dropped from the top: no new users
/// and the file system told, no more I/O, all made durable, the memory unmapped.
pub(crate) struct Attached<'bound> {
    #[expect(dead_code, reason = "held to be dropped")]
    dax: Option<Scoped<'bound, Registration<'bound, Media<'bound>>>>,
    disk: Scoped<'bound, Disk<PmemDisk<'bound>>>,
    flush: LastFlush<'bound>,
    media: Arc<Media<'bound>>,
    #[expect(dead_code, reason = "held to be dropped")]
    machine_checks: Scoped<'bound, mce::Listener<Badblocks<'bound>>>,
}

impl<'bound> Personality<'bound> {
    /// Sets up the personality that `dev` is, or declines it for another one: [`ENXIO`] if that is
    /// on its way, `EOPNOTSUPP` if its info block can't be served by anybody, [`EBUSY`] if pages of an
    /// earlier binding are in use.
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
            return Ok(Self::Sector(Sector::new(dev, &ns, scope)?));
        }
        if !dev.is_page_map() {
            decline_if_claimed(&ns)?;
        }
        Ok(Self::Memory(Attached::new(dev, &ns, scope)?))
    }

    /// Makes all that was written durable: the machine goes down.
    pub(crate) fn shut_down(&self) {
        // As at unbind, nobody is left to be told of a failure.
        let _ = self.flush().now();
    }

    /// Follows a change of the region.
    pub(crate) fn notify(&self, dev: &Device<Core<'_>>, event: Event) {
        match (self, event) {
            (_, Event::RevalidatePoison) => self.badblocks().read_badrange(),
            (Self::Sector(s), Event::RevalidateRegion) => s.follow_read_only(dev),
            (Self::Memory(m), Event::RevalidateRegion) => dev.follow_read_only(&m.disk),
        }
    }

    /// Writes the lines of all errors of the namespace.
    pub(crate) fn list_errors(&self, to: &mut Window<'_>) {
        self.badblocks().show(to);
    }

    /// Carries out what is read from `text`, as by [`Command::parse`]. Fails as that does, and as
    /// what is to be done.
    pub(crate) fn command(&self, text: &[u8], inject: bool) -> Result {
        let badblocks = self.badblocks();

        match (Command::parse(text, badblocks.namespace(), inject)?, self) {
            (Command::Add(addresses, origin), _) => badblocks.add(&addresses, origin),
            (Command::Drop(addresses), Self::Sector(_)) => badblocks.remove(&addresses),
            (Command::Drop(addresses), Self::Memory(m)) => m.media.drop_errors(&addresses),
            (Command::Poison(_), Self::Sector(_)) => Err(eopnotsupp()),
            (Command::Poison(addresses), Self::Memory(m)) => m.media.poison(&addresses),
        }
    }

    fn badblocks(&self) -> &Badblocks<'bound> {
        match self {
            Self::Sector(s) => &s.badblocks,
            Self::Memory(m) => m.media.badblocks(),
        }
    }

    fn flush(&self) -> Flush<'bound> {
        match self {
            Self::Sector(s) => s.flush.0,
            Self::Memory(m) => m.flush.0,
        }
    }
}

impl<'bound> Sector<'bound> {
    fn new(
        dev: &'bound Device<Core<'_>>,
        ns: &Namespace<'bound, '_>,
        scope: &'bound Scope<'bound>,
    ) -> Result<Self> {
        let bound: &'bound Device<Bound> = dev;
        let region = bound.region();
        let btt = Btt::attach(ns, scope)?;
        let flush = LastFlush(Flush::new(region));
        let namespace = half_open(&ns.range());

        if !region.is_synchronous() {
            dev_warn!(
                dev.as_ref(),
                "sector mode is read-only where a flush has to wait for the host\n"
            );
        }
        let table = Table::Btt(btt.list());
        let badblocks = Badblocks::new(bound, namespace.clone(), namespace, table, scope)?;
        let machine_checks = mce::Listener::new(badblocks.clone(), scope)?;
        let this = Self {
            btt,
            flush,
            badblocks,
            region,
            machine_checks,
        };

        this.follow_read_only(dev);
        Ok(this)
    }

    /// Makes the disk read-only, or writable again, as the region is.
    ///
    /// Always read-only where the provider's flush is asynchronous: `nd_btt` flushes with a spinlock
    /// held, and can't wait then.
    fn follow_read_only(&self, dev: &Device<Core<'_>>) {
        if self.region.is_synchronous() {
            self.btt.follow_read_only(dev);
        } else {
            self.btt.set_read_only(dev);
        }
    }
}

/// [`ENXIO`] if an info block says that the namespace is another personality's.
fn decline_if_claimed(ns: &Namespace<'_, '_>) -> Result {
    let info = ns.enable()?;

    if let Probed::Claimed = info.probe_btt()? {
        return Err(ENXIO);
    }
    if let Probed::Claimed = info.probe_page_map()? {
        return Err(ENXIO);
    }
    if let Probed::Claimed = info.probe_dax()? {
        return Err(ENXIO);
    }
    Ok(())
}

/// How the memory of a namespace is to be mapped, and where its data is.
enum Mapping {
    /// With `struct page`s; the data begins at this offset, in bytes.
    Pages(Layout, u64),
    /// Without.
    Plain,
}

impl Mapping {
    fn of(dev: &Device<Core<'_>>, ns: &Namespace<'_, '_>) -> Result<Self> {
        if dev.is_page_map() {
            // The info block must be read before the range is claimed below.
            let (layout, data_offset) = ns.enable()?.set_up_page_map()?;

            return Ok(Self::Pages(layout, data_offset));
        }
        Ok(if dev.maps_pages_by_default() {
            Self::Pages(Layout::in_ram(&ns.range()), 0)
        } else {
            Self::Plain
        })
    }

    /// The physical addresses of the data, of a namespace at `range`.
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
        range: &RangeInclusive<u64>,
        claim: iomem::Claim,
        failures: Failures<'bound>,
    ) -> Result<Memory<Failures<'bound>>> {
        match self {
            Self::Plain => Memory::remap(range, claim),
            Self::Pages(layout, data_offset) => {
                Memory::map_pages(layout, dev.numa_node(), claim, failures)?
                    .skip(usize::try_from(data_offset).map_err(|_| ENXIO)?)
            }
        }
    }
}

/// How many sectors are zeroed at once, 16 MiB: a bio could ask for 4 GiB, and nobody else would get
/// the CPU for as long as that takes.
const WRITE_ZEROES: u32 = (SZ_16M >> SECTOR_SHIFT) as u32;

/// Whether writes need a flush to be durable; `false`, and a warning, where that can't be known.
fn needs_flush(dev: &Device<Core<'_>>) -> bool {
    match dev.region().has_flush() {
        Ok(needed) if cfg!(CONFIG_ARCH_HAS_UACCESS_FLUSHCACHE) => needed,
        _ => {
            dev_warn!(dev.as_ref(), "unable to guarantee persistence of writes\n");
            false
        }
    }
}

/// The DAX device over `media`; none, and a warning, where there can't be one.
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

impl<'bound> Attached<'bound> {
    fn new(
        dev: &'bound Device<Core<'_>>,
        ns: &Namespace<'bound, '_>,
        scope: &'bound Scope<'bound>,
    ) -> Result<Self> {
        let bound: &'bound Device<Bound> = dev;
        let flush = Flush::new(bound.region());
        let range = ns.range();

        let mapping = Mapping::of(dev, ns)?;
        let claim = iomem::Claim::new(&range, ns.device()).inspect_err(|_| {
            dev_warn!(
                dev.as_ref(),
                "could not reserve region [mem {:#010x}-{:#010x}]\n",
                range.start(),
                range.end()
            )
        })?;
        let link = Arc::new(FailureLink::new(), GFP_KERNEL)?;
        let data = mapping.data(&range)?;
        let table = Table::Disk(KBox::pin_init(BadBlocks::new(), GFP_KERNEL)?);
        let badblocks = Badblocks::new(bound, half_open(&range), half_open(&data), table, scope)?;
        let machine_checks = mce::Listener::new(badblocks.clone(), scope)?;
        let failures = Failures::new(badblocks.clone(), link.clone());
        let memory = mapping.map(dev, &range, claim, failures)?;
        let media = Arc::new(Media::new(bound, memory, badblocks)?, GFP_KERNEL)?;

        let device = dax_device(dev, &media, scope)?;
        let limits = Limits {
            logical_block_size: ns.sector_size(),
            write_cache: true,
            fua: needs_flush(dev),
            dax: media.dax(),
            write_zeroes: WRITE_ZEROES,
        };
        let sectors = (media.size() >> SECTOR_SHIFT) as u64;
        let data = PmemDisk::new(media.clone(), flush, device.clone());
        let disk = UnregisteredDisk::new(&limits, dev.numa_node(), sectors, data, |name| {
            ns.name_disk(name)
        })?;
        let dax = match device {
            Some(device) => Some(Registration::new(device, disk.as_ref(), link, scope)?),
            None => None,
        };
        let disk = disk.register(dev.as_ref(), scope)?;

        dev.follow_read_only(&disk);
        if media.badblocks().publish(dev.as_ref(), &disk).is_err() {
            dev_warn!(dev.as_ref(), "'badblocks' notification disabled\n");
        }
        Ok(Self {
            dax,
            disk,
            flush: LastFlush(flush),
            media,
            machine_checks,
        })
    }
}
