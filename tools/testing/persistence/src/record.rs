// SPDX-License-Identifier: GPL-2.0

//! Records: contents from which a checker sees what was lost.
//!
//! A program writes generations of numbered records. Each word of a record has the record's number, its own index, and the
//! generation, so all data that a crash leaves can be attributed. A generation is *begun* before it is written, and *promised*
//! once the kernel has acknowledged that it is durable; the program marks both ([`crate::log::operation`]).

/// Bytes of a record.
pub const RECORD: usize = 4096;
const WORD: usize = 8;

/// Fills a record with a generation.
pub fn fill(bytes: &mut [u8], record: u16, generation: u32) {
    for (index, word) in bytes.chunks_exact_mut(WORD).enumerate() {
        let value = (u64::from(generation) << 32) | (u64::from(record) << 16) | index as u64;
        word.copy_from_slice(&value.to_le_bytes());
    }
}

/// Argument of the marks of a record and its generation.
pub fn note(record: u16, generation: u32) -> u64 {
    (u64::from(generation) << 32) | u64::from(record)
}

/// Returns the record and the generation of a mark's argument.
pub fn noted(argument: u64) -> (u16, u32) {
    (argument as u16, (argument >> 32) as u32)
}

/// The generations of a record that a program has begun and promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Promise {
    /// The newest generation begun; 0 is a record of zeros.
    pub begun: u32,
    /// The newest generation promised.
    pub promised: u32,
}

impl Promise {
    /// Checks the remains of a record. The error describes the fault.
    ///
    /// Each word must be of a generation that was begun, and not older than the one promised; if `whole`, all of the same
    /// one.
    pub fn check(&self, bytes: &[u8], record: u16, whole: bool) -> Result<(), String> {
        let mut first = None;
        if bytes.len() != RECORD {
            return Err(format!("record {record} has {} bytes", bytes.len()));
        }
        for (index, word) in bytes.chunks_exact(WORD).enumerate() {
            let mut value = [0; WORD];
            value.copy_from_slice(word);
            let value = u64::from_le_bytes(value);
            let generation = (value >> 32) as u32;
            let place = (u64::from(record) << 16) | index as u64;
            if value != 0 && value as u32 != place as u32 {
                return Err(format!(
                    "record {record}, byte {}: {value:#x} was never written there",
                    index * WORD
                ));
            }
            if generation < self.promised {
                return Err(format!(
                    "record {record}, byte {}: generation {generation}, but {} was promised",
                    index * WORD,
                    self.promised
                ));
            }
            if generation > self.begun {
                return Err(format!(
                    "record {record}, byte {}: generation {generation} was never begun",
                    index * WORD
                ));
            }
            if whole && *first.get_or_insert(generation) != generation {
                return Err(format!(
                    "record {record}, byte {}: it is torn",
                    index * WORD
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(generation: u32) -> Vec<u8> {
        let mut bytes = vec![0; RECORD];
        fill(&mut bytes, 3, generation);
        bytes
    }

    #[test]
    fn lost_torn_and_foreign_records_are_found() {
        let promise = Promise {
            begun: 5,
            promised: 4,
        };
        assert_eq!(promise.check(&record(4), 3, true), Ok(()));
        assert_eq!(promise.check(&record(5), 3, true), Ok(()));
        let problem = |bytes: &[u8], whole| promise.check(bytes, 3, whole).unwrap_err();
        assert!(problem(&record(3), false).contains("4 was promised"));
        assert!(problem(&record(6), false).contains("never begun"));
        assert!(problem(&[0; RECORD], false).contains("4 was promised"));
        assert!(problem(&[], false).contains("0 bytes"));
        let mut torn = record(4);
        torn[512..1024].copy_from_slice(&record(5)[512..1024]);
        assert_eq!(promise.check(&torn, 3, false), Ok(()));
        assert!(problem(&torn, true).contains("byte 512: it is torn"));
        let mut foreign = record(4);
        foreign[8] ^= 1;
        assert!(problem(&foreign, false).contains("never written there"));
        assert!(Promise::default().check(&[0; RECORD], 3, true).is_ok());
        assert_eq!(noted(note(7, 9)), (7, 9));
    }
}
