//! Tests of the file system device through a transport, as Linux's driver speaks to it, and as a hostile one might.

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
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
};
use tempfile::TempDir;

const ENOENT: i32 = 2;
const EIO: i32 = 5;
const EBADF: i32 = 9;
const EINVAL: i32 = 22;
const EROFS: i32 = 30;
const ENOSYS: i32 = 38;
const ESTALE: i32 = 116;

type Machine = Guest<VirtioMmio<VirtioFs>>;

fn share(path: &Path, read_only: bool) -> Arc<Share> {
    Arc::new(Share::open(path, &ShareOptions { read_only, ..ShareOptions::default() }).unwrap())
}

fn device(path: &Path) -> VirtioFs {
    VirtioFs::new(share(path, false), &FsOptions { tag: "docs".into(), queues: 2, ..FsOptions::default() })
}

fn unmounted(path: &Path) -> Machine {
    let mut guest = Guest::mmio(device(path));
    guest.start(u64::MAX);
    guest
}

fn mounted(path: &Path) -> Machine {
    let mut guest = unmounted(path);
    init(&mut guest);
    guest
}

fn init(guest: &mut Machine) {
    let args: Vec<u8> = [7u32, 38, 65536, u32::MAX].iter().flat_map(|n| n.to_le_bytes()).collect();
    let answer = call(guest, 26, 0, &args, 64).unwrap();
    assert_eq!(word(&answer, 0), 7);
    assert!(word(&answer, 4) >= 31);
}

fn header(op: u32, node: u64, args_len: usize) -> Vec<u8> {
    let mut header = Vec::new();
    header.extend((40 + args_len as u32).to_le_bytes());
    header.extend(op.to_le_bytes());
    header.extend(7u64.to_le_bytes());
    header.extend(node.to_le_bytes());
    header.extend([0; 16]);
    header
}

