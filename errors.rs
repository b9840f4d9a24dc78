// SPDX-License-Identifier: GPL-2.0

//! What is known of the errors of a namespace, in any mode: exactly, with where it is known from,
//! and for the next binding as well.
//!
//! The list is the bus's. Users read it, add to it and take off it by the file `errors/list` of the
//! bound device: [`Command`]. (Documentation/ABI/sysfs-bus-nd-errors)

#![forbid(unsafe_code)]

use crate::{
    abstractions::{
        badblocks::BadBlocks,
        nd::Region,
        sysfs::Window, //
    },
    coarse::Coarse,
    units::{
        intersection,
        Sectors,
        SECTOR_SHIFT, //
    }, //
};
use core::{
    fmt::Write,
    ops::Range, //
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::Mutex, //
};

/// Where an error is known from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The bus knew of it: from the platform's log, or from an earlier binding.
    Log,
    /// A machine check on the memory.
    MachineCheck,
    /// The kernel's memory-failure recovery, which is told of pages.
    MemoryFailure,
    /// Somebody wrote it to a file.
    User,
    /// A list that was saved before.
    Restored,
    /// The device's own list, which no driver reads (CXL poison).
    Device,
    /// Somebody tries what happens.
    Injected,
}

impl Origin {
    /// Those that a user may name, with their names.
    const GIVEN: [Self; 3] = [Self::User, Self::Restored, Self::Device];

    fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::MachineCheck => "machine-check",
            Self::MemoryFailure => "memory-failure",
            Self::User => "user",
            Self::Restored => "restored",
            Self::Device => "device",
            Self::Injected => "injected",
        }
    }
}

/// An error that the bus does not know the origin of.
#[derive(Clone, Copy)]
struct Report {
    start: u64,
    len: u32,
    origin: Origin,
}

/// The last reports: the oldest goes when there is a new one.
struct Reports {
    ring: KVec<Report>,
    next: usize,
}

impl Reports {
    /// How many are remembered.
    const CAPACITY: usize = 512;

    /// [`ENOMEM`].
    fn new() -> Result<Self> {
        let nothing = Report {
            start: 0,
            len: 0,
            origin: Origin::Log,
        };

        Ok(Self {
            ring: KVec::from_elem(nothing, Self::CAPACITY, GFP_KERNEL)?,
            next: 0,
        })
    }

    fn note(&mut self, addresses: &Range<u64>, origin: Origin) {
        if let Some(slot) = self.ring.get_mut(self.next) {
            *slot = Report {
                start: addresses.start,
                len: u32::try_from(addresses.end.saturating_sub(addresses.start))
                    .unwrap_or(u32::MAX),
                origin,
            };
        }
        self.next = self.next.wrapping_add(1) % Self::CAPACITY;
    }

    /// Where the newest report of `address` came from; `None` if it is not remembered.
    fn origin(&self, address: u64) -> Option<Origin> {
        let (newer, older) = self.ring.split_at_checked(self.next).unwrap_or_default();

        Iterator::chain(newer.iter().rev(), older.iter().rev())
            .find(|report| address.wrapping_sub(report.start) < report.len.into())
            .map(|report| report.origin)
    }
}

/// The errors of a namespace, as the bus has them.
#[pin_data]
pub(crate) struct ErrorLog<'bound> {
    region: &'bound Region,
    namespace: Range<u64>,
    #[pin]
    reports: Mutex<Reports>,
}

