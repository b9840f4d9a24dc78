// SPDX-License-Identifier: GPL-2.0

//! Mappings of a file of the host. One test, since a process has one handler of SIGBUS.

use abstractions::Mapping;
use abstractions::mapping::Options;
use abstractions::sigbus;
use std::fs;

const PAGE: usize = 4096;
/// `BUS_ADRERR`: nothing is there.
const NOTHING_THERE: i32 = 2;

#[test]
fn stores_are_in_the_file_and_refusals_are_answers() {
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

    // The last two pages go away under the mapping.
    file.as_file().set_len(PAGE as u64).unwrap();
    let mut page = [1; PAGE];
    assert_eq!(mapping.try_copy_out(0, &mut page), Ok(()));
    let refusal = mapping.try_copy_out(PAGE, &mut page).unwrap_err();
    assert_eq!(
        (refusal.code, refusal.address),
        (NOTHING_THERE, mapping.address() + PAGE)
    );
    assert_eq!(
        mapping.try_copy_in(2 * PAGE + 7, b"x").unwrap_err().code,
        NOTHING_THERE
    );
    assert_eq!(
        mapping.try_copy_out(0, &mut page),
        Ok(()),
        "the first page is whole"
    );
}

#[test]
#[should_panic(expected = "in more than one page")]
fn an_access_that_may_be_refused_is_of_one_page() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(2 * PAGE as u64).unwrap();
    let mapping = Mapping::new(&file, 0, 2 * PAGE, Options::default()).unwrap();
    let _ = mapping.try_copy_out(PAGE - 1, &mut [0; 2]);
}

#[test]
#[should_panic(expected = "of a mapping of 4096 bytes")]
fn an_access_is_within_the_mapping() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(PAGE as u64).unwrap();
    let mapping = Mapping::new(&file, 0, PAGE, Options::default()).unwrap();
    mapping.copy_out(PAGE, &mut [0]);
}
