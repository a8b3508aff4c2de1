//! What the guests run: one initial RAM disk with the programs of `benches/guest`, cross-compiled, Debian's programs
//! and the scripts of `benches/rows`; another without programs, for boots. Debian's stock kernel boots both.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::Places;
use super::platform::Platform;
use super::rows::{Kind, Row};
use crate::debian::{self, Archive};
use crate::guest::{BUSYBOX_PACKAGE, SUITE, cpio, initramfs};
use crate::process;
use crate::tools;

/// Optimised as distributions do, without anything that must be found at run time.
const FLAGS: [&str; 7] = ["-O2", "-static", "-pthread", "-Wall", "-Wextra", "-Werror", "-fno-math-errno"];
/// Debian's packages that rows run; those that they depend on come along.
const PACKAGES: [&str; 5] = ["7zip", "openssl", "python3-minimal", "sysbench", "xz-utils"];
/// Below `usr/lib` and the folder of the architecture in it: what no row needs, most of the bytes.
const LEFT_OUT: [&str; 8] =
    ["binfmt.d", "engines-3", "gconv", "krb5", "libmariadb3", "sasl2", "ssl", "valgrind"];
/// Written last: names the versions of a complete set of packages.
const VERSIONS: &str = "versions.txt";
/// What a kernel prints when all of its own start is done.
pub(super) const INIT_LINE: &str = "Run /init as init process";

/// A kernel with all it needs, the same for every machine.
pub(super) struct Guest {
    pub(super) kernel: PathBuf,
    pub(super) initrd: PathBuf,
    pub(super) append: String,
}

/// Debian's kernel and programs for one architecture, unpacked.
pub(super) struct Debian {
    platform: &'static Platform,
    work: PathBuf,
    packages: PathBuf,
}

impl Debian {
    /// Downloads what is not there from an earlier run.
    ///
    /// # Errors
    /// When the archive does not answer or does not have a package.
    pub(super) fn prepare(places: &Places, mirror: Option<&str>, refresh: bool) -> Result<Self> {
        tools::require("unpacking Debian's programs", debian::TOOLS.iter())?;
        let work = places.work.clone();
        let packages = work.join("packages");
        if refresh || !packages.join(VERSIONS).exists() {
            fetch(places.platform, &work, &packages, mirror).context(
                "cannot get Debian's kernel and programs, which are measured; is the Debian archive reachable?",
            )?;
        }
        Ok(Self { platform: places.platform, work, packages })
    }

    /// The versions of the kernel and of the packages that rows name; of all others, the file beside them has them.
    pub(super) fn versions(&self) -> Result<String> {
        let all =
            fs::read_to_string(self.packages.join(VERSIONS)).context("cannot read the list of versions")?;
        let named = |line: &&str| {
            let name = line.split(' ').next().unwrap_or_default();
            PACKAGES.contains(&name) || name == BUSYBOX_PACKAGE || name.starts_with("linux-image-")
        };
        Ok(all.lines().filter(named).collect::<Vec<_>>().join(", "))
    }

    /// The guest that waits for names of rows, with all that these rows need.
    pub(super) fn rows(&self, rows: &[&Row]) -> Result<Guest> {
        let recipe = crate::repository_root().join("benches");
        let mut root = self.root()?;
        for row in rows.iter().filter(|row| row.kind == Kind::Program) {
            let binary = self.compile(row.name, &recipe)?;
            root.copy(&format!("bench/{}", row.name), &binary)?;
        }
        if rows.iter().any(|row| row.kind == Kind::Script) {
            root.copy_tree("rows", &recipe.join("rows"), &[])?;
            root.copy_tree("usr/bin", &self.packages.join("usr/bin"), &[])?;
            root.copy_tree("usr/lib", &self.packages.join("usr/lib"), &LEFT_OUT)?;
            root.symlink("lib", "usr/lib")?;
        }
        self.guest("rows", root)
    }

    /// The guest of the boot row: busybox and the same init.
    pub(super) fn boot(&self) -> Result<Guest> {
        self.guest("boot", self.root()?)
    }

    /// What both have: directories, a console, busybox and init.
    fn root(&self) -> Result<Root> {
        let mut root = Root::default();
        for path in ["bin", "dev", "proc", "tmp"] {
            root.directory(path)?;
        }
        // Distribution kernels do not mount devtmpfs.
        root.archive.character_device("dev/console", 0o600, (5, 1))?;
        let busybox = fs::read(self.packages.join("usr/bin/busybox")).context("cannot read busybox")?;
        initramfs::add_busybox(&mut root.archive, &busybox)?;
        root.copy("init", &crate::repository_root().join("benches/init"))?;
        Ok(root)
    }

    fn guest(&self, name: &str, root: Root) -> Result<Guest> {
        let initrd = self.work.join(name).with_extension("cpio");
        write(&initrd, &root.archive.finish()?)?;
        let folder = self.packages.join("boot");
        let kernel = fs::read_dir(&folder)?.flatten().map(|entry| entry.path()).next();
        let kernel = kernel.with_context(|| format!("no kernel in {}", folder.display()))?;
        Ok(Guest { kernel, initrd, append: self.platform.append() })
    }

    fn compile(&self, name: &str, recipe: &Path) -> Result<PathBuf> {
        tools::require("compiling guest programs", &self.platform.tools)?;
        let folder = self.work.join("bin");
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let binary = folder.join(name);
        let source = recipe.join("guest").join(name).with_extension("c");
        let mut compiler = Command::new(self.platform.compiler);
        process::run(compiler.args(FLAGS).arg("-o").arg(&binary).arg(source).arg("-lm"))?;
        Ok(binary)
    }
}

