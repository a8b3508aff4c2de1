//! Tests of the share itself: what is remembered, for how long, and what a hostile or unlucky tree does to it.

use super::*;
use std::{
    ffi::CString,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
};
use tempfile::TempDir;

fn open(path: &Path) -> Share {
    Share::open(path, &ShareOptions::default()).unwrap()
}

fn with_limits(path: &Path, limits: Limits) -> Share {
    let mut share = open(path);
    let root = rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let key = Stat::of_fd(&root).unwrap().key();
    share.table = Table::new(root, key, limits);
    share
}

fn name(text: &str) -> CString {
    CString::new(text).unwrap()
}

fn walk(share: &Share, names: &[&str]) -> Result<Arc<Inode>, Errno> {
    let mut at = share.root().clone();
    for text in names {
        at = share.lookup(&at, &name(text))?.0;
    }
    Ok(at)
}

#[test]
fn what_cannot_be_shared_says_why() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    let error = |path: &Path| Share::open(path, &ShareOptions::default()).unwrap_err();
    assert!(matches!(error(&dir.path().join("nothing")), ShareError::Host { .. }));
    assert!(matches!(error(&file), ShareError::NotADirectory { .. }));
}

#[test]
fn descriptors_stay_few_and_files_reachable() {
    let dir = TempDir::new().unwrap();
    for outer in 0..20 {
        for inner in 0..20 {
            fs::create_dir_all(dir.path().join(format!("{outer}/{inner}"))).unwrap();
            fs::write(dir.path().join(format!("{outer}/{inner}/f")), format!("{outer}/{inner}")).unwrap();
        }
    }
    let share = with_limits(dir.path(), Limits { inodes: 10_000, descriptors: 16 });
    let mut files = Vec::new();
    for outer in 0..20 {
        for inner in 0..20 {
            files.push(walk(&share, &[&outer.to_string(), &inner.to_string(), "f"]).unwrap());
        }
    }
    for (index, file) in files.iter().enumerate() {
        let open = share.open_file(file, 0).unwrap();
        let len = share.attr_of(&open).unwrap().size;
        assert_eq!(len, format!("{}/{}", index / 20, index % 20).len() as u64);
        assert!(share.table.open_descriptors() <= 32, "{}", share.table.open_descriptors());
    }
    // A directory moved by the guest takes what is below along.
    share.rename(share.root(), &name("3"), share.root(), &name("moved"), 0).unwrap();
    assert!(share.open_file(&files[3 * 20 + 7], 0).is_ok());
    // One moved by the host is gone until it is looked up again.
    share.table.forget_all();
    fs::rename(dir.path().join("4"), dir.path().join("elsewhere")).unwrap();
    let results: Vec<_> = (80..100).map(|index| share.open_file(&files[index], 0).map(drop)).collect();
    assert!(results.iter().all(|result| matches!(result, Ok(()) | Err(Errno::STALE))), "{results:?}");
    assert!(results.contains(&Err(Errno::STALE)));
    let again = walk(&share, &["elsewhere", "0", "f"]).unwrap();
    assert_eq!(again.id(), files[80].id());
    assert!(share.open_file(&files[80], 0).is_ok());
}

#[test]
fn a_guest_cannot_make_a_share_remember_without_bound() {
    let dir = TempDir::new().unwrap();
    (0..50).for_each(|index| fs::write(dir.path().join(index.to_string()), b"").unwrap());
    let share = with_limits(dir.path(), Limits { inodes: 20, descriptors: 16 });
    let found: Vec<_> = (0..50).map(|index| walk(&share, &[&index.to_string()])).collect();
    assert_eq!(found.iter().filter(|found| found.is_ok()).count(), 19);
    assert!(found.iter().all(|found| found.as_ref().err().is_none_or(|&error| error == Errno::NFILE)));
    drop(found);
    assert_eq!(share.known_files(), 1);
    assert!(walk(&share, &["40"]).is_ok());
}

#[test]
fn a_replaced_file_is_another_one() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("f"), b"old").unwrap();
    let share = open(dir.path());
    let old = walk(&share, &["f"]).unwrap();
    fs::remove_file(dir.path().join("f")).unwrap();
    fs::write(dir.path().join("f"), b"newer").unwrap();
    let new = walk(&share, &["f"]).unwrap();
    assert_ne!(old.id(), new.id());
    assert_eq!(share.attr(&new).unwrap().size, 5);
    assert_eq!(share.open_file(&old, 0).err(), Some(Errno::STALE));
}