/// One request on the first request queue; the answer's body, or its error number.
fn call(guest: &mut Machine, op: u32, node: u64, args: &[u8], room: u32) -> Result<Vec<u8>, i32> {
    let header = header(op, node, args.len());
    let parts = [Part::Out(&header), Part::Out(args), Part::In(16), Part::In(room.max(1))];
    let parts = if args.is_empty() { [&parts[..1], &parts[2..]].concat() } else { parts.to_vec() };
    let answer = guest.request(1, &parts);
    assert_eq!(word(&answer, 0) as usize, answer.len());
    assert_eq!(long(&answer, 8), 7, "the answer is to another request");
    match word(&answer, 4) as i32 {
        0 => Ok(answer[16..].to_vec()),
        error => Err(-error),
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn longs(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn words(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn name(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

fn lookup(guest: &mut Machine, parent: u64, text: &str) -> Result<u64, i32> {
    call(guest, 1, parent, &name(text), 128).map(|entry| long(&entry, 0))
}

fn open(guest: &mut Machine, node: u64, flags: u32) -> Result<u64, i32> {
    call(guest, 14, node, &words(&[flags, 0]), 16).map(|answer| long(&answer, 0))
}

fn read(guest: &mut Machine, fh: u64, at: u64, size: u32) -> Result<Vec<u8>, i32> {
    let args = [longs(&[fh, at]), words(&[size, 0]), longs(&[0]), words(&[0, 0])].concat();
    call(guest, 15, 0, &args, size)
}

fn write(guest: &mut Machine, fh: u64, at: u64, data: &[u8], flags: u32) -> Result<u32, i32> {
    let size = data.len() as u32;
    let args = [longs(&[fh, at]), words(&[size, 0]), longs(&[0]), words(&[flags, 0]), data.to_vec()].concat();
    call(guest, 16, 0, &args, 8).map(|answer| word(&answer, 0))
}

fn create(guest: &mut Machine, parent: u64, text: &str, flags: u32, mode: u32) -> Result<(u64, u64), i32> {
    let args = [words(&[flags, mode, 0, 0]), name(text)].concat();
    call(guest, 35, parent, &args, 144).map(|answer| (long(&answer, 0), long(&answer, 128)))
}

#[test]
fn configuration_has_tag_and_queues() {
    let dir = TempDir::new().unwrap();
    let mut guest = unmounted(dir.path());
    let tag: Vec<u8> = (0..36).map(|at| guest.device.config(at, 1) as u8).collect();
    assert_eq!(&tag[..5], b"docs\0");
    assert_eq!(guest.device.config(36, 4), 2);
    assert_eq!(guest.device.config(40, 4), 0);
}

#[test]
fn files_are_made_written_read_and_listed() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("there"), b"hello").unwrap();
    let mut guest = mounted(dir.path());

    let node = lookup(&mut guest, 1, "there").unwrap();
    let fh = open(&mut guest, node, 0).unwrap();
    assert_eq!(read(&mut guest, fh, 1, 100).unwrap(), b"ello");
    assert_eq!(write(&mut guest, fh, 0, b"x", 0), Err(EBADF));

    let (_, fh) = create(&mut guest, 1, "new", 2, 0o640).unwrap();
    let data: Vec<u8> = (0..1 << 20).map(|i| (i / 7) as u8).collect();
    for (index, part) in data.chunks(60_000).enumerate() {
        assert_eq!(write(&mut guest, fh, index as u64 * 60_000, part, 1), Ok(part.len() as u32));
    }
    assert_eq!(fs::read(dir.path().join("new")).unwrap(), data);
    assert_eq!(fs::metadata(dir.path().join("new")).unwrap().permissions().mode() & 0o7777, 0o640);
    assert_eq!(read(&mut guest, fh, 0, 1 << 20).unwrap(), data);
    // O_APPEND of the write, not of the open.
    assert_eq!(write(&mut guest, fh, 0, b"tail", 0o2001), Ok(4));
    assert_eq!(fs::metadata(dir.path().join("new")).unwrap().len(), (1 << 20) + 4);

    let fh = long(&call(&mut guest, 27, 1, &words(&[0, 0]), 16).unwrap(), 0);
    let mut names = Vec::new();
    let mut at = 0;
    loop {
        // Room for one or two entries only: the rest is asked for again.
        let args = [longs(&[fh, at]), words(&[80, 0]), longs(&[0]), words(&[0, 0])].concat();
        let entries = call(&mut guest, 28, 1, &args, 80).unwrap();
        if entries.is_empty() {
            break;
        }
        let mut rest = &entries[..];
        while !rest.is_empty() {
            let len = word(rest, 16) as usize;
            names.push(String::from_utf8(rest[24..24 + len].to_vec()).unwrap());
            at = long(rest, 8);
            rest = &rest[(24 + len).next_multiple_of(8)..];
        }
    }
    names.sort();
    assert_eq!(names, [".", "..", "new", "there"]);
    let plus = [longs(&[fh, 0]), words(&[4096, 0]), longs(&[0]), words(&[0, 0])].concat();
    let entries = call(&mut guest, 44, 1, &plus, 4096).unwrap();
    assert!(entries.windows(5).any(|w| w == b"there"));
    assert!(call(&mut guest, 29, 1, &longs(&[fh, 0, 0]), 1).is_ok());
    assert_eq!(call(&mut guest, 29, 1, &longs(&[fh, 0, 0]), 1), Err(EBADF));
}

#[test]
fn the_host_follows_no_link_and_no_name_leads_out() {
    let outside = TempDir::new().unwrap();
    fs::write(outside.path().join("secret"), b"secret").unwrap();
    let dir = TempDir::new().unwrap();
    symlink(outside.path(), dir.path().join("out")).unwrap();
    symlink(outside.path().join("secret"), dir.path().join("file")).unwrap();
    let mut guest = mounted(dir.path());
    for wrong in ["..", ".", "../secret", "/etc/passwd", "out/secret", ""] {
        let error = lookup(&mut guest, 1, wrong).unwrap_err();
        assert!(error == EINVAL || error == ENOENT, "{wrong:?}: {error}");
        assert!(create(&mut guest, 1, wrong, 2, 0o600).is_err());
        assert!(call(&mut guest, 9, 1, &[words(&[0o700, 0]), name(wrong)].concat(), 128).is_err());
        assert!(call(&mut guest, 10, 1, &name(wrong), 1).is_err());
        let rename = [longs(&[1]), name("file"), name(wrong)].concat();
        assert!(call(&mut guest, 12, 1, &rename, 1).is_err());
    }
    let link = lookup(&mut guest, 1, "out").unwrap();
    let target = call(&mut guest, 5, link, &[], 4096).unwrap();
    assert_eq!(target, outside.path().as_os_str().as_encoded_bytes());
    assert!(lookup(&mut guest, link, "secret").is_err());
    assert!(open(&mut guest, link, 0).is_err());
    assert!(call(&mut guest, 27, link, &words(&[0, 0]), 16).is_err());
    let file = lookup(&mut guest, 1, "file").unwrap();
    assert!(open(&mut guest, file, 0).is_err());
    // Creating through a dangling or live link makes and opens nothing.
    assert!(create(&mut guest, 1, "file", 0o1002, 0o600).is_err());
    assert_eq!(fs::read(outside.path().join("secret")).unwrap(), b"secret");
    // A device node would be the host's device.
    let mknod = [words(&[0o20_666, 0x103, 0, 0]), name("null")].concat();
    assert_eq!(call(&mut guest, 8, 1, &mknod, 128), Err(1));
}

#[test]
fn directories_swapped_for_links_meanwhile_lead_nowhere() {
    let outside = TempDir::new().unwrap();
    fs::write(outside.path().join("x"), b"secret").unwrap();
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("sub")).unwrap();
    let mut guest = mounted(dir.path());
    let sub = lookup(&mut guest, 1, "sub").unwrap();
    fs::rename(dir.path().join("sub"), dir.path().join("was")).unwrap();
    symlink(outside.path(), dir.path().join("sub")).unwrap();
    assert!(matches!(lookup(&mut guest, sub, "x"), Err(ENOENT | ESTALE)));
    assert!(create(&mut guest, sub, "made", 2, 0o600).is_err() || dir.path().join("was/made").exists());
    assert!(!outside.path().join("made").exists());
}

#[test]
fn renames_keep_open_files_and_names_apart() {
    let dir = TempDir::new().unwrap();
    let mut guest = mounted(dir.path());
    let (a, a_fh) = create(&mut guest, 1, "a", 2, 0o600).unwrap();
    write(&mut guest, a_fh, 0, b"a", 1).unwrap();
    let (b, _) = create(&mut guest, 1, "b", 2, 0o600).unwrap();
    let noreplace = [longs(&[1]), words(&[1, 0]), name("a"), name("b")].concat();
    assert_eq!(call(&mut guest, 45, 1, &noreplace, 1), Err(17));
    let exchange = [longs(&[1]), words(&[2, 0]), name("a"), name("b")].concat();
    call(&mut guest, 45, 1, &exchange, 1).unwrap();
    assert_eq!((lookup(&mut guest, 1, "a"), lookup(&mut guest, 1, "b")), (Ok(b), Ok(a)));
    assert_eq!(fs::read(dir.path().join("b")).unwrap(), b"a");
    // Over the other: the one replaced can still be reached by its number, as an open file is.
    call(&mut guest, 12, 1, &[longs(&[1]), name("b"), name("a")].concat(), 1).unwrap();
    assert_eq!(lookup(&mut guest, 1, "a"), Ok(a));
    assert_eq!(word(&call(&mut guest, 3, b, &longs(&[0, 0]), 104).unwrap(), 16 + 64), 0, "links");
    // So can one removed.
    call(&mut guest, 10, 1, &name("a"), 1).unwrap();
    assert_eq!(read(&mut guest, a_fh, 0, 10).unwrap(), b"a");
    assert!(open(&mut guest, a, 0).is_ok());
    assert_eq!(lookup(&mut guest, 1, "a"), Err(ENOENT));
    // Hard links.
    let (c, _) = create(&mut guest, 1, "c", 2, 0o600).unwrap();
    let linked = call(&mut guest, 13, 1, &[longs(&[c]), name("d")].concat(), 128).unwrap();
    assert_eq!(long(&linked, 0), c);
    assert_eq!(fs::metadata(dir.path().join("d")).unwrap().nlink(), 2);
}

#[test]
fn attributes_are_set() {
    let dir = TempDir::new().unwrap();
    let mut guest = mounted(dir.path());
    let (node, fh) = create(&mut guest, 1, "f", 2, 0o600).unwrap();
    write(&mut guest, fh, 0, &[1; 100], 1).unwrap();
    // mode, size, mtime.
    let valid = 1 | 8 | 32;
    let args =
        [words(&[valid, 0]), longs(&[0, 10, 0, 0, 1_000_000_000, 0]), words(&[0, 5, 0, 0o4711, 0, 0, 0, 0])]
            .concat();
    call(&mut guest, 4, node, &args, 104).unwrap();
    let metadata = fs::metadata(dir.path().join("f")).unwrap();
    assert_eq!((metadata.len(), metadata.mode() & 0o7777), (10, 0o4711));
    assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (1_000_000_000, 5));
    // A write by somebody unprivileged drops set-user-ID.
    let args = [longs(&[fh, 0]), words(&[1, 4]), longs(&[0]), words(&[1, 0]), vec![2]].concat();
    call(&mut guest, 16, 0, &args, 8).unwrap();
    assert_eq!(fs::metadata(dir.path().join("f")).unwrap().mode() & 0o7777, 0o711);
    // Extended attributes.
    let set = [words(&[5, 0]), name("user.note"), b"value".to_vec()].concat();
    call(&mut guest, 21, node, &set, 1).unwrap();
    let get = |size: u32, text: &str| [words(&[size, 0]), name(text)].concat();
    assert_eq!(word(&call(&mut guest, 22, node, &get(0, "user.note"), 8).unwrap(), 0), 5);
    assert_eq!(call(&mut guest, 22, node, &get(64, "user.note"), 64).unwrap(), b"value");
    assert_eq!(call(&mut guest, 22, node, &get(2, "user.note"), 64), Err(34));
    assert_eq!(call(&mut guest, 22, node, &get(64, "system.posix_acl_access"), 64), Err(95));
    assert!(call(&mut guest, 23, node, &words(&[64, 0]), 64).unwrap().starts_with(b"user.note\0"));
    call(&mut guest, 24, node, &name("user.note"), 1).unwrap();
    assert_eq!(call(&mut guest, 22, node, &get(64, "user.note"), 64), Err(61));
}

#[test]
fn a_read_only_share_changes_nothing() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("f"), b"x").unwrap();
    let mut guest = Guest::mmio(VirtioFs::new(share(dir.path(), true), &FsOptions::default()));
    guest.start(u64::MAX);
    init(&mut guest);
    let node = lookup(&mut guest, 1, "f").unwrap();
    assert_eq!(open(&mut guest, node, 2), Err(EROFS));
    assert_eq!(open(&mut guest, node, 0o1000), Err(EROFS));
    assert_eq!(create(&mut guest, 1, "g", 2, 0o600), Err(EROFS));
    assert_eq!(call(&mut guest, 10, 1, &name("f"), 1), Err(EROFS));
    let chmod = [words(&[1, 0]), longs(&[0; 6]), words(&[0, 0, 0, 0o777, 0, 0, 0, 0])].concat();
    assert_eq!(call(&mut guest, 4, node, &chmod, 104), Err(EROFS));
    let fh = open(&mut guest, node, 0).unwrap();
    assert_eq!(read(&mut guest, fh, 0, 10).unwrap(), b"x");
    let allocate = [longs(&[fh, 0, 10]), words(&[0, 0])].concat();
    assert_eq!(call(&mut guest, 43, node, &allocate, 1), Err(EROFS));
    assert_eq!(
        call(&mut guest, 21, node, &[words(&[1, 0]), name("user.a"), vec![1]].concat(), 1),
        Err(EROFS)
    );
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn holes_copies_and_space() {
    let dir = TempDir::new().unwrap();
    let mut guest = mounted(dir.path());
    let (_, fh) = create(&mut guest, 1, "f", 2, 0o600).unwrap();
    let far = 5 << 30;
    write(&mut guest, fh, far, b"far", 1).unwrap();
    assert_eq!(read(&mut guest, fh, far, 10).unwrap(), b"far");
    let seek = |whence: u32, at: u64| [longs(&[fh, at]), words(&[whence, 0])].concat();
    assert_eq!(long(&call(&mut guest, 46, 0, &seek(3, 0), 8).unwrap(), 0), far);
    assert_eq!(long(&call(&mut guest, 46, 0, &seek(4, 0), 8).unwrap(), 0), 0);
    assert_eq!(call(&mut guest, 46, 0, &seek(0, 0), 8), Err(EINVAL));
    let (node, to) = create(&mut guest, 1, "g", 2, 0o600).unwrap();
    let copy = longs(&[fh, far, node, to, 4, 3, 0]);
    assert_eq!(word(&call(&mut guest, 47, 0, &copy, 8).unwrap(), 0), 3);
    assert_eq!(fs::read(dir.path().join("g")).unwrap(), b"\0\0\0\0far");
    let allocate = [longs(&[to, 0, 4096]), words(&[0, 0])].concat();
    call(&mut guest, 43, node, &allocate, 1).unwrap();
    assert_eq!(fs::metadata(dir.path().join("g")).unwrap().len(), 4096);
    let statfs = call(&mut guest, 17, 1, &[], 80).unwrap();
    assert!(long(&statfs, 0) > 0 && word(&statfs, 44) >= 255);
}

