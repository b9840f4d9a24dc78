// SPDX-License-Identifier: GPL-2.0

//! Mappings of an ordinary file. One test uses SIGBUS, because a process has one handler of it.

use abstractions::Mapping;
use abstractions::mapping::Options;
use abstractions::sigbus;
use std::fs;

const PAGE: usize = 4096;
/// `BUS_ADRERR`.
const ADRERR: i32 = 2;

#[test]
fn stores_reach_the_file_and_sigbus_is_an_error() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(3 * PAGE as u64).unwrap();
    let options = Options {
        writable: true,
        ..Options::default()
    };
    let mapping = Mapping::new(file.as_file(), 0, 3 * PAGE, options).unwrap();
    sigbus::catch().unwrap();

    let text = b"across a line and a page";
    mapping.copy_in(PAGE - 10, text);
    mapping.write_back(PAGE - 10, text.len());
    mapping.sync(0, 3 * PAGE).unwrap();
    let bytes = fs::read(file.path()).unwrap();
    assert_eq!(&bytes[PAGE - 10..][..text.len()], text);

    // Truncate two mapped pages.
    file.as_file().set_len(PAGE as u64).unwrap();
    let mut page = [1; PAGE];
    assert_eq!(mapping.try_copy_out(0, &mut page), Ok(()));
    let error = mapping.try_copy_out(PAGE, &mut page).unwrap_err();
    assert_eq!(
        (error.code, error.address),
        (ADRERR, mapping.address() + PAGE)
    );
    assert_eq!(
        mapping.try_copy_in(2 * PAGE + 7, b"x").unwrap_err().code,
        ADRERR
    );
    assert_eq!(
        mapping.try_copy_out(0, &mut page),
        Ok(()),
        "the first page is still mapped"
    );
}

#[test]
#[should_panic(expected = "in more than one page")]
fn try_copy_across_pages_panics() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(2 * PAGE as u64).unwrap();
    let mapping = Mapping::new(&file, 0, 2 * PAGE, Options::default()).unwrap();
    let _ = mapping.try_copy_out(PAGE - 1, &mut [0; 2]);
}

#[test]
#[should_panic(expected = "of a mapping of 4096 bytes")]
fn copy_outside_the_mapping_panics() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(PAGE as u64).unwrap();
    let mapping = Mapping::new(&file, 0, PAGE, Options::default()).unwrap();
    mapping.copy_out(PAGE, &mut [0]);
}
