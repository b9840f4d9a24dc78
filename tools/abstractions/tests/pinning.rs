// SPDX-License-Identifier: GPL-2.0

//! A mapping of a file of the host in the hands of its kernel.

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

fn held(mapping: &Mapping) -> [u8; 6] {
    let mut bytes = [0; 6];
    mapping.copy_out(PAGE - 3, &mut bytes);
    bytes
}

#[test]
fn calls_read_and_write_it() {
    let mapping = two_pages(b"before");
    let mut bytes = [0; 6];
    assert_eq!(mapping.process_read(PAGE - 3, &mut bytes).unwrap(), 6);
    assert_eq!(&bytes, b"before");
    assert_eq!(mapping.process_write(PAGE - 3, b"behind").unwrap(), 6);
    assert_eq!(&held(&mapping), b"behind");

    let other = tempfile::tempfile().unwrap();
    assert_eq!(mapping.pwrite(&other, 100, PAGE - 3, 6).unwrap(), 6);
    mapping.copy_in(PAGE - 3, b"nought");
    assert_eq!(mapping.pread(&other, 100, PAGE - 3, 6).unwrap(), 6);
    assert_eq!(&held(&mapping), b"behind");
}

#[test]
fn a_pipe_holds_its_pages() {
    let mapping = two_pages(b"before");
    let (from, to) = rustix::pipe::pipe().unwrap();
    assert_eq!(mapping.vmsplice(&to, PAGE - 3, 6).unwrap(), 6);
    mapping.copy_in(PAGE - 3, b"behind");
    let mut bytes = [0; 6];
    File::from(from).read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"behind", "it was lent, not copied");
}

#[test]
fn a_socket_gives_its_pages_back() {
    let mapping = two_pages(b"before");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut peer, _) = listener.accept().unwrap();
    allow_zerocopy(&socket).unwrap();
    assert_eq!(mapping.send(&socket, PAGE - 3, 6).unwrap(), 6);
    let mut bytes = [0; 6];
    peer.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"before");
    // The notice may come after the bytes.
    let notice = (0..1000).find_map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(1));
        released(&socket).ok()
    });
    assert_eq!(notice.unwrap().calls, 1);
}

#[test]
fn parts_of_it_become_something_else() {
    let mut mapping = two_pages(b"before");
    mapping.advise(0, 2 * PAGE, Advice::Forget).unwrap();
    assert_eq!(&held(&mapping), b"before");
    mapping.unmap(PAGE, PAGE).unwrap();
    assert_eq!(&held(&mapping), b"bef\0\0\0");
    mapping.protect(0, PAGE).unwrap();
    assert_eq!(&held(&mapping), b"bef\0\0\0");
    mapping.unprotect().unwrap();
    mapping.copy_in(PAGE - 3, b"behind");
    assert_eq!(&held(&mapping), b"behind");
}

#[test]
#[should_panic(expected = "a store to a mapping for reading")]
fn what_is_protected_is_not_stored_to() {
    let mut mapping = two_pages(b"before");
    mapping.protect(0, PAGE).unwrap();
    let _ = mapping.process_write(0, b"x");
}
