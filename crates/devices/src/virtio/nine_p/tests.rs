//! Tests of the 9P device through a transport, as Linux's client speaks to it, and as a hostile one might.

use super::*;
use crate::{
    backend::share::ShareOptions,
    virtio::{
        mmio::VirtioMmio,
        testing::{Guest, Part, Registers},
    },
};
use isomer_core::Device;
use std::{
    fs,
    os::unix::fs::{MetadataExt, symlink},
    path::Path,
};
use tempfile::TempDir;

const ENOENT: u32 = 2;
const EBADF: u32 = 9;
const ENFILE: u32 = 23;
const EROFS: u32 = 30;

type Machine = Guest<VirtioMmio<Virtio9p>>;

fn device(path: &Path, read_only: bool) -> Virtio9p {
    let options = ShareOptions { read_only, ..ShareOptions::default() };
    Virtio9p::new(Arc::new(Share::open(path, &options).unwrap()), "docs")
}

fn attached(path: &Path, read_only: bool) -> Machine {
    let mut guest = Guest::mmio(device(path, read_only));
    guest.start(u64::MAX);
    let version = Message::default().u32(512 << 10).text("9P2000.L");
    let answer = call(&mut guest, 100, version, 100).unwrap();
    assert_eq!((word(&answer, 0), &answer[6..]), (512 << 10, &b"9P2000.L"[..]));
    let attach = Message::default().u32(0).u32(u32::MAX).text("root").text("").u32(0);
    assert_eq!(call(&mut guest, 104, attach, 100).unwrap()[0], 0x80);
    guest
}

#[derive(Clone, Debug, Default)]
struct Message(Vec<u8>);

impl Message {
    fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }
    fn u16(mut self, value: u16) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }
    fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }
    fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }
    fn text(mut self, text: &str) -> Self {
        self = self.u16(text.len() as u16);
        self.0.extend(text.as_bytes());
        self
    }
    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }
}