impl<'bound> ErrorLog<'bound> {
    /// The errors at the physical addresses `namespace` of `region`. [`ENOMEM`].
    pub(crate) fn new(
        region: &'bound Region,
        namespace: Range<u64>,
    ) -> impl PinInit<Self, Error> + 'bound {
        try_pin_init!(Self {
            region,
            namespace,
            reports <- new_mutex!(Reports::new()?),
        }? Error)
    }

    /// The region that the namespace is in.
    pub(crate) fn region(&self) -> &'bound Region {
        self.region
    }

    /// What the physical `addresses` are on a list of the namespace's own.
    pub(crate) fn sectors(&self, addresses: &Range<u64>) -> Sectors {
        Sectors::of_addresses(addresses, self.namespace.start)
    }

    /// What of the physical `addresses` is the namespace's.
    pub(crate) fn of_namespace(&self, addresses: &Range<u64>) -> Option<Range<u64>> {
        intersection(addresses, &self.namespace)
    }

    /// Remembers where the errors at the physical `addresses`, which are listed already, are known
    /// from.
    pub(crate) fn note(&self, addresses: &Range<u64>, origin: Origin) {
        self.reports.lock().note(addresses, origin);
    }

    /// Where the error at the physical `address` is known from, if that is remembered.
    pub(crate) fn origin(&self, address: u64) -> Option<Origin> {
        self.reports.lock().origin(address)
    }

    /// Puts an error at the physical `addresses`, which are the namespace's, on the lists of the bus
    /// and of the region, so that it is found again when a driver is bound again. [`ENOMEM`]. Sleeps.
    pub(crate) fn add(&self, addresses: &Range<u64>, origin: Origin) -> Result {
        if !self.knows(addresses) {
            self.region.add_to_log(addresses).inspect_err(|_| {
                pr_warn!(
                    "error at {:#x}: no memory to list it for the region\n",
                    addresses.start
                )
            })?;
            self.note(addresses, origin);
        }
        self.region_list().add(&self.sectors_of_region(addresses));
        self.region.notify_list();
        Ok(())
    }

    fn region_list(&self) -> Coarse<'_> {
        let addresses = self.region.addresses();

        Coarse::new(self.region.list(), self.sectors_of_region(&addresses).len)
    }

    /// What the physical `addresses` are on the region's list.
    fn sectors_of_region(&self, addresses: &Range<u64>) -> Sectors {
        Sectors::of_addresses(addresses, self.region.addresses().start)
    }

    /// Lists for the region what the bus knows of the namespace: libnvdimm leaves out what does not
    /// fit.
    #[inline(never)]
    pub(crate) fn complete_region_list(&self) {
        if self.region_list().is_full() {
            self.fill_region_list();
        }
    }

    #[inline(never)]
    fn fill_region_list(&self) {
        let list = self.region_list();

        self.region.for_each_error(|entry| {
            if let Some(addresses) = self.of_namespace(&entry) {
                list.add(&self.sectors_of_region(&addresses));
            }
        });
    }

    /// Takes off the region's list what is there for being near `healed`, which are physical addresses,
    /// where the bus knows of no errors.
    pub(crate) fn clear_region_gaps(&self, healed: &Range<u64>) {
        let base = self.region.addresses().start;

        self.region_list()
            .clear_gaps(&self.sectors_of_region(healed), &|block| {
                self.has_errors(block, base)
            });
        // What was reported at the same moment.
        self.fill_region_list();
        self.region.notify_list();
    }

    /// Whether the bus knows of errors in `sectors` of an area that begins at the physical address
    /// `base`.
    #[inline(never)]
    pub(crate) fn has_errors(&self, sectors: &Sectors, base: u64) -> bool {
        let start = base.saturating_add(sectors.start << SECTOR_SHIFT);
        let end = start.saturating_add(sectors.len << SECTOR_SHIFT);
        let mut found = false;

        self.region
            .for_each_error(|entry| found |= intersection(&entry, &(start..end)).is_some());
        found
    }

    /// Takes the physical `addresses`, which are whole sectors, off the lists of the bus and of the
    /// region.
    pub(crate) fn forget(&self, addresses: &Range<u64>) {
        let Sectors { start, len } = self.sectors_of_region(addresses);

        self.region.take_off_log(addresses);
        self.region.list().clear(start, len);
        self.region.notify_list();
    }

    /// Whether one entry of the bus's list has all of `addresses`: adding them again could make it
    /// smaller (`add_badrange` overwrites the length of an entry that has the same start).
    fn knows(&self, addresses: &Range<u64>) -> bool {
        let mut found = false;

        self.region.for_each_error(|entry| {
            found |= entry.start <= addresses.start && entry.end >= addresses.end;
        });
        found
    }

    /// Calls `see` with what of `list`, whose sectors are those of the physical addresses from `base`
    /// on, the bus does not know.
    pub(crate) fn for_each_unknown(
        &self,
        list: &BadBlocks,
        base: u64,
        mut see: impl FnMut(Range<u64>),
    ) {
        let sector = |address: u64| address.saturating_sub(base) >> SECTOR_SHIFT;
        let mut index = 0_usize;

        while let Some((start, len)) = list.entry(index) {
            let end = start.saturating_add(len);
            let mut at = start;

            while at < end {
                let (mut next, mut known_to) = (end, at);

                self.region.for_each_error(|entry| {
                    let (first, after) =
                        (sector(entry.start), sector(entry.end.saturating_add(511)));

                    if first > at {
                        next = next.min(first);
                    } else {
                        known_to = known_to.max(after);
                    }
                });
                if known_to == at {
                    let address = |sector: u64| base.saturating_add(sector << SECTOR_SHIFT);

                    see(address(at)..address(next));
                    known_to = next;
                }
                at = known_to;
            }
            index = index.saturating_add(1);
        }
    }

    /// Writes the lines of all errors of the namespace that the bus knows of.
    pub(crate) fn show(&self, to: &mut Window<'_>) {
        let reports = self.reports.lock();

        self.region.for_each_error(|entry| {
            if let Some(addresses) = self.of_namespace(&entry) {
                let origin = reports.origin(addresses.start).unwrap_or(Origin::Log);

                self.show_line(&addresses, origin, to);
            }
        });
    }

    /// Writes the line of the error at the physical `addresses`.
    pub(crate) fn show_line(&self, addresses: &Range<u64>, origin: Origin, to: &mut Window<'_>) {
        // What does not fit is not what was asked for.
        let _ = writeln!(
            to,
            "{} {} {}",
            addresses.start.saturating_sub(self.namespace.start),
            addresses.end.saturating_sub(addresses.start),
            origin.name()
        );
    }
}

