//! What the boots load: Debian's kernel and firmware as their packages have them, and an initramfs and a disk made
//! of them. Downloads are kept below `target/boot` until `--refresh`.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::OpenSbi;
use crate::debian::{self, Archive};
use crate::guest::{BUSYBOX_PACKAGE, SUITE, cpio, initramfs};
use crate::process;
use crate::tools::{self, Tool};

const ARCHITECTURE: &str = "riscv64";
/// Depends on the newest kernel's package.
const KERNEL_METAPACKAGE: &str = "linux-image-riscv64";
const OPENSBI_PACKAGE: &str = "opensbi";
const U_BOOT_PACKAGE: &str = "u-boot-qemu";
/// Written last: names the versions of a complete set of files.
const VERSIONS: &str = "versions.txt";

const TOOLS: [Tool; 1] = [Tool::program("mke2fs", "e2fsprogs")];

const SECTOR_BYTES: u64 = 512;
const DISK_BYTES: u64 = 96 << 20;
/// Where the disk's one partition begins.
const PARTITION_SECTOR: u32 = 2048;

/// Paths of everything.
pub(super) struct Files {
    pub(super) kernel: PathBuf,
    pub(super) initramfs: PathBuf,
    /// U-Boot for S-mode, to be started by OpenSBI.
    pub(super) u_boot: PathBuf,
    /// A disk with kernel, initramfs and a menu for U-Boot.
    pub(super) disk: PathBuf,
    opensbi: PathBuf,
}

impl Files {
    /// Downloads the packages if they are not there, then makes initramfs and disk.
    ///
    /// # Errors
    /// When the archive does not answer or does not have a package: boots do not pass unseen.
    pub(super) fn prepare(work: &Path, mirror: Option<&str>, refresh: bool) -> Result<Self> {
        tools::require("booting Debian's kernel", debian::TOOLS.iter().chain(&TOOLS))?;
        let packages = work.join("packages");
        if refresh || !packages.join(VERSIONS).exists() {
            fetch(work, mirror, &packages).context(
                "cannot get Debian's kernel and firmware, which the boots need; \
                 is the Debian archive reachable from here?",
            )?;
        }
        print!("{}", fs::read_to_string(packages.join(VERSIONS))?);

        let recipe = crate::repository_root().join("tests/boot");
        let files = Self {
            kernel: find(&packages.join("boot"), "vmlinux-")?,
            initramfs: work.join("initramfs.cpio"),
            u_boot: packages.join("usr/lib/u-boot/qemu-riscv64_smode/u-boot.bin"),
            disk: work.join("disk.img"),
            opensbi: packages.join("usr/lib/riscv64-linux-gnu/opensbi/generic"),
        };
        let busybox = fs::read(packages.join("usr/bin/busybox")).context("cannot read busybox")?;
        replace(&files.initramfs, &root_files(&busybox, &recipe)?)?;
        files.make_disk(work, &recipe)?;
        Ok(files)
    }

    /// One form of OpenSBI: an ELF file of the one, a flat binary of the other, so that both are loaded.
    pub(super) fn opensbi(&self, form: OpenSbi) -> PathBuf {
        self.opensbi.join(match form {
            OpenSbi::Jump => "fw_jump.elf",
            OpenSbi::Dynamic => "fw_dynamic.bin",
        })
    }

    /// A partitioned disk with an ext2 file system, made without root.
    fn make_disk(&self, work: &Path, recipe: &Path) -> Result<()> {
        let root = work.join("disk");
        fs::create_dir_all(root.join("extlinux")).context("cannot create the disk's folder")?;
        fs::copy(&self.kernel, root.join("vmlinux")).context("cannot copy the kernel")?;
        fs::copy(&self.initramfs, root.join("initramfs.cpio")).context("cannot copy the initramfs")?;
        fs::copy(recipe.join("extlinux.conf"), root.join("extlinux/extlinux.conf"))
            .context("cannot copy extlinux.conf")?;

        let staging = staging(&self.disk);
        let file =
            fs::File::create(&staging).with_context(|| format!("cannot create {}", staging.display()))?;
        file.set_len(DISK_BYTES)?;
        let start = u64::from(PARTITION_SECTOR) * SECTOR_BYTES;
        let mut mke2fs = Command::new("mke2fs");
        mke2fs
            .args(["-q", "-F", "-t", "ext2", "-E", &format!("offset={start}"), "-d"])
            .arg(&root)
            .arg(&staging);
        process::run(mke2fs.arg(format!("{}k", (DISK_BYTES - start) / 1024)))?;
        write_partition_table(file).context("cannot write the partition table")?;
        fs::rename(&staging, &self.disk).with_context(|| format!("cannot create {}", self.disk.display()))
    }
}

