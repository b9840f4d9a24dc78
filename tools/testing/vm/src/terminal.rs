// SPDX-License-Identifier: GPL-2.0

//! Connects this program's terminal to the guest's console.

use anyhow::Result;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use std::io::{Read, Write, stdin, stdout};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

/// Ctrl-], which cuts the power.
const POWER_CUT: u8 = 0x1d;
/// End of input, Ctrl-D.
const END: u8 = 0x04;

/// Returns the rows and columns of standard output, if that is a terminal.
pub fn size() -> Option<(u16, u16)> {
    match tcgetwinsize(stdout()) {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => Some((size.ws_row, size.ws_col)),
        _ => None,
    }
}

/// Restores the terminal when it is dropped.
pub struct Connection {
    before: Option<Termios>,
}

/// Connects standard input and output to the guest's console, in raw mode on a terminal. Ctrl-] calls `cut_power`.
pub fn connect(
    console: UnixStream,
    cut_power: impl FnOnce() + Send + 'static,
) -> Result<Connection> {
    let mut before = None;
    if isatty(stdin()) {
        let saved = tcgetattr(stdin())?;
        let mut raw = saved.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Flush, &raw)?;
        before = Some(saved);
    }
    let raw = before.is_some();
    let mut from_guest = console.try_clone()?;
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = from_guest.read(&mut buffer) {
            let mut out = stdout().lock();
            if out
                .write_all(&buffer[..count])
                .and_then(|()| out.flush())
                .is_err()
            {
                return;
            }
        }
    });
    let mut to_guest = console;
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        loop {
            match stdin().lock().read(&mut buffer) {
                Ok(count @ 1..) => {
                    let keys = &buffer[..count];
                    if raw && keys.contains(&POWER_CUT) {
                        cut_power();
                        return;
                    }
                    if to_guest.write_all(keys).is_err() {
                        return;
                    }
                }
                // The next reader in the guest, the shell or its child, gets the end of input.
                _ => {
                    if to_guest.write_all(&[END]).is_err() {
                        return;
                    }
                    thread::sleep(Duration::from_secs(1));
                }
            }
        }
    });
    Ok(Connection { before })
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = tcsetattr(stdin(), OptionalActions::Flush, before);
        }
    }
}