#[test]
fn a_tree_turned_round_by_the_host_makes_no_ring() {
    let dir = TempDir::new().unwrap();
    fs::create_dir_all(dir.path().join("a/b")).unwrap();
    let share = with_limits(dir.path(), Limits { inodes: 100, descriptors: 16 });
    let a = walk(&share, &["a"]).unwrap();
    let b = share.lookup(&a, c"b").unwrap().0;
    fs::rename(dir.path().join("a/b"), dir.path().join("b")).unwrap();
    fs::rename(dir.path().join("a"), dir.path().join("b/a")).unwrap();
    // b is known by its number only, and a is found again in it.
    let fd = path::open_entry(dir_fd(dir.path()), c"b").unwrap();
    let stat = Stat::of_entry(&fd, c"a").unwrap();
    share.table.moved(&stat.key(), &b, c"a");
    let mut steps = 0;
    let mut at = Some(a.clone());
    while let Some(inode) = at {
        at = inode.parent();
        steps += 1;
        assert!(steps < 10, "a ring");
    }
    drop((a, b));
    assert_eq!(share.known_files(), 1);
}

fn dir_fd(path: &Path) -> OwnedFd {
    rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

#[test]
fn a_very_deep_tree_is_let_go_without_recursion() {
    let dir = TempDir::new().unwrap();
    let share = open(dir.path());
    let mut at = share.root().clone();
    // Deeper than any path can name, and than a stack of recursive drops.
    for _ in 0..3000 {
        at = share.make_dir(&at, c"d", 0o755, Creator::default()).unwrap().0;
    }
    let small = std::thread::Builder::new().stack_size(64 << 10);
    small.spawn(move || drop(at)).unwrap().join().unwrap();
    assert_eq!(share.known_files(), 1);
    // What removes the temporary directory cannot go this deep: take it apart from the top.
    let top = dir.path().join("d");
    for _ in 0..3000 {
        let below = dir.path().join("next");
        if fs::rename(top.join("d"), &below).is_err() {
            break;
        }
        fs::remove_dir(&top).unwrap();
        fs::rename(&below, &top).unwrap();
    }
}

#[test]
fn owners_are_shown_and_changed_as_the_policy_says() {
    let dir = TempDir::new().unwrap();
    let owners = Some(Owners::Fixed { uid: 1000, gid: 100 });
    let share = Share::open(dir.path(), &ShareOptions { owners, ..ShareOptions::default() }).unwrap();
    let by = Creator { uid: 33, gid: 33 };
    let (inode, attr, _) = share.create(share.root(), c"f", 2, 0o666, by).unwrap();
    assert_eq!((attr.uid, attr.gid, attr.mode & 0o7777), (1000, 100, 0o666));
    let chown = |uid, gid| share.set_attr(&inode, None, &SetAttr { uid, gid, ..SetAttr::default() });
    assert!(chown(Some(1000), None).is_ok() && chown(Some(1000), Some(100)).is_ok());
    assert_eq!(chown(Some(33), None).err(), Some(Errno::PERM));
    let metadata = fs::metadata(dir.path().join("f")).unwrap();
    assert_eq!(metadata.uid(), rustix::process::geteuid().as_raw());
    if rustix::process::geteuid().is_root() {
        let share = open(dir.path());
        let (_, attr, _) = share.create(share.root(), c"g", 2, 0o4755, by).unwrap();
        assert_eq!((attr.uid, attr.gid, attr.mode & 0o7777), (33, 33, 0o4755));
        let made = share.make_symlink(share.root(), c"l", c"nowhere", by).unwrap().1;
        assert_eq!((made.uid, made.gid), (33, 33));
        // A directory with set-group-ID gives its group.
        let (sub, _) = share.make_dir(share.root(), c"d", 0o755, Creator { uid: 1, gid: 7 }).unwrap();
        share.set_attr(&sub, None, &SetAttr { mode: Some(0o2775), ..SetAttr::default() }).unwrap();
        let (_, attr) = share.make_dir(&sub, c"e", 0o700, by).unwrap();
        assert_eq!((attr.uid, attr.gid, attr.mode & 0o7777), (33, 7, 0o2700));
    }
}

#[test]
fn a_program_that_swaps_names_all_the_time_opens_no_way_out() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let outside = TempDir::new().unwrap();
    fs::write(outside.path().join("f"), b"secret").unwrap();
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("real")).unwrap();
    fs::write(dir.path().join("real/f"), b"inside").unwrap();
    symlink(outside.path(), dir.path().join("link")).unwrap();
    let stop = AtomicBool::new(false);
    let share = open(dir.path());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let host = dir_fd(dir.path());
            let exchange = rustix::fs::RenameFlags::EXCHANGE;
            while !stop.load(Ordering::Relaxed) {
                rustix::fs::renameat_with(&host, c"real", &host, c"link", exchange).unwrap();
            }
        });
        let mut opened = 0;
        for _ in 0..3000 {
            for text in ["real", "link"] {
                let Ok(inode) = walk(&share, &[text, "f"]) else { continue };
                let Ok(file) = share.open_file(&inode, 0) else { continue };
                let mut bytes = [0; 16];
                let count = rustix::io::pread(&file.fd, &mut bytes, 0).unwrap();
                assert_eq!(&bytes[..count], b"inside");
                opened += 1;
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert!(opened > 0, "nothing was tried");
    });
}

