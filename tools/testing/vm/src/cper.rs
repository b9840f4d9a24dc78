// SPDX-License-Identifier: GPL-2.0

//! Error records as firmware writes them (CPER: UEFI specification 2.11, appendix N).

/// The type of a section: platform memory error (a5bc1114-6f64-4ede-b863-3e83ed7c83b1).
const MEMORY_ERROR: [u8; 16] = [
    0x14, 0x11, 0xbc, 0xa5, 0x64, 0x6f, 0xde, 0x4e, 0xb8, 0x63, 0x3e, 0x83, 0xed, 0x7c, 0x83, 0xb1,
];
/// Severities.
const RECOVERABLE: u32 = 0;
const CORRECTED: u32 = 2;
/// The status of a generic error status block with one section, by severity.
const ONE_UNCORRECTED: u32 = 1 | (1 << 4);
const ONE_CORRECTED: u32 = (1 << 1) | (1 << 4);
/// The revision of a generic error data entry that has a time stamp.
const REVISION: u16 = 0x300;
const PHYSICAL_ADDRESS_VALID: u64 = 1 << 1;
const ADDRESS_MASK_VALID: u64 = 1 << 2;
const ERROR_TYPE_VALID: u64 = 1 << 14;
const SINGLE_BIT_ECC: u8 = 2;
const MULTI_BIT_ECC: u8 = 3;

fn length(bytes: &[u8]) -> [u8; 4] {
    // CAST: no record of this file is longer than some hundred bytes.
    (bytes.len() as u32).to_le_bytes()
}

/// The severity of a memory error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The data are still there.
    Corrected,
    /// The data are lost, and the system can go on.
    Recoverable,
}

/// Returns a generic error status block (ACPI specification 6.5, 18.3.2.7.1) with one section: an error in 2 to the power of
/// `lsb` (at most 63) bytes of memory at a physical address.
pub fn memory_error(address: u64, lsb: u8, severity: Severity) -> Vec<u8> {
    let (status, severity, kind) = match severity {
        Severity::Corrected => (ONE_CORRECTED, CORRECTED, SINGLE_BIT_ECC),
        Severity::Recoverable => (ONE_UNCORRECTED, RECOVERABLE, MULTI_BIT_ECC),
    };
    let mut section = Vec::new();
    section.extend((PHYSICAL_ADDRESS_VALID | ADDRESS_MASK_VALID | ERROR_TYPE_VALID).to_le_bytes());
    section.extend(0_u64.to_le_bytes()); // error status
    section.extend(address.to_le_bytes());
    section.extend((u64::MAX << lsb).to_le_bytes());
    section.resize(72, 0); // node to column of the module, requestor, target
    section.push(kind);
    section.resize(80, 0);

    let mut entry = MEMORY_ERROR.to_vec();
    entry.extend(severity.to_le_bytes());
    entry.extend(REVISION.to_le_bytes());
    entry.extend([0, 0]); // neither a unit nor a text, so no flags
    entry.extend(length(&section));
    entry.resize(72, 0); // unit, its text, time stamp
    entry.extend(section);

    let mut block = status.to_le_bytes().to_vec();
    block.extend([0; 8]); // no raw data
    block.extend(length(&entry));
    block.extend(severity.to_le_bytes());
    block.extend(entry);
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_places_are_those_of_the_specification() {
        let block = memory_error(0x1_0020_0000, 12, Severity::Recoverable);
        assert_eq!(block.len(), 20 + 72 + 80);
        assert_eq!(block[12..16], 152_u32.to_le_bytes());
        let entry = &block[20..];
        assert_eq!(entry[..16], MEMORY_ERROR);
        assert_eq!(entry[24..28], 80_u32.to_le_bytes());
        let section = &entry[72..];
        assert_eq!(section[16..24], 0x1_0020_0000_u64.to_le_bytes());
        assert_eq!(section[24..32], 0xffff_ffff_ffff_f000_u64.to_le_bytes());
        assert_eq!(section[72], MULTI_BIT_ECC);
    }
}
