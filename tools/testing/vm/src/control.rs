// SPDX-License-Identifier: GPL-2.0

//! The line on which command lines go to the guest and their output comes back; see guest/main for
//! its other end.

use base64::prelude::{BASE64_STANDARD, Engine};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It exited, with this status as a shell gives it (128 + number where a signal ended it).
    Exited(i32),
    /// It was still running when its time was over.
    TimedOut,
    /// The machine went away under it.
    Lost(Loss),
}

impl Ended {
    /// Returns whether a power cut or restart that was requested ended it.
    pub fn was_requested(self) -> bool {
        matches!(self, Ended::Lost(Loss::PowerCut | Loss::Restart))
    }
}

/// Why a guest went away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// A power cut was asked for, by the guest or by a [`crate::Plug`].
    PowerCut,
    /// The guest asked for an orderly restart.
    Restart,
    /// Nobody asked: a panic, a reset, or QEMU's own end.
    Unasked,
}

/// Begins every line that is about the output rather than of it (ASCII's record separator).
const MARK: u8 = 0x1e;

/// Finds the end of a command in what the guest sends: the mark, the command's nonce, a blank, its
/// status, a newline.
#[derive(Debug, Default)]
struct Framing {
    pending: Vec<u8>,
}

impl Framing {
    /// Takes what arrived, hands the command's output to `sink`, and returns what stands after
    /// "nonce " once that came.
    fn take(&mut self, arrived: &[u8], nonce: &str, sink: &mut dyn FnMut(&[u8])) -> Option<String> {
        self.pending.extend_from_slice(arrived);
        let end: Vec<u8> = [&[MARK], nonce.as_bytes(), b" "].concat();
        let mut done = 0;
        let found = loop {
            let rest = &self.pending[done..];
            let Some(mark) = rest.iter().position(|&byte| byte == MARK) else {
                sink(rest);
                done = self.pending.len();
                break None;
            };
            sink(&rest[..mark]);
            done += mark;
            let rest = &self.pending[done..];
            let Some(after) = rest.strip_prefix(end.as_slice()) else {
                if end.starts_with(rest) {
                    break None;
                }
                sink(&rest[..1]);
                done += 1;
                continue;
            };
            let Some(length) = after.iter().position(|&byte| byte == b'\n') else {
                break None;
            };
            let text = String::from_utf8_lossy(&after[..length]).into_owned();
            done += end.len() + length + 1;
            break Some(text);
        };
        self.pending.drain(..done);
        found
    }
}

/// The runner's end of the line.
#[derive(Debug)]
pub(crate) struct Control {
    stream: UnixStream,
    framing: Framing,
    nonces: u64,
}

/// What came of waiting for the end of a command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    End(String),
    TooLate,
    Closed,
}

impl Control {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            framing: Framing::default(),
            nonces: 0,
        }
    }

    /// Sends a command line; the answer ends with the nonce that is returned.
    pub(crate) fn send(&mut self, command: &str) -> io::Result<String> {
        self.nonces += 1;
        // Output can't hold it by chance: it has the clock in it.
        let clock = std::time::SystemTime::UNIX_EPOCH
            .elapsed()
            .map_or(0, |time| time.as_nanos());
        let nonce = format!("{:x}-{:x}", clock & u128::from(u64::MAX), self.nonces);
        // A command may hold any byte, the line to the guest no newline.
        let line = format!("{nonce} {}\n", BASE64_STANDARD.encode(command));
        self.stream.write_all(line.as_bytes())?;
        Ok(nonce)
    }

    /// Hands output to `sink` until the end of the command, until `deadline`, or until the machine
    /// has gone.
    pub(crate) fn hear(
        &mut self,
        nonce: &str,
        deadline: Option<Instant>,
        sink: &mut dyn FnMut(&[u8]),
    ) -> io::Result<Heard> {
        let mut buffer = vec![0; 64 * 1024];
        // What came together with the end of the last command.
        let mut arrived = 0;
        loop {
            if let Some(end) = self.framing.take(&buffer[..arrived], nonce, sink) {
                return Ok(Heard::End(end));
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Ok(Heard::TooLate);
            }
            self.stream.set_read_timeout(left)?;
            arrived = match self.stream.read(&mut buffer) {
                Ok(0) => return Ok(Heard::Closed),
                Ok(count) => count,
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock
                    | io::ErrorKind::TimedOut
                    | io::ErrorKind::Interrupted => 0,
                    io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                        return Ok(Heard::Closed);
                    }
                    _ => return Err(error),
                },
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fed(pieces: &[&[u8]]) -> (Vec<u8>, Option<String>) {
        let mut framing = Framing::default();
        let mut output = Vec::new();
        let mut end = None;
        for piece in pieces {
            assert_eq!(end, None);
            end = framing.take(piece, "n1", &mut |bytes| output.extend_from_slice(bytes));
        }
        (output, end)
    }

    #[test]
    fn output_then_status() {
        assert_eq!(
            fed(&[b"hello\n\x1en1 0\n"]),
            (b"hello\n".to_vec(), Some("0".into()))
        );
    }

    #[test]
    fn in_any_pieces() {
        let whole = b"a\x1eb\x1en2 0\n\xff\x00c\x1en1 137\n";
        let output = b"a\x1eb\x1en2 0\n\xff\x00c".to_vec();
        let bytes: Vec<&[u8]> = whole.chunks(1).collect();
        assert_eq!(fed(&bytes), (output.clone(), Some("137".into())));
        for cut in 0..whole.len() {
            assert_eq!(
                fed(&[&whole[..cut], &whole[cut..]]),
                (output.clone(), Some("137".into())),
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn output_is_not_kept_back() {
        assert_eq!(fed(&[b"progress"]), (b"progress".to_vec(), None));
    }

    #[test]
    fn what_follows_the_end_stays_for_the_next() {
        let mut framing = Framing::default();
        let mut output = Vec::new();
        let mut sink = |bytes: &[u8]| output.extend_from_slice(bytes);
        assert_eq!(
            framing.take(b"\x1en1 0\nlate\x1en2 3\n", "n1", &mut sink),
            Some("0".into())
        );
        assert_eq!(framing.take(b"", "n2", &mut sink), Some("3".into()));
        assert_eq!(output, b"late");
    }
}
