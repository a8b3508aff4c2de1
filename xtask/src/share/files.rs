//! What the share test boots: Debian's kernel, its 9p modules, and a root directory that is shared as it is.
//! Downloads are kept below `target/share` until `--refresh`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::debian::{self, Archive};
use crate::guest::{BUSYBOX_PACKAGE, SUITE};
use crate::process;
use crate::tools::{self, Tool};

const ARCHITECTURE: &str = "riscv64";
/// Depends on the newest kernel's package.
const KERNEL_METAPACKAGE: &str = "linux-image-riscv64";
/// A test program that verifies what it reads.
const TEST_PACKAGE: &str = "bonnie++";
/// Has flock(1), which Debian's busybox does not.
const LOCK_PACKAGE: &str = "util-linux";
/// In the order they are loaded. Everything else that is needed is built in.
const MODULES: [&str; 4] = ["netfs", "9pnet", "9pnet_virtio", "9p"];
/// Written last: names the versions of a complete set of files.
const VERSIONS: &str = "versions.txt";

const TOOLS: [Tool; 1] = [Tool::program("xz", "xz-utils")];

/// Paths of everything.
pub(super) struct Files {
    pub(super) kernel: PathBuf,
    /// The root file system.
    pub(super) root: PathBuf,
}

impl Files {
    /// Downloads the packages if they are not there, then makes the root.
    ///
    /// # Errors
    /// When the archive does not answer or does not have a package.
    pub(super) fn prepare(work: &Path, mirror: Option<&str>, refresh: bool) -> Result<Self> {
        tools::require("the share test", debian::TOOLS.iter().chain(&TOOLS))?;
        let packages = work.join("packages");
        if refresh || !packages.join(VERSIONS).exists() {
            fetch(work, mirror, &packages).context(
                "cannot get Debian's kernel and programs; is the Debian archive reachable from here?",
            )?;
        }
        print!("{}", fs::read_to_string(packages.join(VERSIONS))?);
        let boot = packages.join("boot");
        let kernel = fs::read_dir(&boot)?.flatten().map(|entry| entry.path());
        let kernel = kernel.into_iter().find(|path| path.to_string_lossy().contains("vmlinux-"));
        let files = Self {
            kernel: kernel.with_context(|| format!("no kernel in {}", boot.display()))?,
            root: work.join("root"),
        };
        files.make_root(&packages)?;
        Ok(files)
    }

    fn make_root(&self, packages: &Path) -> Result<()> {
        if self.root.exists() {
            fs::remove_dir_all(&self.root)
                .with_context(|| format!("cannot empty {}", self.root.display()))?;
        }
        for folder in ["bin", "lib"] {
            fs::create_dir_all(self.root.join(folder))?;
        }
        // Debian's /lib is in /usr; only the loader's path is in every program.
        process::run(Command::new("cp").arg("-a").arg(packages.join("usr")).arg(&self.root))?;
        let loader = "ld-linux-riscv64-lp64d.so.1";
        std::os::unix::fs::symlink(format!("/usr/lib/{loader}"), self.root.join("lib").join(loader))?;
        fs::copy(packages.join("usr/bin/busybox"), self.root.join("bin/busybox"))
            .context("cannot copy busybox")?;
        let init = self.root.join("init");
        fs::copy(crate::repository_root().join("tests/share/init"), &init)
            .context("cannot copy tests/share/init")?;
        fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
        let mut names = String::new();
        for module in MODULES {
            let name = format!("{module}.ko");
            let packed = find(&packages.join("usr/lib/modules"), &format!("{name}.xz"))?
                .with_context(|| format!("the kernel's package has no {name}.xz"))?;
            let bytes = Command::new("xz").arg("-dc").arg(&packed).output().context("cannot start xz")?;
            anyhow::ensure!(bytes.status.success(), "xz cannot unpack {}", packed.display());
            fs::write(self.root.join("lib").join(&name), bytes.stdout)?;
            names += &format!("{name}\n");
        }
        fs::write(self.root.join("modules"), names).context("cannot write the list of modules")
    }
}

/// Downloads and unpacks into `folder` what the test needs of each package.
fn fetch(work: &Path, mirror: Option<&str>, folder: &Path) -> Result<()> {
    let mirror = mirror.map_or_else(debian::system_mirror, |uri| Ok(uri.to_owned()))?;
    let archive = Archive::open(&work.join("apt"), &mirror, SUITE, ARCHITECTURE)?;
    let downloads = work.join("download");
    let get = |name: &str| archive.download(name, Some(ARCHITECTURE), &downloads);
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    let mut versions = String::new();
    let mut unpack = |name: &str, patterns: &[&str]| -> Result<()> {
        let package = get(name)?;
        package.unpack_only(patterns, folder)?;
        versions += &format!("{name} {}\n", package.field("Version")?);
        Ok(())
    };
    let kernel = get(KERNEL_METAPACKAGE)?.first_dependency()?;
    unpack(&kernel, &["./boot/vmlinux-*", "*/fs/9p/*", "*/fs/netfs/*", "*/net/9p/*"])?;
    unpack(BUSYBOX_PACKAGE, &["./usr/bin/busybox"])?;
    unpack(TEST_PACKAGE, &["./usr/sbin/*"])?;
    unpack(LOCK_PACKAGE, &["./usr/bin/flock"])?;
    for library in ["libc6", "libstdc++6", "libgcc-s1"] {
        unpack(library, &["./usr/lib/*.so*", "./usr/lib/riscv64-linux-gnu/*.so*"])
            .or_else(|_| unpack(library, &["./usr/lib/riscv64-linux-gnu/*.so*"]))?;
    }
    fs::remove_dir_all(&downloads).with_context(|| format!("cannot remove {}", downloads.display()))?;
    fs::write(folder.join(VERSIONS), versions).context("cannot write the list of versions")
}

/// The file of this name anywhere below a folder.
fn find(folder: &Path, name: &str) -> Result<Option<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            if let Some(found) = find(&path, name)? {
                return Ok(Some(found));
            }
        } else if path.file_name().is_some_and(|file| file == name) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}
