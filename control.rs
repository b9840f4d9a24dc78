// SPDX-License-Identifier: GPL-2.0

//! What users may ask for: the commands of the file `errors/list` of the bound device
//! (Documentation/ABI/sysfs-bus-nd-errors), and of that in debugfs.

#![forbid(unsafe_code)]

use crate::{
    badblocks::Origin,
    units::SECTOR_SHIFT, //
};
use core::ops::Range;
use kernel::prelude::*;

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
    /// Reads `add OFFSET LENGTH [ORIGIN]` or `drop OFFSET LENGTH`, or, if `inject`, `poison OFFSET
    /// LENGTH`; both numbers are multiples of 512, in bytes from the start of `namespace`.
    ///
    /// [`EINVAL`] if it is none of these, [`ERANGE`] if it is not all in the namespace.
    pub(crate) fn parse(text: &[u8], namespace: &Range<u64>, inject: bool) -> Result<Self> {
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
        let command = match (verb, inject) {
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
            (Some(b"drop"), false) => Self::Drop(addresses),
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
