//! The guest of the network tests: Debian's stock kernel and the modules of the card as their packages have them, and
//! an initramfs that does what it is told.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::debian::{self, Archive};
use crate::guest::{BUSYBOX_PACKAGE, SUITE, cpio, initramfs};
use crate::tools;

const ARCHITECTURE: &str = "riscv64";
const KERNEL_METAPACKAGE: &str = "linux-image-riscv64";
/// In the order they are loaded, by which their files are named.
const MODULES: [&str; 3] = ["net/core/failover", "drivers/net/net_failover", "drivers/net/virtio_net"];
/// Written last: names the versions of a complete set of files.
const VERSIONS: &str = "versions.txt";

/// What is booted.
pub(crate) struct Guest {
    pub(crate) kernel: PathBuf,
    pub(crate) initrd: PathBuf,
}

impl Guest {
    /// Downloads the packages if they are not there, then makes the initramfs; `programs` are added to `/bin`.
    ///
    /// # Errors
    /// When the archive does not answer or does not have a package.
    pub(crate) fn prepare(
        work: &Path,
        mirror: Option<&str>,
        refresh: bool,
        programs: &[(&str, &Path)],
    ) -> Result<Self> {
        tools::require("booting Debian's kernel", debian::TOOLS.iter())?;
        let packages = work.join("packages");
        if refresh || !packages.join(VERSIONS).exists() {
            fetch(work, mirror, &packages).context(
                "cannot get Debian's kernel and its modules, which the tests need; is the Debian archive reachable?",
            )?;
        }
        print!("{}", fs::read_to_string(packages.join(VERSIONS))?);
        let kernel = only_file(&packages.join("boot"))?;
        let initrd = work.join("initramfs.cpio");
        fs::write(&initrd, root(&packages, programs)?)
            .with_context(|| format!("cannot write {}", initrd.display()))?;
        Ok(Self { kernel, initrd })
    }
}

fn fetch(work: &Path, mirror: Option<&str>, folder: &Path) -> Result<()> {
    let mirror = mirror.map_or_else(debian::system_mirror, |uri| Ok(uri.to_owned()))?;
    let archive = Archive::open(&work.join("apt"), &mirror, SUITE, ARCHITECTURE)?;
    let downloads = work.join("download");
    let get = |name: &str| archive.download(name, Some(ARCHITECTURE), &downloads);
    let kernel_package = get(KERNEL_METAPACKAGE)?.first_dependency()?;
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    let modules = MODULES.map(|module| format!("./usr/lib/modules/*/kernel/{module}.ko.xz"));
    let mut patterns = vec!["./boot/vmlinux-*"];
    patterns.extend(modules.iter().map(String::as_str));
    let mut versions = String::new();
    for (name, patterns) in
        [(kernel_package.as_str(), &patterns[..]), (BUSYBOX_PACKAGE, &["./usr/bin/busybox"])]
    {
        let package = get(name)?;
        package.unpack_only(patterns, folder)?;
        versions += &format!("{name} {}\n", package.field("Version")?);
    }
    fs::remove_dir_all(&downloads).with_context(|| format!("cannot remove {}", downloads.display()))?;
    fs::write(folder.join(VERSIONS), versions).context("cannot write the list of versions")
}

fn only_file(folder: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let file = entries.flatten().map(|entry| entry.path()).next();
    file.with_context(|| format!("nothing is in {}", folder.display()))
}

fn root(packages: &Path, programs: &[(&str, &Path)]) -> Result<Vec<u8>> {
    let read = |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let recipe = crate::repository_root().join("tests/net");
    let mut archive = cpio::Archive::default();
    for directory in ["bin", "dev", "etc", "lib", "lib/modules", "proc", "sys", "tmp"] {
        archive.directory(directory, 0o755)?;
    }
    archive.character_device("dev/console", 0o600, (5, 1))?;
    initramfs::add_busybox(&mut archive, &read(&packages.join("usr/bin/busybox"))?)?;
    let versions = packages.join("usr/lib/modules");
    let kernel = only_file(&versions)?.join("kernel");
    for (index, module) in MODULES.iter().enumerate() {
        let name = module.rsplit('/').next().unwrap_or_default();
        let data = read(&kernel.join(format!("{module}.ko.xz")))?;
        archive.file(&format!("lib/modules/{index}-{name}.ko.xz"), 0o644, data)?;
    }
    for (name, path) in programs {
        archive.file(&format!("bin/{name}"), 0o755, read(path)?)?;
    }
    archive.file("init", 0o755, read(&recipe.join("init"))?)?;
    archive.file("etc/udhcpc", 0o755, read(&recipe.join("udhcpc"))?)?;
    archive.finish()
}