#[test]
fn special_files_are_not_opened() {
    let dir = TempDir::new().unwrap();
    let share = open(dir.path());
    let by = Creator::default();
    let (fifo, _) = share.make_node(share.root(), c"fifo", NodeKind::Fifo, 0o600, by).unwrap();
    assert_eq!(share.open_file(&fifo, 2).err(), Some(Errno::NXIO));
    assert_eq!(NodeKind::from_mode(0o60_600, 0x801), Err(Errno::PERM));
    assert_eq!(NodeKind::from_mode(0o20_600, 0), Ok(NodeKind::Whiteout));
    // The device files of the host are there to be seen, not to be used.
    let dev = open(Path::new("/dev"));
    let null = walk(&dev, &["null"]).unwrap();
    assert_eq!(dev.open_file(&null, 2).err(), Some(Errno::NXIO));
    assert_eq!(dev.attr(&null).unwrap().rdev, (1, 3));
    assert_eq!(dev.attr(&null).unwrap().rdev_encoded(), 0x103);
}

#[test]
fn permissions_asked_for_are_those_given() {
    let dir = TempDir::new().unwrap();
    let share = open(dir.path());
    let by = Creator { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() };
    let (_, file, _) = share.create(share.root(), c"f", 2, 0o666, by).unwrap();
    let (_, sub) = share.make_dir(share.root(), c"d", 0o777, by).unwrap();
    assert_eq!((file.mode & 0o7777, sub.mode & 0o7777), (0o666, 0o777));
    assert_eq!(fs::metadata(dir.path().join("d")).unwrap().permissions().mode() & 0o7777, 0o777);
    // A file without a name gets one by a link.
    let (unnamed, attr, _) = share.create_unnamed(share.root(), 2, 0o640, by).unwrap();
    assert_eq!(attr.links, 0);
    share.link(&unnamed, share.root(), c"named").unwrap();
    assert_eq!(fs::metadata(dir.path().join("named")).unwrap().permissions().mode() & 0o7777, 0o640);
}

#[test]
fn whole_file_and_range_locks_are_the_hosts() {
    let dir = TempDir::new().unwrap();
    let share = open(dir.path());
    let (inode, _, first) = share.create(share.root(), c"f", 2, 0o600, Creator::default()).unwrap();
    let second = share.open_file(&inode, 0).unwrap();
    share.lock_whole(&first, LockKind::Write).unwrap();
    assert_eq!(share.lock_whole(&second, LockKind::Read), Err(Errno::AGAIN));
    drop(first);
    share.lock_whole(&second, LockKind::Read).unwrap();
    let all = |kind| ByteLock { kind, start: 0, len: 0 };
    share.set_lock(&inode, 1, all(LockKind::Read)).unwrap();
    share.set_lock(&inode, 2, all(LockKind::Read)).unwrap();
    assert_eq!(share.set_lock(&inode, 3, all(LockKind::Write)), Err(Errno::AGAIN));
    assert_eq!(share.test_lock(&inode, 3, all(LockKind::Write)).unwrap(), Some(all(LockKind::Read)));
    share.release_locks(&inode, 1);
    share.release_locks(&inode, 2);
    share.set_lock(&inode, 3, all(LockKind::Write)).unwrap();
    share.release_all_locks(&inode);
    assert_eq!(share.test_lock(&inode, 4, all(LockKind::Write)).unwrap(), None);
    // Owners are bounded.
    let results: Vec<_> = (0..1100).map(|owner| share.set_lock(&inode, owner, all(LockKind::Read))).collect();
    assert!(results.contains(&Err(Errno::NOLCK)) && results[0].is_ok());
}
