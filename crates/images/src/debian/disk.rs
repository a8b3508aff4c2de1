//! The disk: an ext4 file system with the tree in it, made by `mke2fs`, which needs neither root nor a mount.

use crate::{ImageError, error::file};
use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    process::{Command, Stdio},
};

/// Room beside the files, for what the second stage writes. The rest of a machine's disk is added when it is made, and
/// the file system grows into it.
const ROOM_BYTES: u64 = 512 << 20;
/// Sizes are multiples of this.
const GRAIN_BYTES: u64 = 64 << 20;

/// Is everything there that making a disk needs? To know before the downloads.
pub(super) fn check_tools() -> Result<(), ImageError> {
    let runs = |program: &str, arg: &str| {
        let mut command = Command::new(program);
        let status =
            command.arg(arg).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok()
    };
    let missing = |program, package: &str| ImageError::Tool {
        program,
        why: "it is not installed".into(),
        fix: format!("install the package {package}"),
    };
    if mke2fs(|program| runs(program, "-V")).is_none() {
        return Err(missing("mke2fs", "e2fsprogs"));
    }
    if !is_root() && !runs("unshare", "--version") {
        return Err(missing("unshare", "util-linux"));
    }
    Ok(())
}

/// Where `mke2fs` is: users other than root may not have its directory in their path.
fn mke2fs(runs: impl Fn(&str) -> bool) -> Option<&'static str> {
    ["mke2fs", "/usr/sbin/mke2fs", "/sbin/mke2fs"].into_iter().find(|program| runs(program))
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Makes the disk `path` of the tree at `root`.
pub(super) fn make(root: &Path, path: &Path) -> Result<(), ImageError> {
    let used = tree_bytes(root).map_err(file("read", root))?;
    let size = (used + used / 4 + ROOM_BYTES).next_multiple_of(GRAIN_BYTES);
    let disk = fs::File::create_new(path).map_err(file("create", path))?;
    disk.set_len(size).map_err(file("create", path))?;
    let program = mke2fs(|program| Command::new(program).arg("-V").stderr(Stdio::null()).status().is_ok());
    let program = program.unwrap_or("mke2fs");
    // Files belong to whoever runs this. In a user namespace of its own, that is root, and so it is on the disk.
    let mut command = match is_root() {
        true => Command::new(program),
        false => {
            let mut command = Command::new("unshare");
            command.args(["--user", "--map-root-user", "--", program]);
            command
        }
    };
    command.args(["-q", "-F", "-t", "ext4", "-L", "root", "-m", "1"]);
    command.args(["-E", "root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0"]);
    command.arg("-d").arg(root).arg(path).stdin(Stdio::null()).env("LC_ALL", "C");
    let failed = |why: String| {
        ImageError::Tool {
        program: "mke2fs",
        why,
        fix: "if it may not make a user namespace, allow that (sysctl kernel.unprivileged_userns_clone=1), or run \
              as root; if the disk is full, make room"
            .into(),
    }
    };
    let output = command.output().map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(failed(
        said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it says nothing").to_owned(),
    ))
}

/// What the files take in blocks of 4 KiB.
fn tree_bytes(path: &Path) -> std::io::Result<u64> {
    let metadata = fs::symlink_metadata(path)?;
    let mut bytes = metadata.size().next_multiple_of(4096);
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            bytes += tree_bytes(&entry?.path())?;
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_has_the_tree_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::write(root.join("etc/hostname"), "debian\n").unwrap();
        let disk = dir.path().join("disk");
        check_tools().unwrap();
        make(&root, &disk).unwrap();
        let metadata = fs::metadata(&disk).unwrap();
        assert!(metadata.len() >= ROOM_BYTES && metadata.len().is_multiple_of(GRAIN_BYTES));
        assert!(metadata.blocks() * 512 < 64 << 20, "most of it is holes");
        // The superblock's magic number.
        let bytes = fs::read(&disk).unwrap();
        assert_eq!(bytes[1024 + 56..1024 + 58], [0x53, 0xef]);
        assert!(bytes.windows(7).any(|window| window == b"debian\n"));
        assert!(matches!(make(&root, &disk), Err(ImageError::File { .. })), "never over another disk");
    }
}
