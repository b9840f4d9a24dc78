// SPDX-License-Identifier: GPL-2.0

//! Memory for direct I/O.

/// Page size, the alignment that every device accepts.
const ALIGN: usize = 4096;

/// Bytes at the start of a page, as `O_DIRECT` requires, or at a given distance behind it.
#[derive(Debug)]
pub struct DirectBuffer {
    bytes: Vec<u8>,
    start: usize,
    length: usize,
}

impl DirectBuffer {
    /// Allocates `length` zero bytes at the start of a page.
    pub fn new(length: usize) -> Self {
        Self::misaligned(length, 0)
    }

    /// Allocates `length` zero bytes, `misalign` bytes behind the start of a page.
    pub fn misaligned(length: usize, misalign: usize) -> Self {
        let bytes = vec![0; length + misalign + ALIGN];
        let start = bytes.as_ptr().addr().wrapping_neg() % ALIGN + misalign;
        Self {
            bytes,
            start,
            length,
        }
    }

    /// Returns the number of bytes.
    #[expect(clippy::len_without_is_empty, reason = "nobody asks for it")]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Returns all bytes.
    pub fn bytes(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.length]
    }

    /// Returns all of the allocation, of which [`bytes`](Self::bytes) are a part.
    pub fn allocation(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_is_aligned_or_misaligned_as_requested() {
        for misalign in [0, 1, 512, 4095] {
            let mut buffer = DirectBuffer::misaligned(1000, misalign);
            assert_eq!(buffer.bytes().len(), 1000);
            assert_eq!(buffer.bytes().as_ptr().addr() % ALIGN, misalign);
        }
    }
}
