//! What the boots load: kernels and firmware as Debian's packages have them, and the initramfs and disks made of them.
//! Downloads are kept below `target/boot/ARCH` until `--refresh`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::disk;
use super::platform::{BUSYBOX, EDK2, GRUB, KERNEL, OPENSBI, Package, Platform, U_BOOT};
use super::{Disk, OpenSbi};
use crate::debian::{self, Archive};
use crate::guest::{SUITE, cpio, initramfs};
use crate::tools;

/// Written last: names the version of a complete package.
const VERSION: &str = "version.txt";

/// What the boots of one instruction set load.
pub(super) struct Files {
    platform: &'static Platform,
    work: PathBuf,
    pub(super) initramfs: PathBuf,
}

impl Files {
    /// Downloads the packages of these keys if they are not there, then makes initramfs and disks.
    ///
    /// # Errors
    /// When the archive does not answer or does not have a package: boots do not pass unseen.
    pub(super) fn prepare(
        platform: &'static Platform,
        keys: &BTreeSet<&str>,
        disks: &BTreeSet<Disk>,
        mirror: Option<&str>,
        refresh: bool,
    ) -> Result<Self> {
        let disk_tools = disks.iter().flat_map(|disk| disk.tools());
        tools::require("booting Debian's kernels", debian::TOOLS.iter().chain(disk_tools))?;
        let work = crate::target_dir()?.join("boot").join(platform.arch);
        let files = Self { platform, initramfs: work.join("initramfs.cpio"), work };
        let wanted: Vec<&Package> =
            platform.packages.iter().filter(|package| keys.contains(package.key)).collect();
        let lacking: Vec<&Package> =
            wanted.iter().copied().filter(|package| refresh || !files.version(package).exists()).collect();
        if !lacking.is_empty() {
            files.fetch(&lacking, mirror).context(
                "cannot get Debian's kernels and firmware, which the boots need; \
                 is the Debian archive reachable from here?",
            )?;
        }
        for package in wanted {
            print!("{}", fs::read_to_string(files.version(package))?);
        }

        let recipe = crate::repository_root().join("tests/boot");
        let busybox =
            fs::read(files.folder(BUSYBOX).join("usr/bin/busybox")).context("cannot read busybox")?;
        replace(&files.initramfs, &root_files(&busybox, &recipe)?)?;
        for disk in disks {
            files.make_disk(*disk, &recipe)?;
        }
        Ok(files)
    }

    /// Where a package was unpacked.
    fn folder(&self, key: &str) -> PathBuf {
        self.work.join("packages").join(key)
    }

    fn version(&self, package: &Package) -> PathBuf {
        self.folder(package.key).join(VERSION)
    }

    /// A kernel.
    pub(super) fn kernel(&self, key: &str) -> Result<PathBuf> {
        find(&self.folder(key).join("boot"), "vmlinu")
    }

    /// One form of OpenSBI: an ELF file of the one, a flat binary of the other, so that both are loaded.
    pub(super) fn opensbi(&self, form: OpenSbi) -> PathBuf {
        let folder = self.folder(OPENSBI).join("usr/lib/riscv64-linux-gnu/opensbi/generic");
        folder.join(match form {
            OpenSbi::Jump => "fw_jump.elf",
            OpenSbi::Dynamic => "fw_dynamic.bin",
        })
    }

    /// U-Boot for S-mode, to be started by OpenSBI.
    pub(super) fn u_boot(&self) -> PathBuf {
        self.folder(U_BOOT).join("usr/lib/u-boot/qemu-riscv64_smode/u-boot.bin")
    }

    /// EDK2 for the `virt` board.
    pub(super) fn edk2(&self) -> PathBuf {
        self.folder(EDK2).join("usr/share/qemu-efi-aarch64/QEMU_EFI.fd")
    }

    /// A disk with a kernel, the initramfs, and what its boot loader needs.
    pub(super) fn disk(&self, disk: Disk) -> PathBuf {
        self.work.join(disk.name()).with_extension("img")
    }

    fn make_disk(&self, disk: Disk, recipe: &Path) -> Result<()> {
        let image = self.disk(disk);
        let staging = staging(&image);
        let kernel = self.kernel(KERNEL)?;
        match disk {
            Disk::Extlinux => disk::extlinux(
                &staging,
                &self.work.join("disk"),
                &[
                    ("vmlinux", &kernel),
                    ("initramfs.cpio", &self.initramfs),
                    ("extlinux/extlinux.conf", &recipe.join("extlinux.conf")),
                ],
            )?,
            Disk::Efi => {
                let grub = self.folder(GRUB).join("usr/lib/grub/arm64-efi/monolithic/grubaa64.efi");
                disk::efi(
                    &staging,
                    &[
                        ("EFI/BOOT/BOOTAA64.EFI", &grub),
                        ("EFI/debian/grub.cfg", &recipe.join("grub.cfg")),
                        ("vmlinuz", &kernel),
                        ("initramfs.cpio", &self.initramfs),
                    ],
                )?;
            }
        }
        fs::rename(&staging, &image).with_context(|| format!("cannot create {}", image.display()))
    }

    /// Downloads packages and unpacks what the boots need of each.
    fn fetch(&self, packages: &[&Package], mirror: Option<&str>) -> Result<()> {
        let mirror = mirror.map_or_else(debian::system_mirror, |uri| Ok(uri.to_owned()))?;
        let debian = self.platform.debian;
        let archive = Archive::open(&self.work.join("apt"), &mirror, SUITE, debian)?;
        let downloads = self.work.join("download");
        for package in packages {
            let architecture = package.is_guest.then_some(debian);
            let get = |name: &str| archive.download(name, architecture, &downloads);
            let mut name = package.name.to_owned();
            if package.is_meta {
                name = get(&name)?.first_dependency()?;
            }
            let downloaded = get(&name)?;
            let folder = self.folder(package.key);
            if folder.exists() {
                fs::remove_dir_all(&folder).with_context(|| format!("cannot empty {}", folder.display()))?;
            }
            downloaded.unpack_only(package.patterns, &folder)?;
            let version = format!("{name} {}\n", downloaded.field("Version")?);
            fs::write(self.version(package), version).context("cannot write a package's version")?;
            fs::remove_dir_all(&downloads)
                .with_context(|| format!("cannot remove {}", downloads.display()))?;
        }
        Ok(())
    }
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
