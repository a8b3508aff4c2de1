//! A deterministic writer of cpio archives in the "newc" format (Linux, Documentation/driver-api/early-userspace/
//! buffer-format.rst): every entry belongs to root and dates from 1970, entries stand in the order of their names.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

const S_IFCHR: u32 = 0o020_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;
const TRAILER: &str = "TRAILER!!!";

/// An archive in the making, its paths relative to the root: `bin/sh`.
#[derive(Default)]
pub(crate) struct Archive {
    entries: BTreeMap<String, Entry>,
}

struct Entry {
    mode: u32,
    device: (u32, u32),
    data: Vec<u8>,
}

impl Archive {
    pub(crate) fn directory(&mut self, path: &str, permissions: u32) -> Result<()> {
        self.add(path, Entry { mode: S_IFDIR | permissions, device: (0, 0), data: Vec::new() })
    }

    pub(crate) fn file(&mut self, path: &str, permissions: u32, data: Vec<u8>) -> Result<()> {
        self.add(path, Entry { mode: S_IFREG | permissions, device: (0, 0), data })
    }

    pub(crate) fn symlink(&mut self, path: &str, points_to: &str) -> Result<()> {
        self.add(path, Entry { mode: S_IFLNK | 0o777, device: (0, 0), data: points_to.as_bytes().to_vec() })
    }

    /// A character device of the given major and minor number.
    pub(crate) fn character_device(
        &mut self,
        path: &str,
        permissions: u32,
        device: (u32, u32),
    ) -> Result<()> {
        self.add(path, Entry { mode: S_IFCHR | permissions, device, data: Vec::new() })
    }

    /// The kernel creates no parents, so an entry's directory must be there before it; a path is named once.
    fn add(&mut self, path: &str, entry: Entry) -> Result<()> {
        if let Some((parent, _)) = path.rsplit_once('/') {
            let is_directory = self.entries.get(parent).is_some_and(|entry| entry.mode & S_IFDIR != 0);
            ensure!(is_directory, "{path} has no directory {parent} in the archive");
        }
        let replaced = self.entries.insert(path.to_owned(), entry);
        ensure!(replaced.is_none(), "{path} is in the archive twice");
        Ok(())
    }

    /// The archive's bytes, a multiple of four, so that another archive can follow.
    pub(crate) fn finish(self) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        for (number, (path, entry)) in (1_u32..).zip(&self.entries) {
            write_entry(&mut out, number, path, entry)?;
        }
        write_entry(&mut out, 0, TRAILER, &Entry { mode: 0, device: (0, 0), data: Vec::new() })?;
        Ok(out)
    }
}

fn write_entry(out: &mut Vec<u8>, inode: u32, path: &str, entry: &Entry) -> Result<()> {
    let size = u32::try_from(entry.data.len()).with_context(|| format!("{path} is too large for cpio"))?;
    let name_size = u32::try_from(path.len() + 1).with_context(|| format!("{path} is too long for cpio"))?;
    let links = if entry.mode & S_IFDIR != 0 { 2 } else { 1 };
    let (major, minor) = entry.device;
    out.extend_from_slice(b"070701");
    // inode, mode, uid, gid, links, mtime, size, device of the file, device it denotes, name size, checksum
    for field in [inode, entry.mode, 0, 0, links, 0, size, 0, 0, major, minor, name_size, 0] {
        out.extend_from_slice(format!("{field:08X}").as_bytes());
    }
    out.extend_from_slice(path.as_bytes());
    out.push(0);
    pad(out);
    out.extend_from_slice(&entry.data);
    pad(out);
    Ok(())
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_sorted_aligned_and_ended_by_the_trailer() -> Result<()> {
        let mut archive = Archive::default();
        archive.file("z", 0o644, b"12345".to_vec())?;
        archive.directory("d", 0o755)?;
        archive.character_device("d/null", 0o666, (1, 3))?;
        archive.symlink("d/a", "null")?;
        let bytes = archive.finish()?;

        assert_eq!(names(&bytes), ["d", "d/a", "d/null", "z", TRAILER]);
        assert_eq!(bytes.len() % 4, 0);
        let null = "070701000000030000 21B6 00000000 00000000 00000001 00000000 00000000 00000000 00000000 \
                    00000001 00000003 00000007 00000000d/null";
        let null: String = null.split(' ').collect();
        assert!(String::from_utf8_lossy(&bytes).contains(&null));
        Ok(())
    }

    #[test]
    fn missing_parents_and_doubles_are_refused() -> Result<()> {
        let mut archive = Archive::default();
        assert!(archive.file("bin/sh", 0o755, Vec::new()).is_err());
        archive.file("bin", 0o755, Vec::new())?;
        assert!(archive.symlink("bin", "x").is_err());
        assert!(archive.file("bin/sh", 0o755, Vec::new()).is_err(), "a file is no directory");
        Ok(())
    }

    /// Reads the names back by the sizes in the headers.
    fn names(bytes: &[u8]) -> Vec<String> {
        let (mut names, mut at) = (Vec::new(), 0);
        while at < bytes.len() {
            let number = |index: usize| {
                let field = &bytes[at + 6 + 8 * index..at + 14 + 8 * index];
                usize::from_str_radix(&String::from_utf8_lossy(field), 16).unwrap_or(usize::MAX)
            };
            let (size, name_size) = (number(6), number(11));
            names.push(String::from_utf8_lossy(&bytes[at + 110..at + 110 + name_size - 1]).into_owned());
            at = (at + 110 + name_size).next_multiple_of(4);
            at = (at + size).next_multiple_of(4);
        }
        names
    }
}
