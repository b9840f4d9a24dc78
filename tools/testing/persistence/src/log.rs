// SPDX-License-Identifier: GPL-2.0

//! The log of a watched guest.
//!
//! It begins with the contents of the memory; then come [`Event`]s, in the order in which they happened. Numbers are
//! little-endian. A log that ends within an event ends before it: a guest's power may have been cut.

use crate::{LINE, Line, Undurable};
use std::io::{self, Read, Write};

/// A record of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A line has these contents on the medium.
    Durable(u32, Line),
    /// A crash image: the medium, but for these lines. With its number, and the address of the instruction before which the
    /// power fails.
    Crash(u64, u64, Vec<(u32, Line)>),
    /// The guest marked an operation with an argument.
    Mark(u64, u64),
    /// The lines that are not durable.
    Undurable(Vec<Undurable>),
    /// A fence with this number, and the number of lines that were not durable before it.
    Fence(u64, u32),
}

/// Operations of a guest's mark.
pub mod operation {
    /// Begins to follow stores: all contents are durable. Returns 1 when they are followed, 0 while that is being prepared.
    pub const WATCH: u64 = 1;
    /// Returns the number of lines that are not durable.
    pub const UNDURABLE: u64 = 2;
    /// Takes a crash image without any undurable line.
    pub const IMAGE: u64 = 3;
    /// Takes a crash image with a random choice of the undurable lines.
    pub const RANDOM_IMAGE: u64 = 4;
    /// Takes crash images by itself until there are as many as the argument; returns their number.
    pub const CRASHES: u64 = 5;
    /// Goes into the log, for the checker of the images; so does each operation from here on.
    pub const NOTE: u64 = 16;
    /// A generation of a record was begun: see [`crate::record::note`].
    pub const BEGUN: u64 = NOTE;
    /// A generation of a record is promised to be durable.
    pub const PROMISED: u64 = NOTE + 1;
}

const BEGIN: &[u8; 8] = b"pmemlog1";

fn begin(to: &mut impl Write, tag: u8, numbers: &[u64]) -> io::Result<()> {
    to.write_all(&[tag])?;
    numbers
        .iter()
        .try_for_each(|number| to.write_all(&number.to_le_bytes()))
}

/// Writes the begin of a log: the contents of the memory.
pub fn write_memory(to: &mut impl Write, memory: &[u8]) -> io::Result<()> {
    to.write_all(BEGIN)?;
    to.write_all(&(memory.len() as u64).to_le_bytes())?;
    to.write_all(memory)
}

impl Event {
    /// Appends it to a log.
    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Durable(line, data) => {
                begin(to, b'D', &[(*line).into()])?;
                to.write_all(data)
            }
            Self::Crash(number, pc, lines) => {
                begin(to, b'C', &[*number, *pc, lines.len() as u64])?;
                lines.iter().try_for_each(|(line, data)| {
                    to.write_all(&u64::from(*line).to_le_bytes())?;
                    to.write_all(data)
                })
            }
            Self::Mark(operation, argument) => begin(to, b'M', &[*operation, *argument]),
            Self::Undurable(lines) => {
                begin(to, b'U', &[lines.len() as u64])?;
                lines.iter().try_for_each(|line| {
                    begin(to, line.written_back.into(), &[line.line.into(), line.pc])
                })
            }
            Self::Fence(number, lines) => begin(to, b'F', &[*number, (*lines).into()]),
        }
    }
}

/// Reads a log.
pub struct Reader<R> {
    from: R,
    /// The contents of the memory at the begin.
    pub memory: Vec<u8>,
    /// Lines of the memory.
    lines: usize,
}

impl<R: Read> Reader<R> {
    /// Reads the begin of a log.
    ///
    /// # Errors
    ///
    /// Those of reading; `InvalidData` if it is no log.
    pub fn new(mut from: R) -> io::Result<Self> {
        let mut begin = [0; 8];
        from.read_exact(&mut begin)?;
        if begin != *BEGIN {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "not a log of persistent memory",
            ));
        }
        let mut reader = Self {
            from,
            memory: Vec::new(),
            lines: 0,
        };
        let length = reader.number()?;
        (&mut reader.from)
            .take(length)
            .read_to_end(&mut reader.memory)?;
        if reader.memory.len() as u64 != length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        reader.lines = reader.memory.len() / LINE;
        Ok(reader)
    }

    fn bytes<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.from.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn number(&mut self) -> io::Result<u64> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    fn line(&mut self) -> io::Result<(u32, Line)> {
        let line = self.number()?;
        let line = u32::try_from(line)
            .ok()
            .filter(|&line| (line as usize) < self.lines);
        let line = line.ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "a line outside the memory")
        })?;
        Ok((line, self.bytes()?))
    }

    fn event(&mut self) -> io::Result<Event> {
        Ok(match self.bytes::<1>()? {
            [b'D'] => {
                let (line, data) = self.line()?;
                Event::Durable(line, data)
            }
            [b'C'] => {
                let (number, pc, count) = (self.number()?, self.number()?, self.number()?);
                let lines = (0..count).map(|_| self.line()).collect::<io::Result<_>>()?;
                Event::Crash(number, pc, lines)
            }
            [b'M'] => Event::Mark(self.number()?, self.number()?),
            [b'U'] => {
                let count = self.number()?;
                let lines = (0..count).map(|_| {
                    let [written_back] = self.bytes::<1>()?;
                    Ok(Undurable {
                        line: self.number()? as u32,
                        pc: self.number()?,
                        written_back: written_back != 0,
                    })
                });
                Event::Undurable(lines.collect::<io::Result<_>>()?)
            }
            [b'F'] => Event::Fence(self.number()?, self.number()? as u32),
            [tag] => {
                let text = format!("no event begins with {tag:#x}");
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
        })
    }
}

impl<R: Read> Iterator for Reader<R> {
    type Item = io::Result<Event>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.event() {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => None,
            event => Some(event),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_is_read_as_it_was_written() {
        let undurable = |line, written_back| Undurable {
            line,
            pc: 0x42,
            written_back,
        };
        let events = [
            Event::Durable(1, [7; LINE]),
            Event::Crash(3, 0x41, vec![(0, [1; LINE]), (1, [2; LINE])]),
            Event::Mark(operation::NOTE, u64::MAX),
            Event::Undurable(vec![undurable(1, true), undurable(0, false)]),
            Event::Fence(9, 2),
        ];
        let mut log = Vec::new();
        write_memory(&mut log, &[5; 2 * LINE]).unwrap();
        let begin = log.len();
        events
            .iter()
            .for_each(|event| event.write(&mut log).unwrap());
        let reader = Reader::new(log.as_slice()).unwrap();
        assert_eq!(reader.memory, [5; 2 * LINE]);
        let read: Vec<Event> = reader.map(Result::unwrap).collect();
        assert_eq!(read, events);
        for end in begin..log.len() {
            let read: Vec<Event> = Reader::new(&log[..end])
                .unwrap()
                .map(Result::unwrap)
                .collect();
            assert!(
                read.len() < events.len() && events.starts_with(&read),
                "cut at {end}"
            );
        }
    }

    #[test]
    fn damaged_log_is_refused() {
        assert!(Reader::new(&b"pmemlog2\0\0\0\0\0\0\0\0"[..]).is_err());
        let mut log = Vec::new();
        write_memory(&mut log, &[0; LINE]).unwrap();
        Event::Durable(1, [7; LINE]).write(&mut log).unwrap();
        assert!(
            Reader::new(log.as_slice())
                .unwrap()
                .next()
                .unwrap()
                .is_err(),
            "a line outside the memory"
        );
    }
}
