//! What the disk test boots: Debian's kernel, an initramfs with the drivers of disks, and a root file system.
//! Downloads are kept below `target/disk` until `--refresh`.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::debian::{self, Archive};
use crate::guest::{BUSYBOX_PACKAGE, SUITE, cpio, initramfs};
use crate::process;
use crate::tools::{self, Tool};

const ARCHITECTURE: &str = "riscv64";
/// Depends on the newest kernel's package.
const KERNEL_METAPACKAGE: &str = "linux-image-riscv64";
/// What the test loads; what they depend on comes along, but for what ext4 asks the kernel for by itself.
const MODULES: [&str; 7] =
    ["virtio_blk", "nvme", "virtio_scsi", "sd_mod", "sr_mod", "crc32c_generic", "ext4"];
/// Written last: names the version of a complete set of files.
const VERSION: &str = "version.txt";
/// The root's length.
const ROOT_SIZE: &str = "64M";

const TOOLS: [Tool; 2] = [Tool::program("xz", "xz-utils"), Tool::program("mke2fs", "e2fsprogs")];

/// Paths of everything.
pub(crate) struct Files {
    pub(crate) kernel: PathBuf,
    pub(crate) initramfs: PathBuf,
    /// The root file system: a raw image.
    pub(crate) root: PathBuf,
}

impl Files {
    /// Downloads the packages if they are not there, then makes the rest.
    ///
    /// # Errors
    /// When the archive does not answer or does not have a package.
    pub(crate) fn prepare(work: &Path, mirror: Option<&str>, refresh: bool) -> Result<Self> {
        tools::require("the disk test", debian::TOOLS.iter().chain(&TOOLS))?;
        let packages = work.join("packages");
        if refresh || !packages.join(VERSION).exists() {
            fetch(work, mirror, &packages)
                .context("cannot get Debian's kernel; is the Debian archive reachable from here?")?;
        }
        print!("{}", fs::read_to_string(packages.join(VERSION))?);
        let boot = packages.join("boot");
        let kernel = fs::read_dir(&boot)?.flatten().map(|entry| entry.path());
        let kernel = kernel.into_iter().find(|path| path.to_string_lossy().contains("vmlinux-"));
        let files = Self {
            kernel: kernel.with_context(|| format!("no kernel in {}", boot.display()))?,
            initramfs: work.join("initramfs.cpio"),
            root: work.join("root.img"),
        };
        let recipe = crate::repository_root().join("tests/disk");
        let busybox = fs::read(packages.join("usr/bin/busybox")).context("cannot read busybox")?;
        files.make_initramfs(&packages, &busybox, &recipe)?;
        files.make_root(work, &busybox, &recipe)?;
        Ok(files)
    }

    fn make_initramfs(&self, packages: &Path, busybox: &[u8], recipe: &Path) -> Result<()> {
        let mut archive = cpio::Archive::default();
        for directory in ["bin", "dev", "proc", "sys", "mnt", "modules"] {
            archive.directory(directory, 0o755)?;
        }
        archive.character_device("dev/console", 0o600, (5, 1))?;
        initramfs::add_busybox(&mut archive, busybox)?;
        archive.file("init", 0o755, fs::read(recipe.join("init")).context("cannot read tests/disk/init")?)?;
        let mut modules =
            Modules { folder: packages.join("usr/lib/modules"), seen: BTreeSet::new(), order: Vec::new() };
        for name in MODULES {
            modules.add(name)?;
        }
        let names: Vec<&str> = modules.order.iter().map(|(name, _)| name.as_str()).collect();
        archive.file("modules.list", 0o644, (names.join("\n") + "\n").into_bytes())?;
        for (name, bytes) in &modules.order {
            archive.file(&format!("modules/{name}.ko"), 0o644, bytes.clone())?;
        }
        fs::write(&self.initramfs, archive.finish()?).context("cannot write the initramfs")
    }

    fn make_root(&self, work: &Path, busybox: &[u8], recipe: &Path) -> Result<()> {
        let folder = work.join("root");
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("cannot empty {}", folder.display()))?;
        }
        for name in ["bin", "dev", "proc", "sys", "mnt"] {
            fs::create_dir_all(folder.join(name))?;
        }
        for (name, bytes) in
            [("bin/busybox", busybox.to_vec()), ("init", fs::read(recipe.join("root-init"))?)]
        {
            fs::write(folder.join(name), bytes)?;
            fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o755))?;
        }
        std::os::unix::fs::symlink("busybox", folder.join("bin/sh"))?;
        let _ = fs::remove_file(&self.root);
        let mut tool = Command::new("mke2fs");
        tool.args(["-q", "-F", "-t", "ext4", "-b", "4096", "-d"]).arg(&folder).arg(&self.root).arg(ROOT_SIZE);
        process::run(&mut tool)
    }
}

