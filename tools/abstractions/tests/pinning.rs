// SPDX-License-Identifier: GPL-2.0

//! System calls on the pages of a mapping of an ordinary file.

use abstractions::Mapping;
use abstractions::mapping::Options;
use abstractions::pinning::{Advice, allow_zerocopy, released};
use std::fs::File;
use std::io::Read;
use std::net::{Ipv4Addr, TcpListener, TcpStream};

const PAGE: usize = 4096;

fn two_pages(text: &[u8]) -> Mapping {
    let file = tempfile::tempfile().unwrap();
    file.set_len(2 * PAGE as u64).unwrap();
    let options = Options {
        writable: true,
        ..Options::default()
    };
    let mapping = Mapping::new(&file, 0, 2 * PAGE, options).unwrap();
    mapping.copy_in(PAGE - 3, text);
    mapping
}

fn contents(mapping: &Mapping) -> [u8; 6] {
    let mut bytes = [0; 6];
    mapping.copy_out(PAGE - 3, &mut bytes);
    bytes
}

#[test]
fn system_calls_read_and_write_a_mapping() {
    let mapping = two_pages(b"before");
    let mut bytes = [0; 6];
    assert_eq!(mapping.process_read(PAGE - 3, &mut bytes).unwrap(), 6);
    assert_eq!(&bytes, b"before");
    assert_eq!(mapping.process_write(PAGE - 3, b"behind").unwrap(), 6);
    assert_eq!(&contents(&mapping), b"behind");

    let other = tempfile::tempfile().unwrap();
    assert_eq!(mapping.pwrite(&other, 100, PAGE - 3, 6).unwrap(), 6);
    mapping.copy_in(PAGE - 3, b"nought");
    assert_eq!(mapping.pread(&other, 100, PAGE - 3, 6).unwrap(), 6);
    assert_eq!(&contents(&mapping), b"behind");
}

#[test]
fn vmsplice_does_not_copy() {
    let mapping = two_pages(b"before");
    let (from, to) = rustix::pipe::pipe().unwrap();
    assert_eq!(mapping.vmsplice(&to, PAGE - 3, 6).unwrap(), 6);
    mapping.copy_in(PAGE - 3, b"behind");
    let mut bytes = [0; 6];
    File::from(from).read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"behind", "the pipe has the page, not a copy");
}

#[test]
fn zerocopy_send_is_notified() {
    let mapping = two_pages(b"before");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut peer, _) = listener.accept().unwrap();
    allow_zerocopy(&socket).unwrap();
    assert_eq!(mapping.send(&socket, PAGE - 3, 6).unwrap(), 6);
    let mut bytes = [0; 6];
    peer.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"before");
    // The notification may arrive after the bytes.
    let notification = (0..1000).find_map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(1));
        released(&socket).ok()
    });
    assert_eq!(notification.unwrap().calls, 1);
}

#[test]
fn advise_unmap_and_protect_change_a_mapping() {
    let mut mapping = two_pages(b"before");
    mapping.advise(0, 2 * PAGE, Advice::Forget).unwrap();
    assert_eq!(&contents(&mapping), b"before");
    mapping.unmap(PAGE, PAGE).unwrap();
    assert_eq!(&contents(&mapping), b"bef\0\0\0");
    mapping.protect(0, PAGE).unwrap();
    assert_eq!(&contents(&mapping), b"bef\0\0\0");
    mapping.unprotect().unwrap();
    mapping.copy_in(PAGE - 3, b"behind");
    assert_eq!(&contents(&mapping), b"behind");
}

#[test]
#[should_panic(expected = "a store to a read-only mapping")]
fn store_to_protected_range_panics() {
    let mut mapping = two_pages(b"before");
    mapping.protect(0, PAGE).unwrap();
    let _ = mapping.process_write(0, b"x");
}
