//! Packages made here, among them ones that try to write elsewhere.

use super::*;
use crate::{Expected, debian::packages::Index};

/// `(path, type, content or target)`.
type Row<'a> = (&'a str, tar::EntryType, &'a str);

fn data(rows: &[Row<'_>]) -> tar::Builder<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, kind, content) in rows {
        let mut header = tar::Header::new_gnu();
        // By hand: the library would refuse the paths that a hostile package has.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(if *kind == tar::EntryType::Directory { 0o755 } else { 0o4711 });
        header.set_mtime(1_000_000_000);
        let is_file = *kind == tar::EntryType::Regular;
        if !is_file && !content.is_empty() {
            header.as_old_mut().linkname[..content.len()].copy_from_slice(content.as_bytes());
        }
        header.set_size(if is_file { content.len() as u64 } else { 0 });
        header.set_cksum();
        builder.append(&header, if is_file { content.as_bytes() } else { b"" }).unwrap();
    }
    builder
}

fn package(name: &str) -> Package {
    let text = format!("Package: {name}\nFilename: x\nSize: 1\nSHA256: {}\n", "0".repeat(64));
    let package = Index::parse(text, "riscv64").unwrap().get(name).unwrap();
    assert!(matches!(package.digest, Expected::Sha256(_)));
    package
}

struct Made {
    dir: tempfile::TempDir,
    tree: Tree,
}

impl Made {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::new(&dir.path().join("root"), "riscv64").unwrap();
        Self { dir, tree }
    }

    fn install(&mut self, name: &str, control: &[(&str, &str)], rows: &[Row<'_>]) -> Result<(), ImageError> {
        let path = self.dir.path().join("x.deb");
        super::super::deb::make(&path, control, data(rows));
        self.tree.install(&package(name), &path)
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.root().join(path)).unwrap()
    }
}

use tar::EntryType::{Char, Directory, Link, Regular, Symlink};

#[test]
fn packages_are_unpacked_and_registered() {
    let mut made = Made::new();
    let control = [
        (
            "control",
            "Package: a\nVersion: 1\nArchitecture: riscv64\nMulti-Arch: same\nDescription: x\n more\n",
        ),
        ("postinst", "#!/bin/sh\n"),
        ("conffiles", "/etc/a\n"),
        ("triggers", "# comment\ninterest-noawait ldconfig\ninterest /usr/lib/a\nactivate-noawait other\n"),
    ];
    let rows = [
        ("./", Directory, ""),
        ("./etc/", Directory, ""),
        ("./etc/a", Regular, "abc"),
        ("./lib/", Directory, ""),
        ("./lib/x.so", Regular, "library"),
        ("./usr/bin/", Directory, ""),
        ("./usr/bin/tool", Regular, "#!/bin/sh\n"),
        ("./usr/bin/same", Link, "./usr/bin/tool"),
        ("./usr/bin/alias", Symlink, "/etc/alternatives/tool"),
    ];
    made.install("a", &control, &rows).unwrap();
    made.tree.finish().unwrap();
    assert_eq!(made.read("usr/lib/x.so"), "library", "/lib is /usr/lib");
    let tool = fs::metadata(made.root().join("usr/bin/tool")).unwrap();
    assert_eq!(tool.permissions().mode() & 0o7777, 0o4711);
    assert_eq!(made.read("usr/bin/same"), "#!/bin/sh\n");
    let status = made.read("var/lib/dpkg/status");
    assert!(status.starts_with("Package: a\nStatus: install ok unpacked\nVersion: 1\n"), "{status}");
    // RFC 1321's example.
    assert!(status.ends_with("Conffiles:\n /etc/a 900150983cd24fb0d6963f7d28e17f72\n\n"), "{status}");
    let list = made.read("var/lib/dpkg/info/a:riscv64.list");
    assert!(list.starts_with("/.\n/etc\n/etc/a\n/lib\n"), "{list}");
    assert_eq!(made.read("var/lib/dpkg/info/a:riscv64.postinst"), "#!/bin/sh\n");
    assert_eq!(made.read("var/lib/dpkg/triggers/ldconfig"), "a:riscv64/noawait\n");
    assert_eq!(made.read("var/lib/dpkg/triggers/File"), "/usr/lib/a a:riscv64\n");
}

#[test]
fn nothing_is_written_outside() {
    let control = [("control", "Package: a\n")];
    let mut made = Made::new();
    let outside = made.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    for rows in [
        &[("../outside/f", Regular, "x")][..],
        &[("./a/../../outside/f", Regular, "x")],
        &[("./h", Link, "../outside/f")],
        &[("./d", Char, "")],
        &[("./usr", Regular, "x")],
        &[("./p", Symlink, "q"), ("./q", Symlink, "p"), ("./p/f", Regular, "x")],
    ] {
        let refused = made.install("a", &control, rows);
        assert!(matches!(refused, Err(ImageError::Package { .. })), "{rows:?}");
    }
    // Links that lead out of the guest's root lead to its root, as they do in the guest.
    let target = format!("../../../../..{}", outside.display());
    let rows = [
        ("./l", Symlink, target.as_str()),
        ("./l/f", Regular, "x"),
        ("./m", Symlink, "/"),
        ("./m/g", Regular, "y"),
    ];
    made.install("a", &control, &rows).unwrap();
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    assert_eq!(made.read("g"), "y");
}