#[test]
fn malformed_requests_are_answered_with_errors() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("f"), b"x").unwrap();
    let mut guest = unmounted(dir.path());
    assert_eq!(lookup(&mut guest, 1, "f"), Err(EIO), "before INIT");
    // Too old, and newer than ours.
    assert!(call(&mut guest, 26, 0, &words(&[7, 20, 0, 0]), 64).is_err());
    assert_eq!(word(&call(&mut guest, 26, 0, &words(&[8, 0, 0, 0]), 64).unwrap(), 0), 7);
    init(&mut guest);
    // No header, no room for an answer, a wrong length.
    assert!(guest.request(1, &[Part::Out(&[0; 39]), Part::In(16)]).is_empty());
    assert!(guest.request(1, &[Part::Out(&header(17, 1, 0)), Part::In(15)]).is_empty());
    let answer = guest.request(1, &[Part::Out(&header(17, 1, 5)), Part::In(96)]);
    assert_eq!(word(&answer, 4) as i32, -EINVAL);
    // Numbers of nothing.
    assert_eq!(lookup(&mut guest, 99, "f"), Err(ESTALE));
    assert_eq!(lookup(&mut guest, u64::MAX, "f"), Err(ESTALE));
    assert_eq!(read(&mut guest, 12345, 0, 10), Err(EBADF));
    assert_eq!(call(&mut guest, 4000, 1, &[], 16), Err(ENOSYS));
    // A name without an end, and one too long.
    assert_eq!(call(&mut guest, 1, 1, b"f", 128), Err(EINVAL));
    assert_eq!(lookup(&mut guest, 1, &"x".repeat(256)), Err(36));
    assert_eq!(lookup(&mut guest, 1, &"x".repeat(60_000)), Err(36));
    assert_eq!(call(&mut guest, 1, 1, &vec![b'x'; 200_000], 128), Err(7));
    // A write that says it is longer than it is; an attribute likewise.
    let (_, fh) = create(&mut guest, 1, "g", 2, 0o600).unwrap();
    let args = [longs(&[fh, 0]), words(&[u32::MAX, 0]), longs(&[0]), words(&[1, 0]), vec![1; 8]].concat();
    assert_eq!(call(&mut guest, 16, 0, &args, 8), Err(EINVAL));
    assert_eq!(call(&mut guest, 21, 1, &[words(&[9, 0]), name("user.a"), vec![1]].concat(), 1), Err(EINVAL));
    // Offsets beyond everything.
    assert!(read(&mut guest, fh, u64::MAX, 10).is_err());
    assert!(write(&mut guest, fh, u64::MAX - 1, b"xx", 1).is_err());
    // FORGET of nothing, of too much, and with a count that lies; none is answered.
    for (op, args) in [
        (2, longs(&[u64::MAX])),
        (42, [words(&[u32::MAX, 0]), longs(&[1, 1, 2, u64::MAX])].concat()),
        (2, Vec::new()),
    ] {
        let header = header(op, 2, args.len());
        let parts = [Part::Out(&header), Part::Out(&args)];
        let posted = guest.post(0, if args.is_empty() { &parts[..1] } else { &parts });
        guest.kick(0);
        assert_eq!(guest.wait_used(0), (posted.head, 0));
    }
    assert!(lookup(&mut guest, 1, "f").is_ok());
}

