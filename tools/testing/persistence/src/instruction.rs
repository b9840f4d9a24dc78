// SPDX-License-Identifier: GPL-2.0

//! The instructions of x86-64 that decide about durability (Intel SDM volume 2).

/// The effect of an instruction besides storing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `sfence` or `mfence`.
    Fence,
    /// A locked instruction, or an exchange with memory.
    Locked,
    /// `clwb` or `clflushopt`.
    WriteBack(Address),
    /// `clflush`.
    Flush(Address),
    /// A store that bypasses the caches.
    NonTemporal,
    /// The no-op by which a guest speaks to the plugin: [`MARK`].
    Mark,
}

/// A memory operand: the sum of registers, by their numbers, and a displacement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Address {
    /// A general register.
    pub base: Option<u8>,
    /// A general register, and its factor.
    pub index: Option<(u8, u8)>,
    /// Bytes.
    pub displacement: i64,
    /// Whether the base is the address of the next instruction.
    pub rip: bool,
    /// A segment with a base other than 0.
    pub segment: Option<Segment>,
}

/// A segment whose base counts in 64-bit mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segment {
    /// `fs`.
    Fs,
    /// `gs`.
    Gs,
}

/// `nopl 0x504d4352(%rax,%rax,1)`: the operation is in `rax`, its argument in `rdx`, its result in `rax`.
pub const MARK: [u8; 8] = [0x0f, 0x1f, 0x84, 0x00, 0x52, 0x43, 0x4d, 0x50];

/// Decodes an instruction; none if it does not matter here.
pub fn decode(bytes: &[u8]) -> Option<Kind> {
    if bytes == MARK {
        return Some(Kind::Mark);
    }
    let (mut lock, mut operand_size, mut segment, mut rex) = (false, false, None, 0);
    let mut rest = bytes;
    loop {
        let (&byte, after) = rest.split_first()?;
        match byte {
            0xf0 => lock = true,
            0x66 => operand_size = true,
            0x64 => segment = Some(Segment::Fs),
            0x65 => segment = Some(Segment::Gs),
            0x26 | 0x2e | 0x36 | 0x3e | 0x67 | 0xf2 | 0xf3 => {}
            _ => break,
        }
        rest = after;
    }
    if let Some(&byte @ 0x40..=0x4f) = rest.first() {
        rex = byte;
        rest = &rest[1..];
    }
    if lock {
        return Some(Kind::Locked);
    }
    match *rest {
        [0x86 | 0x87, modrm, ..] if modrm < 0xc0 => Some(Kind::Locked),
        [0x0f, 0xae, modrm, ..] if modrm >= 0xc0 => match (modrm >> 3) & 7 {
            // With a prefix, other instructions: tpause, umonitor.
            6 | 7 if !operand_size && rest.len() == bytes.len() - usize::from(rex != 0) => {
                Some(Kind::Fence)
            }
            _ => None,
        },
        [0x0f, 0xae, modrm, ref operand @ ..] => {
            let address = || address(modrm, operand, rex, segment);
            match ((modrm >> 3) & 7, operand_size) {
                (6 | 7, true) => address().map(Kind::WriteBack),
                (7, false) => address().map(Kind::Flush),
                _ => None,
            }
        }
        // maskmovq, maskmovdqu.
        [0x0f, 0xf7, modrm, ..] | [0xc5, _, 0xf7, modrm, ..] if modrm >= 0xc0 => {
            Some(Kind::NonTemporal)
        }
        // movnti; movntps, movntpd; movntq, movntdq.
        [0x0f, 0xc3 | 0x2b | 0xe7, modrm, ..] if modrm < 0xc0 => Some(Kind::NonTemporal),
        // The same with a VEX prefix.
        [0xc5, _, 0x2b | 0xe7, modrm, ..] | [0xc4, _, _, 0x2b | 0xe7, modrm, ..]
            if modrm < 0xc0 =>
        {
            let second = rest[1];
            let first_map = rest[0] == 0xc5 || second & 0x1f == 1;
            first_map.then_some(Kind::NonTemporal)
        }
        _ => None,
    }
}

/// Decodes the memory operand that begins with a ModRM byte (SDM volume 2, tables 2-2 and 2-3).
fn address(modrm: u8, rest: &[u8], rex: u8, segment: Option<Segment>) -> Option<Address> {
    let mut address = Address {
        segment,
        ..Address::default()
    };
    let (mode, low) = (modrm >> 6, modrm & 7);
    let mut rest = rest;
    let mut base = low | ((rex & 1) << 3);
    let mut no_base = mode == 0 && low == 5;
    address.rip = no_base;
    if low == 4 {
        let (&sib, after) = rest.split_first()?;
        rest = after;
        base = (sib & 7) | ((rex & 1) << 3);
        no_base = mode == 0 && sib & 7 == 5;
        let index = ((sib >> 3) & 7) | ((rex & 2) << 2);
        address.index = (index != 4).then_some((index, 1 << (sib >> 6)));
    }
    address.base = (!no_base).then_some(base);
    address.displacement = match mode {
        1 => i64::from(*rest.first()? as i8),
        2 => i64::from(i32::from_le_bytes(rest.get(..4)?.try_into().ok()?)),
        _ if no_base => i64::from(i32::from_le_bytes(rest.get(..4)?.try_into().ok()?)),
        _ => 0,
    };
    Some(address)
}