/// What a user wants to be done to the list. Addresses are physical, and the namespace's.
pub(crate) enum Command {
    /// An error is to be listed.
    Add(Range<u64>, Origin),
    /// Errors are gone: they are to be taken off the lists.
    Drop(Range<u64>),
    /// Memory is to be treated as after a machine check.
    Poison(Range<u64>),
}

impl Command {
    /// Reads `add OFFSET LENGTH [ORIGIN]`, `drop OFFSET LENGTH` or, where errors may be injected,
    /// `poison OFFSET LENGTH`; both numbers are multiples of 512, in bytes.
    ///
    /// [`EINVAL`] if it is none of these, [`ERANGE`] if it is not all in the namespace.
    pub(crate) fn parse(text: &[u8], log: &ErrorLog<'_>, inject: bool) -> Result<Self> {
        let mut rest = text;
        let verb = next_word(&mut rest);
        let (offset, len) = (number(next_word(&mut rest))?, number(next_word(&mut rest))?);
        let start = log.namespace.start.checked_add(offset).ok_or(ERANGE)?;
        let end = start.checked_add(len).ok_or(ERANGE)?;
        let addresses = start..end;

        if len == 0 || (offset | len) % (1 << SECTOR_SHIFT) != 0 {
            return Err(EINVAL);
        }
        if end > log.namespace.end {
            return Err(ERANGE);
        }
        let command = match (verb, inject) {
            (Some(b"add"), true) => Self::Add(addresses, Origin::Injected),
            (Some(b"add"), false) => {
                let named = |name: &[u8]| {
                    Origin::GIVEN
                        .into_iter()
                        .find(|origin| origin.name().as_bytes() == name)
                };

                Self::Add(
                    addresses,
                    next_word(&mut rest)
                        .map_or(Some(Origin::User), named)
                        .ok_or(EINVAL)?,
                )
            }
            (Some(b"drop"), _) => Self::Drop(addresses),
            (Some(b"poison"), true) => Self::Poison(addresses),
            _ => return Err(EINVAL),
        };

        next_word(&mut rest).map_or(Ok(command), |_| Err(EINVAL))
    }
}

/// Splits the next word off `text`, if there is one.
#[inline(never)]
fn next_word<'a>(text: &mut &'a [u8]) -> Option<&'a [u8]> {
    let trimmed = text.trim_ascii_start();
    let len = trimmed
        .iter()
        .position(u8::is_ascii_whitespace)
        .unwrap_or(trimmed.len());
    let (word, rest) = trimmed.split_at_checked(len)?;

    *text = rest;
    (len > 0).then_some(word)
}

/// A number in decimal or, behind `0x`, in hexadecimal digits.
#[inline(never)]
fn number(word: Option<&[u8]>) -> Result<u64> {
    let (digits, radix) = match word.ok_or(EINVAL)? {
        [b'0', b'x', digits @ ..] => (digits, 16),
        digits => (digits, 10),
    };
    let value = digits.iter().try_fold(0_u64, |value, digit| {
        let digit = char::from(*digit).to_digit(radix)?;

        value.checked_mul(radix.into())?.checked_add(digit.into())
    });

    value.filter(|_| !digits.is_empty()).ok_or(EINVAL)
}
