// SPDX-License-Identifier: GPL-2.0

//! The metadata of libnvdimm, as far as it is mutated: `struct nd_pfn_sb` (drivers/nvdimm/pfn.h) for fsdax and device DAX,
//! `struct btt_sb` (drivers/nvdimm/btt.h) for sector mode, `struct nd_namespace_index` and `struct nvdimm_efi_label`
//! (drivers/nvdimm/label.h) for labels. All numbers are little-endian.

use std::ops::Range;

/// Bytes of an info block.
pub const BLOCK: usize = 4096;
/// Where the first info block begins in a namespace.
pub const FIRST: usize = 4096;
/// The checksum at the end of an info block.
pub const CHECKSUM: Range<usize> = BLOCK - 8..BLOCK;

/// The checksums of an index block and of a label.
pub const INDEX_CHECKSUM: Range<usize> = 64..72;
pub const LABEL_CHECKSUM: Range<usize> = 248..256;

/// A number in a block of metadata.
pub struct Field {
    pub name: &'static str,
    pub offset: usize,
    /// Bytes, at most 8.
    pub length: usize,
}

impl Field {
    pub const fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.length
    }

    /// Returns its bytes in a block.
    pub fn of<'a>(&self, block: &'a [u8]) -> &'a [u8] {
        &block[self.range()]
    }

    /// Returns the bytes that store a number: its lower ones.
    pub fn bytes(&self, value: u64) -> Vec<u8> {
        value.to_le_bytes()[..self.length].to_vec()
    }
}

const fn field(name: &'static str, offset: usize, length: usize) -> Field {
    Field {
        name,
        offset,
        length,
    }
}

pub const SIGNATURE: Range<usize> = 0..16;
/// Offsets in the info block, and in the namespace that it was made for.
pub const UUIDS: [Range<usize>; 2] = [16..32, 32..48];

/// The signatures: each kind of block is also tried as the other ones.
pub const SIGNATURES: [&[u8; 16]; 3] = [
    b"NVDIMM_PFN_INFO\0",
    b"NVDIMM_DAX_INFO\0",
    b"BTT_ARENA_INFO\0\0",
];

pub const PFN: &[Field] = &[
    field("flags", 48, 4),
    field("version_major", 52, 2),
    field("version_minor", 54, 2),
    field("dataoff", 56, 8),
    field("npfns", 64, 8),
    field("mode", 72, 4),
    field("start_pad", 76, 4),
    field("end_trunc", 80, 4),
    field("align", 84, 4),
    field("page_size", 88, 4),
    field("page_struct_size", 92, 2),
];

pub const BTT: &[Field] = &[
    field("flags", 48, 4),
    field("version_major", 52, 2),
    field("version_minor", 54, 2),
    field("external_lbasize", 56, 4),
    field("external_nlba", 60, 4),
    field("internal_lbasize", 64, 4),
    field("internal_nlba", 68, 4),
    field("nfree", 72, 4),
    field("infosize", 76, 4),
    field("nextoff", 80, 8),
    field("dataoff", 88, 8),
    field("mapoff", 96, 8),
    field("logoff", 104, 8),
    field("info2off", 112, 8),
];

// Of an index block: its bytes, and where the labels begin. Of a label: where its namespace begins, its bytes, and its slot.
pub const INDEX_MYSIZE: Field = field("mysize", 32, 8);
pub const INDEX_LABELOFF: Field = field("labeloff", 48, 8);
pub const LABEL_UUID: Field = field("uuid", 0, 8);
pub const LABEL_DPA: Field = field("dpa", 104, 8);
pub const LABEL_RAWSIZE: Field = field("rawsize", 112, 8);
pub const LABEL_SLOT: Field = field("slot", 120, 4);

pub const INDEX: &[Field] = &[
    field("sig", 0, 8),
    field("flags", 16, 3),
    field("labelsize", 19, 1),
    field("seq", 20, 4),
    field("myoff", 24, 8),
    INDEX_MYSIZE,
    field("otheroff", 40, 8),
    INDEX_LABELOFF,
    field("nslot", 56, 4),
    field("major", 60, 2),
    field("minor", 62, 2),
];

pub const LABEL: &[Field] = &[
    LABEL_UUID,
    field("name", 16, 8),
    field("flags", 80, 4),
    field("nlabel", 84, 2),
    field("position", 86, 2),
    field("isetcookie", 88, 8),
    field("lbasize", 96, 8),
    LABEL_DPA,
    LABEL_RAWSIZE,
    LABEL_SLOT,
    field("align", 124, 1),
    field("type_guid", 128, 8),
    field("abstraction_guid", 144, 8),
];

/// Where `mapoff`, `logoff` and `info2off` are, relative to the info block.
pub const BTT_PLACES: [usize; 3] = [96, 104, 112];

pub fn number(bytes: &[u8]) -> u64 {
    let mut all = [0; 8];
    all[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(all)
}

/// Writes the checksum of a block: fletcher64, computed with zeros in its place.
pub fn seal(block: &mut [u8], checksum: Range<usize>) {
    block[checksum.clone()].fill(0);
    let (mut low, mut high) = (0_u32, 0_u32);
    for word in block.chunks_exact(4) {
        low = low.wrapping_add(number(word) as u32);
        high = high.wrapping_add(low);
    }
    let sum = (u64::from(high) << 32) | u64::from(low);
    block[checksum].copy_from_slice(&sum.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_is_fletcher64() {
        let mut block = [0; BLOCK];
        block[0] = 1;
        seal(&mut block, CHECKSUM);
        // One word of 1 in the first of 1024 places.
        assert_eq!(number(&block[CHECKSUM]), (1024 << 32) | 1);
        block[4] = 2;
        seal(&mut block, CHECKSUM);
        assert_eq!(number(&block[CHECKSUM]), ((1024 + 2 * 1023) << 32) | 3);
    }

    #[test]
    fn fields_do_not_overlap() {
        for fields in [PFN, BTT] {
            for pair in fields.windows(2) {
                assert_eq!(
                    pair[0].offset + pair[0].length,
                    pair[1].offset,
                    "{}",
                    pair[1].name
                );
            }
        }
    }
}