#[test]
fn numbers_and_descriptors_are_given_back() {
    let dir = TempDir::new().unwrap();
    for index in 0..300 {
        fs::write(dir.path().join(format!("f{index}")), b"x").unwrap();
    }
    let mut guest = mounted(dir.path());
    let before = guest.device.device().share().known_files();
    let nodes: Vec<u64> =
        (0..300).map(|index| lookup(&mut guest, 1, &format!("f{index}")).unwrap()).collect();
    assert_eq!(lookup(&mut guest, 1, "f7"), Ok(nodes[7]));
    assert_eq!(guest.device.device().share().known_files(), before + 300);
    let list: Vec<u64> = nodes.iter().flat_map(|&node| [node, 1]).collect();
    let args = [words(&[300, 0]), longs(&list)].concat();
    let header = header(42, 0, args.len());
    let posted = guest.post(0, &[Part::Out(&header), Part::Out(&args)]);
    guest.kick(0);
    assert_eq!(guest.wait_used(0), (posted.head, 0));
    // One was given twice.
    assert_eq!(guest.device.device().share().known_files(), before + 1);
    assert!(open(&mut guest, nodes[7], 0).is_ok());
    assert_eq!(open(&mut guest, nodes[8], 0), Err(ESTALE));
    // A reset forgets all.
    guest.start(u64::MAX);
    assert_eq!(guest.device.device().share().known_files(), 1);
    init(&mut guest);
    assert_eq!(open(&mut guest, nodes[7], 0), Err(ESTALE));
}

#[test]
fn a_mounted_share_says_that_it_cannot_be_restored() {
    let dir = TempDir::new().unwrap();
    let mut guest = mounted(dir.path());
    guest.device.quiesce();
    let state = isomer_core::DynDevice::save(&guest.device).unwrap();
    let mut other =
        VirtioMmio::new(device(dir.path()), guest.ram.clone(), isomer_core::IrqLine::unconnected());
    assert!(isomer_core::DynDevice::restore(&mut other, &state).unwrap_err().to_string().contains("unmount"));
}

mod conformance {
    use super::*;
    use crate::virtio::mmio::WINDOW_BYTES;

    crate::device_conformance!(
        mmio,
        VirtioMmio::new(
            VirtioFs::new(share(&std::env::temp_dir(), true), &FsOptions::default()),
            crate::virtio::testing::ram(),
            isomer_core::IrqLine::unconnected()
        ),
        crate::conformance::Options { windows: &[WINDOW_BYTES], ..Default::default() }
    );
}