/// Downloads and unpacks into `folder` what the boots need of each package.
fn fetch(work: &Path, mirror: Option<&str>, folder: &Path) -> Result<()> {
    let mirror = mirror.map_or_else(debian::system_mirror, |uri| Ok(uri.to_owned()))?;
    let archive = Archive::open(&work.join("apt"), &mirror, SUITE, ARCHITECTURE)?;
    let downloads = work.join("download");
    let get = |name: &str, architecture| archive.download(name, architecture, &downloads);
    let kernel_package = get(KERNEL_METAPACKAGE, Some(ARCHITECTURE))?.first_dependency()?;
    // Firmware packages are for hosts of any architecture.
    let wanted: [(&str, Option<&str>, &[&str]); 4] = [
        (&kernel_package, Some(ARCHITECTURE), &["./boot/vmlinux-*"]),
        (BUSYBOX_PACKAGE, Some(ARCHITECTURE), &["./usr/bin/busybox"]),
        (OPENSBI_PACKAGE, None, &["./usr/lib/riscv64-linux-gnu/opensbi/generic/fw_*"]),
        (U_BOOT_PACKAGE, None, &["./usr/lib/u-boot/qemu-riscv64_smode/u-boot.bin"]),
    ];

    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    let mut versions = String::new();
    for (name, architecture, patterns) in wanted {
        let package = get(name, architecture)?;
        package.unpack_only(patterns, folder)?;
        versions += &format!("{name} {}\n", package.field("Version")?);
    }
    fs::remove_dir_all(&downloads).with_context(|| format!("cannot remove {}", downloads.display()))?;
    fs::write(folder.join(VERSIONS), versions).context("cannot write the list of versions")
}

/// The file of a folder whose name begins with `prefix`.
fn find(folder: &Path, prefix: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut paths = entries.flatten().map(|entry| entry.path());
    let found = paths.find(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(prefix)));
    found.with_context(|| format!("no {prefix}* in {}", folder.display()))
}

/// The initramfs: busybox and a script. Distribution kernels do not mount devtmpfs, so the console is in it.
fn root_files(busybox: &[u8], recipe: &Path) -> Result<Vec<u8>> {
    let mut archive = cpio::Archive::default();
    for directory in ["bin", "dev", "proc", "sys"] {
        archive.directory(directory, 0o755)?;
    }
    archive.character_device("dev/console", 0o600, (5, 1))?;
    initramfs::add_busybox(&mut archive, busybox)?;
    archive.file("init", 0o755, fs::read(recipe.join("init")).context("cannot read tests/boot/init")?)?;
    archive.finish()
}

/// A master boot record with one bootable Linux partition up to the disk's end.
fn write_partition_table(mut disk: impl Write + Seek) -> std::io::Result<()> {
    let sectors = (DISK_BYTES / SECTOR_BYTES) as u32 - PARTITION_SECTOR;
    // Bootable, no cylinders and heads, type Linux.
    let mut entry = vec![0x80, 0xfe, 0xff, 0xff, 0x83, 0xfe, 0xff, 0xff];
    entry.extend(PARTITION_SECTOR.to_le_bytes());
    entry.extend(sectors.to_le_bytes());
    disk.seek(SeekFrom::Start(446))?;
    disk.write_all(&entry)?;
    disk.seek(SeekFrom::Start(510))?;
    disk.write_all(&[0x55, 0xaa])
}

/// A name beside `path`, of this process alone.
fn staging(path: &Path) -> PathBuf {
    path.with_extension(std::process::id().to_string())
}

/// Writes a file that nobody sees half written.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let staging = staging(path);
    let written = fs::write(&staging, bytes).and_then(|()| fs::rename(&staging, path));
    written.with_context(|| format!("cannot write {}", path.display()))
}
