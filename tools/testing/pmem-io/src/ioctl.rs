// SPDX-License-Identifier: GPL-2.0

//! `pmem-io ioctl`: makes ioctl(2) requests of a file and prints the answers.

use abstractions::ioctl::{Argument, REQUESTS, Request};
use anyhow::{Context, Result, ensure};
use clap::Args;
use std::fmt::Write;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;

#[derive(Args)]
pub struct Requests {
    /// The file or device
    file: PathBuf,
    /// NAME, or NAME=NUMBER,... with the argument, or with the numbers that the kernel reads at the
    /// argument: each number takes an equal share of the bytes
    #[arg(required = true, value_parser = parse)]
    requests: Vec<Call>,
    /// Pass an address at which nothing is mapped, where the argument is an address
    #[arg(long)]
    bad_pointer: bool,
    /// Open the file read-only
    #[arg(long)]
    read_only: bool,
}

#[derive(Clone)]
struct Call {
    text: String,
    request: &'static Request,
    numbers: Vec<u64>,
}

fn parse(text: &str) -> Result<Call> {
    let (name, numbers) = text.split_once('=').unwrap_or((text, ""));
    let request = Request::named(name).with_context(|| {
        let names: Vec<_> = REQUESTS.iter().map(|request| request.name).collect();
        format!("not one of {}", names.join(" "))
    })?;
    let numbers = numbers
        .split(',')
        .filter(|number| !number.is_empty())
        .map(|number| Ok(number.parse()?))
        .collect::<Result<Vec<_>>>()?;
    if let Argument::Put(length) = request.argument {
        ensure!(
            numbers.is_empty() || length % numbers.len() == 0,
            "{length} bytes can't be shared equally by {} numbers",
            numbers.len()
        );
    }
    Ok(Call {
        text: text.to_owned(),
        request,
        numbers,
    })
}

/// Formats the kernel's answer: a number of up to 8 bytes, or else each byte in hexadecimal.
fn formatted(bytes: &[u8]) -> String {
    let mut number = [0; 8];
    match number.get_mut(..bytes.len()) {
        Some(part) => {
            part.copy_from_slice(bytes);
            u64::from_le_bytes(number).to_string()
        }
        None => bytes.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        }),
    }
}

/// Makes the requests in order and prints a line for each.
pub fn run(requests: &Requests) -> Result<usize> {
    let file = File::options()
        .read(true)
        .write(!requests.read_only)
        .open(&requests.file)
        .with_context(|| requests.file.display().to_string())?;
    for call in &requests.requests {
        let answer = if requests.bad_pointer {
            call.request
                .make_unmapped(file.as_fd())
                .map(|()| Vec::new())
        } else {
            call.request.make(file.as_fd(), &call.numbers)
        };
        let answer = match answer {
            Ok(bytes) if bytes.is_empty() => "ok".to_owned(),
            Ok(bytes) => formatted(&bytes),
            Err(error) => error.to_string(),
        };
        println!("{}: {answer}", call.text);
    }
    Ok(0)
}