/// One request; the answer's body, or its error number.
fn call(guest: &mut Machine, kind: u8, body: Message, room: u32) -> Result<Vec<u8>, u32> {
    let size = 7 + body.0.len() as u32;
    let message = [&size.to_le_bytes()[..], &[kind, 42, 0], &body.0].concat();
    let answer = guest.request(0, &[Part::Out(&message), Part::In(room + 11)]);
    assert_eq!(word(&answer, 0) as usize, answer.len());
    assert_eq!((answer[5], answer[6]), (42, 0));
    match answer[4] {
        7 => Err(word(&answer, 7)),
        answered => {
            assert_eq!(answered, kind + 1);
            Ok(answer[7..].to_vec())
        }
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn walk(guest: &mut Machine, fid: u32, new: u32, names: &[&str]) -> Result<u16, u32> {
    let mut body = Message::default().u32(fid).u32(new).u16(names.len() as u16);
    for name in names {
        body = body.text(name);
    }
    call(guest, 110, body, 300).map(|answer| u16::from_le_bytes([answer[0], answer[1]]))
}

fn open(guest: &mut Machine, fid: u32, flags: u32) -> Result<(), u32> {
    call(guest, 12, Message::default().u32(fid).u32(flags), 100).map(drop)
}

fn read(guest: &mut Machine, fid: u32, at: u64, count: u32) -> Result<Vec<u8>, u32> {
    let answer = call(guest, 116, Message::default().u32(fid).u64(at).u32(count), count + 4)?;
    assert_eq!(word(&answer, 0) as usize, answer.len() - 4);
    Ok(answer[4..].to_vec())
}

fn write(guest: &mut Machine, fid: u32, at: u64, data: &[u8]) -> Result<u32, u32> {
    let body = Message::default().u32(fid).u64(at).u32(data.len() as u32).bytes(data);
    call(guest, 118, body, 100).map(|answer| word(&answer, 0))
}

fn create(guest: &mut Machine, fid: u32, name: &str, flags: u32) -> Result<(), u32> {
    walk(guest, 0, fid, &[])?;
    let body = Message::default().u32(fid).text(name).u32(flags).u32(0o644).u32(0);
    call(guest, 14, body, 100).map(drop)
}

fn clunk(guest: &mut Machine, fid: u32) -> Result<(), u32> {
    call(guest, 120, Message::default().u32(fid), 100).map(drop)
}

#[test]
fn configuration_has_the_tag() {
    let dir = TempDir::new().unwrap();
    let mut guest = attached(dir.path(), false);
    assert_ne!(guest.features & 1, 0);
    assert_eq!(guest.device.config(0, 2), 4);
    assert_eq!(guest.device.config(2, 4), u64::from(u32::from_le_bytes(*b"docs")));
}

#[test]
fn files_are_made_written_read_and_listed() {
    let dir = TempDir::new().unwrap();
    fs::create_dir_all(dir.path().join("a/b")).unwrap();
    fs::write(dir.path().join("a/b/c"), b"hello").unwrap();
    let mut guest = attached(dir.path(), false);
    assert_eq!(walk(&mut guest, 0, 1, &["a", "b", "c"]), Ok(3));
    open(&mut guest, 1, 0).unwrap();
    assert_eq!(read(&mut guest, 1, 1, 100).unwrap(), b"ello");
    assert_eq!(write(&mut guest, 1, 0, b"x"), Err(EBADF));
    create(&mut guest, 2, "new", 2).unwrap();
    let data: Vec<u8> = (0..500_000).map(|i| (i / 7) as u8).collect();
    assert_eq!(write(&mut guest, 2, 0, &data), Ok(500_000));
    assert_eq!(fs::read(dir.path().join("new")).unwrap(), data);
    assert_eq!(read(&mut guest, 2, 0, 500_000).unwrap(), data);
    create(&mut guest, 3, "log", 0o2002).unwrap();
    assert_eq!((write(&mut guest, 3, 0, b"one"), write(&mut guest, 3, 0, b"two")), (Ok(3), Ok(3)));
    assert_eq!(fs::read(dir.path().join("log")).unwrap(), b"onetwo");
    // Entries, as many as fit.
    walk(&mut guest, 0, 4, &[]).unwrap();
    open(&mut guest, 4, 0).unwrap();
    let (mut names, mut at) = (Vec::new(), 0);
    loop {
        let answer = call(&mut guest, 40, Message::default().u32(4).u64(at).u32(60), 64).unwrap();
        let mut rest = &answer[4..];
        if rest.is_empty() {
            break;
        }
        while !rest.is_empty() {
            at = u64::from_le_bytes(rest[13..21].try_into().unwrap());
            let len = usize::from(u16::from_le_bytes([rest[22], rest[23]]));
            names.push(String::from_utf8(rest[24..24 + len].to_vec()).unwrap());
            rest = &rest[24 + len..];
        }
    }
    names.sort();
    assert_eq!(names, [".", "..", "a", "log", "new"]);
    // Attributes.
    let attr = call(&mut guest, 24, Message::default().u32(2).u64(0x7ff), 200).unwrap();
    assert_eq!(u64::from_le_bytes(attr[49..57].try_into().unwrap()), 500_000);
    let truncate = Message::default().u32(2).u32(8).u32(0).u32(0).u32(0).u64(7).u64(0).u64(0).u64(0).u64(0);
    call(&mut guest, 26, truncate, 10).unwrap();
    assert_eq!(fs::metadata(dir.path().join("new")).unwrap().len(), 7);
    // Names.
    call(&mut guest, 72, Message::default().u32(0).text("d").u32(0o755).u32(0), 100).unwrap();
    let rename = Message::default().u32(0).text("new").u32(0).text("newer");
    call(&mut guest, 74, rename, 10).unwrap();
    call(&mut guest, 70, Message::default().u32(0).u32(2).text("twin"), 10).unwrap();
    assert_eq!(fs::metadata(dir.path().join("twin")).unwrap().nlink(), 2);
    call(&mut guest, 76, Message::default().u32(0).text("d").u32(0x200), 10).unwrap();
    call(&mut guest, 76, Message::default().u32(0).text("twin").u32(0), 10).unwrap();
    assert!(!dir.path().join("d").exists() && !dir.path().join("twin").exists());
    call(&mut guest, 50, Message::default().u32(2).u32(1), 10).unwrap();
    assert!(call(&mut guest, 8, Message::default().u32(0), 100).is_ok());
}

#[test]
fn extended_attributes_go_through_fids() {
    let dir = TempDir::new().unwrap();
    let mut guest = attached(dir.path(), false);
    create(&mut guest, 1, "f", 2).unwrap();
    walk(&mut guest, 0, 2, &["f"]).unwrap();
    let body = Message::default().u32(2).text("user.note").u64(5).u32(0);
    call(&mut guest, 32, body, 10).unwrap();
    assert_eq!((write(&mut guest, 2, 0, b"val"), write(&mut guest, 2, 3, b"ue")), (Ok(3), Ok(2)));
    clunk(&mut guest, 2).unwrap();
    let get = Message::default().u32(1).u32(3).text("user.note");
    assert_eq!(call(&mut guest, 30, get.clone(), 20).unwrap(), 5u64.to_le_bytes());
    assert_eq!(read(&mut guest, 3, 0, 100).unwrap(), b"value");
    clunk(&mut guest, 3).unwrap();
    let list = call(&mut guest, 30, Message::default().u32(1).u32(3).text(""), 20).unwrap();
    assert!(list[0] >= 10);
    clunk(&mut guest, 3).unwrap();
    // Nothing written: it is removed.
    walk(&mut guest, 0, 2, &["f"]).unwrap();
    call(&mut guest, 32, Message::default().u32(2).text("user.note").u64(0).u32(2), 10).unwrap();
    clunk(&mut guest, 2).unwrap();
    assert_eq!(call(&mut guest, 30, get, 20), Err(61));
    // As many at once as the server allows, and no more.
    let mut refused = 0;
    for fid in 100..400 {
        let list = Message::default().u32(1).u32(fid).text("");
        refused += u32::from(call(&mut guest, 30, list, 20) == Err(ENFILE));
    }
    assert_eq!(refused, 300 - 256);
}

#[test]
fn locks_exclude_each_other() {
    let dir = TempDir::new().unwrap();
    let mut guest = attached(dir.path(), false);
    create(&mut guest, 1, "f", 2).unwrap();
    walk(&mut guest, 0, 2, &["f"]).unwrap();
    open(&mut guest, 2, 2).unwrap();
    let lock = |fid: u32, kind: u8, start: u64, process: u32| {
        Message::default().u32(fid).u8(kind).u32(0).u64(start).u64(10).u32(process).text("guest")
    };
    assert_eq!(call(&mut guest, 52, lock(1, 1, 0, 7), 10).unwrap(), [0]);
    assert_eq!(call(&mut guest, 52, lock(2, 1, 5, 8), 10).unwrap(), [1]);
    assert_eq!(call(&mut guest, 52, lock(2, 1, 10, 8), 10).unwrap(), [0]);
    let ask = Message::default().u32(2).u8(1).u64(0).u64(10).u32(8).text("guest");
    assert_eq!(call(&mut guest, 54, ask.clone(), 60).unwrap()[0], 1);
    // The host sees them.
    let host = fs::OpenOptions::new().read(true).write(true).open(dir.path().join("f")).unwrap();
    assert!(rustix::fs::fcntl_lock(&host, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err());
    // Closing gives them back.
    clunk(&mut guest, 1).unwrap();
    assert_eq!(call(&mut guest, 54, ask, 60).unwrap()[0], 2);
    assert_eq!(call(&mut guest, 52, lock(2, 0, 0, 8), 10).unwrap(), [0]);
}

#[test]
fn no_name_and_no_link_leads_out() {
    let outside = TempDir::new().unwrap();
    fs::write(outside.path().join("secret"), b"secret").unwrap();
    let dir = TempDir::new().unwrap();
    symlink(outside.path(), dir.path().join("out")).unwrap();
    symlink(outside.path().join("secret"), dir.path().join("file")).unwrap();
    fs::create_dir(dir.path().join("sub")).unwrap();
    let mut guest = attached(dir.path(), false);
    // Above the root is the root.
    assert_eq!(walk(&mut guest, 0, 1, &["..", "..", "sub", ".."]), Ok(4));
    assert_eq!(walk(&mut guest, 1, 2, &["sub"]), Ok(1));
    for wrong in ["../secret", "/etc", "out/secret", ".", ""] {
        assert!(walk(&mut guest, 0, 9, &[wrong]).is_err(), "{wrong:?}");
    }
    assert_eq!(walk(&mut guest, 0, 9, &["out", "secret"]), Ok(1), "the walk ends at the link");
    walk(&mut guest, 0, 3, &["file"]).unwrap();
    assert!(open(&mut guest, 3, 0).is_err());
    assert!(open(&mut guest, 3, 0o1002).is_err());
    for wrong in ["..", ".", "../x", "a/b", ""] {
        assert!(create(&mut guest, 20, wrong, 2).is_err());
        let _ = clunk(&mut guest, 20);
        let to = Message::default().u32(0).text("file").u32(0).text(wrong);
        assert!(call(&mut guest, 74, to, 10).is_err());
    }
    let mknod = Message::default().u32(0).text("null").u32(0o20_666).u32(1).u32(3).u32(0);
    assert_eq!(call(&mut guest, 18, mknod, 100), Err(1));
    assert_eq!(fs::read(outside.path().join("secret")).unwrap(), b"secret");
}

#[test]
fn a_read_only_share_changes_nothing() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("f"), b"x").unwrap();
    let mut guest = attached(dir.path(), true);
    walk(&mut guest, 0, 1, &["f"]).unwrap();
    assert_eq!(open(&mut guest, 1, 2), Err(EROFS));
    assert_eq!(create(&mut guest, 2, "g", 2), Err(EROFS));
    assert_eq!(call(&mut guest, 76, Message::default().u32(0).text("f").u32(0), 10), Err(EROFS));
    open(&mut guest, 1, 0).unwrap();
    assert_eq!(read(&mut guest, 1, 0, 10).unwrap(), b"x");
}

#[test]
fn malformed_requests_are_answered_with_errors() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("f"), b"x").unwrap();
    let mut guest = Guest::mmio(device(dir.path(), false));
    guest.start(u64::MAX);
    assert!(walk(&mut guest, 0, 1, &[]).is_err(), "before VERSION");
    let other = call(&mut guest, 100, Message::default().u32(8192).text("9P2000"), 100).unwrap();
    assert_eq!(&other[6..], b"unknown");
    assert!(call(&mut guest, 100, Message::default().u32(100).text("9P2000.L"), 100).is_err());
    drop(guest);
    let mut guest = attached(dir.path(), false);
    assert!(guest.request(0, &[Part::Out(&[1, 2, 3]), Part::In(100)]).is_empty());
    assert!(guest.request(0, &[Part::Out(&[7, 0, 0, 0, 8, 0, 0]), Part::In(6)]).is_empty());
    for size in [0u32, 6, 8, u32::MAX] {
        let answer =
            guest.request(0, &[Part::Out(&[&size.to_le_bytes()[..], &[8, 1, 0]].concat()), Part::In(64)]);
        assert_eq!(answer[4], 7, "size {size}");
    }
    assert_eq!(walk(&mut guest, 77, 1, &[]), Err(EBADF));
    assert_eq!(walk(&mut guest, 0, 0, &["nothing"]), Err(ENOENT));
    assert!(walk(&mut guest, 0, 1, &["f"; 17]).is_err());
    assert!(walk(&mut guest, 0, 1, &[&"x".repeat(300)]).is_err());
    assert!(
        call(&mut guest, 110, Message::default().u32(0).u32(1).u16(1).u16(500).bytes(b"f"), 100).is_err()
    );
    assert!(
        call(&mut guest, 110, Message::default().u32(0).u32(1).u16(1).u16(3).bytes(b"a\0b"), 100).is_err()
    );
    assert_eq!(walk(&mut guest, 0, 1, &["f"]), Ok(1));
    assert_eq!(walk(&mut guest, 0, 1, &["f"]), Err(EBADF), "the fid is taken");
    assert_eq!(read(&mut guest, 1, 0, 10), Err(EBADF), "not open");
    open(&mut guest, 1, 2).unwrap();
    assert_eq!(open(&mut guest, 1, 2), Err(EBADF), "open already");
    assert!(call(&mut guest, 118, Message::default().u32(1).u64(0).u32(u32::MAX).bytes(b"x"), 10).is_err());
    assert!(read(&mut guest, 1, u64::MAX, 10).is_err());
    // FLUSH of nothing, of itself, and types that do not exist.
    call(&mut guest, 108, Message::default().u16(9), 10).unwrap();
    call(&mut guest, 108, Message::default().u16(42), 10).unwrap();
    for kind in [0, 1, 6, 7, 102, 255] {
        assert!(call(&mut guest, kind, Message::default(), 100).is_err());
    }
    assert!(call(&mut guest, 32, Message::default().u32(0).text("user.x").u64(1 << 40).u32(0), 10).is_err());
    // Fids run out before memory does, and a new VERSION frees them.
    assert_eq!(guest.device.device().server.fids.len(), 2);
    call(&mut guest, 100, Message::default().u32(8192).text("9P2000.L"), 100).unwrap();
    assert_eq!(guest.device.device().server.fids.len(), 0);
    assert_eq!(guest.device.device().share().known_files(), 1);
}

mod conformance {
    use super::*;
    use crate::virtio::mmio::WINDOW_BYTES;

    crate::device_conformance!(
        mmio,
        VirtioMmio::new(
            device(&std::env::temp_dir(), true),
            crate::virtio::testing::ram(),
            isomer_core::IrqLine::unconnected()
        ),
        crate::conformance::Options { windows: &[WINDOW_BYTES], ..Default::default() }
    );
}

#[test]
fn a_mounted_share_says_that_it_cannot_be_restored() {
    let dir = TempDir::new().unwrap();
    let mut guest = attached(dir.path(), false);
    guest.device.quiesce();
    let state = isomer_core::DynDevice::save(&guest.device).unwrap();
    let other = device(dir.path(), false);
    let mut other = VirtioMmio::new(other, guest.ram.clone(), isomer_core::IrqLine::unconnected());
    assert!(isomer_core::DynDevice::restore(&mut other, &state).unwrap_err().to_string().contains("unmount"));
}
