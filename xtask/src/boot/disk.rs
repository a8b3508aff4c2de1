//! Disks that boot loaders start from, made without root: one partition each, described by a master boot record.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::process;
use crate::tools::Tool;

pub(super) const EXTLINUX_TOOLS: [Tool; 1] = [Tool::program("mke2fs", "e2fsprogs")];
pub(super) const EFI_TOOLS: [Tool; 1] = [Tool::program("mcopy", "mtools")];

const SECTOR_BYTES: u64 = 512;
/// Where the one partition begins.
const PARTITION_SECTOR: u32 = 2048;
const PARTITION_START: u64 = PARTITION_SECTOR as u64 * SECTOR_BYTES;
const EXTLINUX_BYTES: u64 = 96 << 20;
const EFI_BYTES: u64 = 160 << 20;

/// A partition's type in the boot record, and whether it is marked as bootable.
struct Kind {
    id: u8,
    is_bootable: bool,
}

const LINUX: Kind = Kind { id: 0x83, is_bootable: true };
const EFI_SYSTEM: Kind = Kind { id: 0xef, is_bootable: false };

/// A bootable ext2 partition with these files, each by its path there and its path here; `root` is a folder to gather
/// them in.
pub(super) fn extlinux(image: &Path, root: &Path, files: &[(&str, &Path)]) -> Result<()> {
    for (name, source) in files {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap_or(root)).context("cannot create the disk's folder")?;
        fs::copy(source, &path).with_context(|| format!("cannot copy {}", source.display()))?;
    }
    let file = create(image, EXTLINUX_BYTES)?;
    let mut mke2fs = Command::new("mke2fs");
    mke2fs.args(["-q", "-F", "-t", "ext2", "-E", &format!("offset={PARTITION_START}"), "-d"]);
    mke2fs.arg(root).arg(image).arg(format!("{}k", (EXTLINUX_BYTES - PARTITION_START) / 1024));
    process::run(&mut mke2fs)?;
    write_partition_table(file, EXTLINUX_BYTES, &LINUX).context("cannot write the partition table")
}

/// An EFI system partition with these files.
pub(super) fn efi(image: &Path, files: &[(&str, &Path)]) -> Result<()> {
    let file = create(image, EFI_BYTES)?;
    let mut place = image.as_os_str().to_owned();
    place.push(format!("@@{PARTITION_START}"));
    let mtool = |name: &str| {
        let mut command = Command::new(name);
        // The host's configuration of drives is not this disk's; names are made up of letters alone.
        command.env("MTOOLSRC", "/dev/null").env("MTOOLS_SKIP_CHECK", "1").arg("-i").arg(&place);
        command
    };
    let sectors = (EFI_BYTES - PARTITION_START) / SECTOR_BYTES;
    process::run(mtool("mformat").args(["-F", "-T", &sectors.to_string(), "::"]))?;
    let mut folders = Vec::new();
    for (name, source) in files {
        let parents = name.match_indices('/').map(|(at, _)| &name[..at]);
        for folder in parents {
            if !folders.contains(&folder) {
                process::run(mtool("mmd").arg(format!("::{folder}")))?;
                folders.push(folder);
            }
        }
        process::run(mtool("mcopy").arg(source).arg(format!("::{name}")))?;
    }
    write_partition_table(file, EFI_BYTES, &EFI_SYSTEM).context("cannot write the partition table")
}

fn create(image: &Path, len_bytes: u64) -> Result<fs::File> {
    let file = fs::File::create(image).with_context(|| format!("cannot create {}", image.display()))?;
    file.set_len(len_bytes)?;
    Ok(file)
}

/// A master boot record with one partition up to the disk's end.
fn write_partition_table(mut disk: impl Write + Seek, len_bytes: u64, kind: &Kind) -> std::io::Result<()> {
    let sectors = (len_bytes / SECTOR_BYTES) as u32 - PARTITION_SECTOR;
    // No cylinders and heads.
    let status = if kind.is_bootable { 0x80 } else { 0 };
    let mut entry = vec![status, 0xfe, 0xff, 0xff, kind.id, 0xfe, 0xff, 0xff];
    entry.extend(PARTITION_SECTOR.to_le_bytes());
    entry.extend(sectors.to_le_bytes());
    disk.seek(SeekFrom::Start(446))?;
    disk.write_all(&entry)?;
    disk.seek(SeekFrom::Start(510))?;
    disk.write_all(&[0x55, 0xaa])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_record_describes_the_partition() -> Result<()> {
        let mut disk = std::io::Cursor::new(vec![0; 512]);
        write_partition_table(&mut disk, 4 << 20, &EFI_SYSTEM)?;
        let bytes = disk.into_inner();
        assert_eq!((bytes[446], bytes[450], &bytes[510..]), (0, 0xef, &[0x55, 0xaa][..]));
        assert_eq!(bytes[454..462], [0, 8, 0, 0, 0, 0x18, 0, 0], "2048 sectors in, 6144 long");
        Ok(())
    }
}