impl Address {
    /// Computes the address. `next` is the address of the next instruction, `register` returns a general register by its
    /// number, `segment` the base of a segment.
    pub fn compute(
        &self,
        next: u64,
        register: impl Fn(u8) -> Option<u64>,
        segment: impl Fn(Segment) -> Option<u64>,
    ) -> Option<u64> {
        let mut sum = self.displacement as u64;
        if self.rip {
            sum = sum.wrapping_add(next);
        }
        if let Some(base) = self.base {
            sum = sum.wrapping_add(register(base)?);
        }
        if let Some((index, factor)) = self.index {
            sum = sum.wrapping_add(register(index)?.wrapping_mul(factor.into()));
        }
        if let Some(name) = self.segment {
            sum = sum.wrapping_add(segment(name)?);
        }
        Some(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operand(bytes: &[u8]) -> Address {
        match decode(bytes) {
            Some(Kind::WriteBack(address) | Kind::Flush(address)) => address,
            other => panic!("{bytes:x?}: {other:?}"),
        }
    }

    #[test]
    fn fences_and_locks_are_found() {
        for (bytes, kind) in [
            (&[0x0f, 0xae, 0xf8][..], Some(Kind::Fence)),
            (&[0x0f, 0xae, 0xf0], Some(Kind::Fence)),
            (&[0x0f, 0xae, 0xe8], None),
            (&[0xf3, 0x0f, 0xae, 0xf0], None),
            (&[0x66, 0x0f, 0xae, 0xf0], None),
            (&[0xf0, 0x48, 0x0f, 0xb1, 0x17], Some(Kind::Locked)),
            (&[0x87, 0x07], Some(Kind::Locked)),
            (&[0x87, 0xc7], None),
            (&[0x65, 0x48, 0x87, 0x07], Some(Kind::Locked)),
            (&[0x48, 0x89, 0x07], None),
            (&MARK, Some(Kind::Mark)),
            (&[0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0], None),
        ] {
            assert_eq!(decode(bytes), kind, "{bytes:x?}");
        }
    }

    #[test]
    fn non_temporal_stores_are_found() {
        for bytes in [
            &[0x48, 0x0f, 0xc3, 0x07][..],
            &[0x0f, 0xc3, 0x07],
            &[0x66, 0x0f, 0xe7, 0x07],
            &[0x0f, 0x2b, 0x07],
            &[0xc5, 0xfd, 0xe7, 0x07],
            &[0xc4, 0xc1, 0x7d, 0xe7, 0x07],
            &[0x66, 0x0f, 0xf7, 0xc1],
            &[0xc5, 0xf9, 0xf7, 0xc1],
        ] {
            assert_eq!(decode(bytes), Some(Kind::NonTemporal), "{bytes:x?}");
        }
        assert_eq!(decode(&[0xc4, 0xe2, 0x7d, 0x2b, 0x07]), None, "vpackusdw");
        assert_eq!(decode(&[0xc4, 0xe2, 0x78, 0xf7, 0xc1]), None, "bextr");
    }

    /// Registers have the values 0x1000 times their number.
    fn at(bytes: &[u8]) -> u64 {
        let register = |number: u8| Some(0x1000 * u64::from(number));
        let segment = |_| Some(0x100_0000);
        operand(bytes)
            .compute(0x7000_0000, register, segment)
            .unwrap()
    }

    #[test]
    fn operands_are_computed() {
        for (bytes, address) in [
            (&[0x66, 0x0f, 0xae, 0x33][..], 0x3000), // clwb (%rbx)
            (&[0x66, 0x41, 0x0f, 0xae, 0x75, 0x40], 0xd040), // clwb 0x40(%r13)
            (&[0x66, 0x0f, 0xae, 0x7e, 0xc0], 0x6000 - 0x40), // clflushopt -0x40(%rsi)
            (&[0x0f, 0xae, 0x3c, 0xca], 0x2000 + 0x8000), // clflush (%rdx,%rcx,8)
            (
                &[0x66, 0x43, 0x0f, 0xae, 0xb4, 0xac, 0, 1, 0, 0],
                0xc000 + 4 * 0xd000 + 0x100,
            ),
            (&[0x66, 0x0f, 0xae, 0x34, 0x24], 0x4000), // clwb (%rsp)
            (&[0x66, 0x0f, 0xae, 0x34, 0x25, 0, 2, 0, 0], 0x200), // clwb 0x200
            (&[0x66, 0x0f, 0xae, 0x35, 0x10, 0, 0, 0], 0x7000_0010), // clwb 0x10(%rip)
            (&[0x66, 0x65, 0x0f, 0xae, 0x30], 0x100_0000), // clwb %gs:(%rax)
        ] {
            assert_eq!(at(bytes), address, "{bytes:x?}");
        }
        assert!(matches!(decode(&[0x0f, 0xae, 0x3f]), Some(Kind::Flush(_))));
        assert_eq!(decode(&[0x0f, 0xae, 0x37]), None, "xsaveopt");
    }
}