/// The compiler's name and version, and the flags that matter.
pub(super) fn compiler(platform: &Platform) -> Result<String> {
    Ok(format!("{} `{}`", platform.compiler_version()?, FLAGS[..2].join(" ")))
}

/// The embedded guest, a shell on the console.
pub(super) fn embedded(places: &Places) -> Result<Guest> {
    let images = crate::repository_root().join("guests/linux/images").join(places.platform.arch);
    let unpack = |stored: &str, name: &str| -> Result<PathBuf> {
        let source = images.join(stored);
        let file = fs::File::open(&source).with_context(|| format!("cannot open {}", source.display()))?;
        let bytes = zstd::decode_all(file).with_context(|| format!("cannot unpack {}", source.display()))?;
        let path = places.work.join(name);
        write(&path, &bytes)?;
        Ok(path)
    };
    Ok(Guest {
        kernel: unpack("kernel.zst", "embedded-kernel")?,
        initrd: unpack("initramfs.cpio.zst", "embedded.cpio")?,
        append: places.platform.append(),
    })
}

/// Downloads and unpacks into `folder` the kernel, busybox, and the rows' packages with those they depend on.
fn fetch(platform: &Platform, work: &Path, folder: &Path, mirror: Option<&str>) -> Result<()> {
    let mirror = mirror.map_or_else(debian::system_mirror, |uri| Ok(uri.to_owned()))?;
    let archive = Archive::open(&work.join("apt"), &mirror, SUITE, platform.debian)?;
    let downloads = work.join("download");
    let get = |name: &str| archive.download(name, Some(platform.debian), &downloads);
    let kernel_package = get(platform.kernel_metapackage)?.first_dependency()?;
    let programs = archive.with_dependencies(&PACKAGES, platform.debian)?;

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
    unpack(&kernel_package, &[platform.kernel_pattern])?;
    unpack(BUSYBOX_PACKAGE, &["./usr/bin/busybox"])?;
    for name in &programs {
        unpack(name, &["./usr/*"])?;
    }
    fs::remove_dir_all(&downloads).with_context(|| format!("cannot remove {}", downloads.display()))?;
    write(&folder.join(VERSIONS), versions.as_bytes())
}

/// An initial RAM disk in the making, which adds the directories that a path needs.
#[derive(Default)]
struct Root {
    archive: cpio::Archive,
    directories: BTreeSet<String>,
}

impl Root {
    /// A directory and those above it, unless they are there.
    fn directory(&mut self, path: &str) -> Result<()> {
        if path.is_empty() || self.directories.contains(path) {
            return Ok(());
        }
        self.directory(parent(path))?;
        self.directories.insert(path.to_owned());
        self.archive.directory(path, 0o755)
    }

    fn symlink(&mut self, path: &str, points_to: &str) -> Result<()> {
        self.directory(parent(path))?;
        self.archive.symlink(path, points_to)
    }

    /// A file; of its permissions only "executable" counts.
    fn copy(&mut self, path: &str, source: &Path) -> Result<()> {
        self.directory(parent(path))?;
        let read =
            || Ok::<_, std::io::Error>((fs::read(source)?, fs::metadata(source)?.permissions().mode()));
        let (data, mode) = read().with_context(|| format!("cannot read {}", source.display()))?;
        self.archive.file(path, if mode & 0o100 != 0 { 0o755 } else { 0o644 }, data)
    }

    /// Everything below a folder but what has one of the names in `left_out`.
    fn copy_tree(&mut self, path: &str, source: &Path, left_out: &[&str]) -> Result<()> {
        self.directory(path)?;
        let entries = fs::read_dir(source).with_context(|| format!("cannot list {}", source.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("cannot list {}", source.display()))?;
            let name = entry.file_name().into_string().ok().context("a file is not named in UTF-8")?;
            if left_out.contains(&name.as_str()) || name == "busybox" {
                continue;
            }
            let (path, source, kind) = (format!("{path}/{name}"), entry.path(), entry.file_type()?);
            if kind.is_symlink() {
                let points_to = fs::read_link(&source)?;
                self.symlink(&path, &points_to.to_string_lossy())?;
            } else if kind.is_dir() {
                self.copy_tree(&path, &source, left_out)?;
            } else {
                self.copy(&path, &source)?;
            }
        }
        Ok(())
    }
}

/// The directory that a path is in; empty for the root.
fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_are_copied_with_links_and_parents_and_without_what_is_left_out() -> Result<()> {
        let folder = tempfile::tempdir()?;
        fs::create_dir_all(folder.path().join("a/gconv"))?;
        fs::write(folder.path().join("a/file"), "text")?;
        fs::write(folder.path().join("a/gconv/big"), "big")?;
        std::os::unix::fs::symlink("file", folder.path().join("a/link"))?;
        let mut root = Root::default();
        root.copy_tree("usr/lib", folder.path(), &["gconv"])?;
        root.copy("usr/lib/b/c", &folder.path().join("a/file"))?;
        let bytes = root.archive.finish()?;
        let text = String::from_utf8_lossy(&bytes);
        for path in ["usr\0", "usr/lib/a/file\0", "usr/lib/a/link\0", "usr/lib/b/c\0"] {
            assert!(text.contains(path), "{path}");
        }
        assert!(!text.contains("gconv"));
        Ok(())
    }
}
