//! Who may have been there: links, others' files, modes, pipes.

use super::*;
use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn everything_is_made_for_its_owner_alone() {
    let root = root();
    fill(&root, 0..3, 100);
    for dir in ["cache", "state"] {
        assert_eq!(mode(&root.path().join(dir)), 0o700);
        for entry in fs::read_dir(root.path().join(dir)).unwrap() {
            let path = entry.unwrap().path();
            assert_eq!(mode(&path), 0o600, "{}", path.display());
        }
    }
}

#[test]
fn directories_that_others_can_write_are_refused() {
    for dir in ["cache", "state"] {
        for bits in [0o720, 0o702, 0o777] {
            let root = root();
            fill(&root, 0..3, 100);
            let path = root.path().join(dir);
            chmod(&path, bits);
            let error = CodeCache::open(config(&root)).unwrap_err();
            assert!(matches!(error, CacheError::NotPrivate { .. }), "{error}");
            assert!(error.to_string().contains(&*path.to_string_lossy()), "{error}");
            chmod(&path, 0o700);
            assert_eq!(found(&open(&root), 0..3, 100), 3);
        }
    }
}

#[test]
fn directories_that_are_links_are_refused() {
    for dir in ["cache", "state"] {
        let root = root();
        fill(&root, 0..3, 100);
        let (path, aside) = (root.path().join(dir), root.path().join("aside"));
        fs::rename(&path, &aside).unwrap();
        symlink(&aside, &path).unwrap();
        let error = CodeCache::open(config(&root)).unwrap_err();
        assert!(matches!(error, CacheError::NotPrivate { .. }), "{error}");
    }
}

#[test]
fn a_file_in_a_directorys_place_is_an_error() {
    let root = root();
    fs::write(root.path().join("cache"), "").unwrap();
    let error = CodeCache::open(config(&root)).unwrap_err();
    assert!(!error.fix().is_empty() && error.code().starts_with("isomer::cache::"), "{error}");
}

/// A key that others could read is one that others may have.
#[test]
fn a_key_that_others_can_read_is_replaced() {
    for bits in [0o640, 0o604, 0o620] {
        let root = root();
        fill(&root, 0..3, 100);
        let key = root.path().join("state").join(places::KEY);
        let before = fs::read(&key).unwrap();
        chmod(&key, bits);
        let read_only = CodeCache::open(CacheConfig { mode: CacheMode::ReadOnly, ..config(&root) });
        assert!(matches!(read_only, Err(CacheError::NotPrivate { .. })));
        assert_eq!(found(&open(&root), 0..3, 100), 0);
        assert_ne!(fs::read(&key).unwrap(), before);
        assert_eq!(mode(&key), 0o600);
        fill(&root, 0..3, 100);
        assert_eq!(found(&open(&root), 0..3, 100), 3);
    }
}

#[test]
fn a_key_that_is_a_link_is_replaced_and_its_aim_left_alone() {
    let root = root();
    fill(&root, 0..3, 100);
    let key = root.path().join("state").join(places::KEY);
    let aside = root.path().join("aside");
    fs::rename(&key, &aside).unwrap();
    let before = fs::read(&aside).unwrap();
    symlink(&aside, &key).unwrap();
    assert_eq!(found(&open(&root), 0..3, 100), 0);
    assert!(!fs::symlink_metadata(&key).unwrap().is_symlink());
    assert_eq!(fs::read(&aside).unwrap(), before);
}

#[test]
fn segments_that_are_links_or_pipes_are_refused() {
    let root = root();
    fill(&root, 0..3, 100);
    let dir = root.path().join("cache");
    let segment = fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "code"))
        .unwrap();
    let aside = root.path().join("aside");
    fs::rename(&segment, &aside).unwrap();
    symlink(&aside, &segment).unwrap();
    assert_eq!(found(&open(&root), 0..3, 100), 0);
    fs::remove_file(&segment).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &segment, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    assert_eq!(found(&open(&root), 0..3, 100), 0, "opening a pipe must not wait");
    fs::remove_file(&segment).unwrap();
    fs::create_dir(&segment).unwrap();
    assert_eq!(found(&open(&root), 0..3, 100), 0);
    fill(&root, 0..3, 100);
    assert_eq!(found(&open(&root), 0..3, 100), 3);
    assert!(aside.exists());
}

#[test]
fn errors_have_a_code_and_a_fix() {
    let root = root();
    let small = CodeCache::open(CacheConfig { limit_bytes: MIN_LIMIT_BYTES - 1, ..config(&root) });
    let error = small.unwrap_err();
    assert!(error.to_string().contains("8388607"), "{error}");
    assert_eq!((error.code(), error.fix()), ("isomer::cache::limit", "allow at least 8 MiB".to_owned()));
}