/// A root file system with Debian's fio and what it needs, which runs the lines that come over the console.
///
/// # Errors
/// When the archive does not answer or does not have a package.
pub(crate) fn fio_root(work: &Path) -> Result<PathBuf> {
    let (folder, image) = (work.join("fio"), work.join("fio.img"));
    if image.exists() {
        return Ok(image);
    }
    let archive = Archive::open(&work.join("apt"), &debian::system_mirror()?, SUITE, ARCHITECTURE)?;
    let downloads = work.join("download");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    for name in archive.with_dependencies(&["fio"], ARCHITECTURE)? {
        archive.download(&name, Some(ARCHITECTURE), &downloads)?.unpack(&folder)?;
    }
    fs::remove_dir_all(&downloads).with_context(|| format!("cannot remove {}", downloads.display()))?;
    for name in ["usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/i18n"] {
        let _ = fs::remove_dir_all(folder.join(name));
    }
    for name in ["dev", "proc", "sys", "tmp", "mnt"] {
        fs::create_dir_all(folder.join(name))?;
    }
    // Debian's /bin and /lib are in /usr.
    for name in ["bin", "lib"] {
        if !folder.join(name).exists() {
            std::os::unix::fs::symlink(format!("usr/{name}"), folder.join(name))?;
        }
    }
    fs::create_dir_all(folder.join("usr/bin"))?;
    fs::copy(work.join("packages/usr/bin/busybox"), folder.join("usr/bin/busybox"))?;
    if !folder.join("usr/bin/sh").exists() {
        std::os::unix::fs::symlink("busybox", folder.join("usr/bin/sh"))?;
    }
    let init = folder.join("init");
    fs::copy(crate::repository_root().join("tests/disk/bench-init"), &init)
        .context("cannot copy bench-init")?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    let mut tool = Command::new("mke2fs");
    tool.args(["-q", "-F", "-t", "ext4", "-b", "4096", "-d"]).arg(&folder).arg(&image).arg("1G");
    process::run(&mut tool)?;
    Ok(image)
}

/// Modules in the order in which they are to be loaded.
struct Modules {
    folder: PathBuf,
    seen: BTreeSet<String>,
    order: Vec<(String, Vec<u8>)>,
}

impl Modules {
    /// Adds a module behind what it depends on. One that is not there is built in.
    fn add(&mut self, name: &str) -> Result<()> {
        // The files' names have either sign.
        let name = name.replace('-', "_");
        if !self.seen.insert(name.clone()) {
            return Ok(());
        }
        let Some(path) = find(&self.folder, &name)? else { return Ok(()) };
        let output = Command::new("xz").arg("-dc").arg(&path).output().context("cannot start xz")?;
        ensure!(output.status.success(), "xz cannot unpack {}", path.display());
        for needed in dependencies(&output.stdout) {
            self.add(&needed)?;
        }
        self.order.push((name, output.stdout));
        Ok(())
    }
}

/// What a module's information says it depends on.
fn dependencies(module: &[u8]) -> Vec<String> {
    const FIELD: &[u8] = b"\0depends=";
    let Some(at) = module.windows(FIELD.len()).position(|window| window == FIELD) else { return Vec::new() };
    let value = module[at + FIELD.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(value);
    names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// The module's file anywhere below a folder.
fn find(folder: &Path, module: &str) -> Result<Option<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            if let Some(found) = find(&path, module)? {
                return Ok(Some(found));
            }
        } else if let Some(name) = entry.file_name().to_str().and_then(|name| name.strip_suffix(".ko.xz"))
            && name.replace('-', "_") == module
        {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Downloads and unpacks what the test needs of each package.
fn fetch(work: &Path, mirror: Option<&str>, folder: &Path) -> Result<()> {
    let mirror = mirror.map_or_else(debian::system_mirror, |uri| Ok(uri.to_owned()))?;
    let archive = Archive::open(&work.join("apt"), &mirror, SUITE, ARCHITECTURE)?;
    let downloads = work.join("download");
    let get = |name: &str| archive.download(name, Some(ARCHITECTURE), &downloads);
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    let name = get(KERNEL_METAPACKAGE)?.first_dependency()?;
    let kernel = get(&name)?;
    let drivers = ["*/drivers/block/*", "*/drivers/nvme/*", "*/drivers/scsi/*", "*/drivers/cdrom/*"];
    let others = ["./boot/vmlinux-*", "*/fs/ext4/*", "*/fs/jbd2/*", "*/fs/mbcache*", "*/lib/*", "*/crypto/*"];
    kernel.unpack_only(&[&drivers[..], &others].concat(), folder)?;
    get(BUSYBOX_PACKAGE)?.unpack_only(&["./usr/bin/busybox"], folder)?;
    fs::remove_dir_all(&downloads).with_context(|| format!("cannot remove {}", downloads.display()))?;
    fs::write(folder.join(VERSION), format!("{name} {}\n", kernel.field("Version")?))
        .context("cannot write the kernel's version")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read_from_a_module() {
        let module = b"\x7fELF...\0license=GPL\0depends=jbd2,mbcache\0intree=Y\0";
        assert_eq!(dependencies(module), ["jbd2", "mbcache"]);
        assert!(dependencies(b"\0depends=\0intree=Y\0").is_empty());
        assert!(dependencies(b"\0name=x\0").is_empty());
    }
}
