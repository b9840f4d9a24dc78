// SPDX-License-Identifier: GPL-2.0

//! The interfaces through which users see and change the errors of a namespace.
//!
//! `errors/list` of the bound device (Documentation/ABI/sysfs-bus-nd-errors) shows all bad blocks
//! and takes commands that change them. With the module parameter `inject`, debugfs has a file for
//! each device that poisons memory for tests.

#![forbid(unsafe_code)]

use crate::{
    abstractions::{
        debugfs,
        device,
        errno::eopnotsupp,
        nd::{
            BinAttribute,
            Device, //
        },
        scope::{
            Scope,
            Scoped, //
        },
        sysfs::Window, //
    },
    badblocks::Badblocks,
    media::Media,
    ranges::Origin,
    units::SECTOR_SHIFT,
    PmemModule, //
};
use core::{
    fmt::Write,
    ops::Range, //
};
use kernel::{
    device::Bound,
    prelude::*,
    sync::{
        new_mutex,
        Arc,
        Mutex, //
    },
    ModuleMetadata, //
};

/// The directory in debugfs that has the files for injection.
pub(crate) const INJECT_DIRECTORY: &CStr = <PmemModule as ModuleMetadata>::NAME;

/// The number of slots for positions of readers. Two in one slot that take turns search a long list
/// from its start.
const READERS: usize = 32;

/// The errors of a bound namespace, as users see and change them.
#[pin_data]
pub(crate) struct Control<'bound> {
    badblocks: Arc<Badblocks<'bound>>,
    /// None in sector mode, where `nd_btt` has the memory.
    media: Option<Arc<Media<'bound>>>,
    /// Where readers of `errors/list` stopped, and likely continue.
    #[pin]
    readers: Mutex<[Position; READERS]>,
}

/// The start of a line of `errors/list`: its offset in the text that `reader` reads, and the sector
/// from which on it shows the next range.
#[derive(Clone, Copy)]
struct Position {
    reader: usize,
    text: usize,
    sector: u64,
}

impl Position {
    const START: Self = Self {
        reader: 0,
        text: 0,
        sector: 0,
    };

    /// Returns the index of the reader's slot.
    fn slot(&self) -> usize {
        // The constant of `hash_long` (`include/linux/hash.h`).
        self.reader.wrapping_mul(0x61c8_8646_80b5_83eb) >> (usize::BITS - READERS.ilog2())
    }
}

impl<'bound> Control<'bound> {
    /// Creates the interfaces to `badblocks`, and to the memory they are in. [`ENOMEM`].
    #[inline(never)]
    pub(crate) fn new(
        badblocks: Arc<Badblocks<'bound>>,
        media: Option<Arc<Media<'bound>>>,
    ) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                badblocks,
                media,
                readers <- new_mutex!([Position::START; READERS]),
            }),
            GFP_KERNEL,
        )
    }

    /// The bad blocks of the namespace.
    pub(crate) fn badblocks(&self) -> &Badblocks<'bound> {
        &self.badblocks
    }

    /// Adds the file of `dev` for injection, if [`INJECT_DIRECTORY`] exists. Like all of debugfs,
    /// it is missing where there is no memory for it.
    pub(crate) fn add_inject_file(
        self: &Arc<Self>,
        dev: &'bound Device<Bound>,
        scope: &'bound Scope<'bound>,
    ) -> Option<InjectFile<'bound>> {
        let dir = debugfs::Dir::lookup(INJECT_DIRECTORY)?;

        debugfs::File::new(dir, device::name(dev.as_ref()).ok()?, self.clone(), scope).ok()
    }

    /// Parses and executes what was written to `file`.
    #[inline(never)]
    fn command(&self, text: &[u8], file: File) -> Result {
        let command = Command::parse(text, self.badblocks.namespace(), file)?;

        match (command, &self.media) {
            (Command::Add(addresses, origin), _) => self.badblocks.add(&addresses, origin),
            (Command::Drop(addresses), None) => self.badblocks.remove(&addresses),
            (Command::Drop(addresses), Some(media)) => media.drop_badblocks(&addresses),
            (Command::Poison(_), None) => Err(eopnotsupp()),
            (Command::Poison(addresses), Some(media)) => media.poison(&addresses),
        }
    }
}

/// The file of a device for injection.
pub(crate) type InjectFile<'bound> = Scoped<'bound, debugfs::File<'bound, Control<'bound>>>;

impl debugfs::Handler for Control<'_> {
    fn write(&self, text: &[u8]) -> Result {
        self.command(text, File::Inject)
    }
}

