// SPDX-License-Identifier: GPL-2.0

//! `pmem-demo`: a file that survives a power cut.

fn main() {}