/// The file `errors/list`.
///
/// A line is `OFFSET LENGTH ORIGIN`, in bytes from the start of the namespace. Lines are in order.
impl BinAttribute for Control<'_> {
    const DIRECTORY: &'static CStr = c"errors";
    const NAME: &'static CStr = c"list";

    fn read(&self, window: &mut Window<'_>) {
        let mut line = Position {
            reader: window.reader(),
            ..Position::START
        };
        let slot = line.slot();

        if window.is_first() {
            self.badblocks.refresh();
        } else if let Some(last) = self.readers.lock().get(slot) {
            // Another one may have taken the slot.
            if last.reader == line.reader && window.begin_at(last.text) {
                line = *last;
            }
        }

        while let Some((sectors, origin)) = self.badblocks.next_range(line.sector) {
            let Range { start, end } = self.badblocks.addresses(&sectors);

            // `Window` never fails: it drops what it has no room for.
            let _ = writeln!(
                window,
                "{} {} {}",
                start.saturating_sub(self.badblocks.namespace().start),
                end.saturating_sub(start),
                origin.name()
            );
            // The next read begins with this line: the line may change until then. Only a buffer
            // that is shorter gets a part of it.
            if window.is_full() {
                window.end_at(line.text);
                break;
            }
            line.text = window.offset();
            line.sector = sectors.end;
        }
        if let Some(last) = self.readers.lock().get_mut(slot) {
            *last = line;
        }
    }

    fn write(&self, text: &[u8]) -> Result {
        self.command(text, File::List)
    }
}

impl Origin {
    /// The origins that a user can name in a command.
    const GIVEN: [Self; 3] = [Self::User, Self::Restored, Self::Device];

    /// The word in `errors/list`.
    fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::MachineCheck => "machine-check",
            Self::Firmware => "firmware",
            Self::MemoryFailure => "memory-failure",
            Self::User => "user",
            Self::Restored => "restored",
            Self::Device => "device",
            Self::Injected => "injected",
        }
    }

    /// Parses the word of an origin that a user can name. [`EINVAL`] for any other.
    fn parse(word: &[u8]) -> Result<Self> {
        Self::GIVEN
            .into_iter()
            .find(|origin| origin.name().as_bytes() == word)
            .ok_or(EINVAL)
    }
}

/// The file that a command was written to.
#[derive(Clone, Copy)]
enum File {
    /// `errors/list`.
    List,
    /// The file in debugfs.
    Inject,
}

/// A command of a user. Addresses are physical, in the namespace, and multiples of 512.
enum Command {
    /// Adds bad blocks.
    Add(Range<u64>, Origin),
    /// Drops bad blocks: the memory is good again.
    Drop(Range<u64>),
    /// Makes memory what it is after a machine check.
    Poison(Range<u64>),
}

impl Command {
    /// Parses `add OFFSET LENGTH [ORIGIN]` or `drop OFFSET LENGTH`, or, from the file for
    /// injection, `poison OFFSET LENGTH`. Numbers are multiples of 512, in bytes from the start of
    /// `namespace`.
    ///
    /// [`EINVAL`] for any other text, [`ERANGE`] if the range is not inside of the namespace.
    fn parse(text: &[u8], namespace: &Range<u64>, file: File) -> Result<Self> {
        let mut rest = text;
        let verb = next_word(&mut rest);
        let (offset, len) = (number(next_word(&mut rest))?, number(next_word(&mut rest))?);
        let start = namespace.start.checked_add(offset).ok_or(ERANGE)?;
        let end = start.checked_add(len).ok_or(ERANGE)?;
        let addresses = start..end;

        if len == 0 || (offset | len) % (1 << SECTOR_SHIFT) != 0 {
            return Err(EINVAL);
        }
        if end > namespace.end {
            return Err(ERANGE);
        }
        let command = match (verb, file) {
            (Some(b"add"), File::List) => {
                let origin = match next_word(&mut rest) {
                    Some(word) => Origin::parse(word)?,
                    None => Origin::User,
                };

                Self::Add(addresses, origin)
            }
            (Some(b"drop"), File::List) => Self::Drop(addresses),
            (Some(b"poison"), File::Inject) => Self::Poison(addresses),
            _ => return Err(EINVAL),
        };

        next_word(&mut rest).map_or(Ok(command), |_| Err(EINVAL))
    }
}

/// Splits off the next word of `text`, if there is one.
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

/// Parses a decimal number, or a hexadecimal one after `0x`.
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
