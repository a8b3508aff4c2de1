//! What the guests run: the programs of `benches/guest`, cross-compiled, each in an archive that follows the embedded
//! guest's own initial RAM disk (`guests/linux/README.md`, "Protocol").

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::Places;
use crate::guest::cpio;
use crate::process;
use crate::tools::{self, Tool};

const COMPILER: &str = "riscv64-linux-gnu-gcc";
const FLAGS: [&str; 5] = ["-O2", "-static", "-Wall", "-Wextra", "-Werror"];
const TOOLS: [Tool; 2] = [
    Tool::program(COMPILER, "gcc-riscv64-linux-gnu"),
    Tool::file("/usr/riscv64-linux-gnu/lib/libc.a", "libc6-dev-riscv64-cross"),
];
/// What a kernel prints when all of its own start is done.
pub(super) const INIT_LINE: &str = "Run /init as init process";

/// A kernel with all it needs, the same for every machine.
pub(super) struct Guest {
    pub(super) kernel: PathBuf,
    pub(super) initrd: PathBuf,
}

impl Guest {
    pub(super) const APPEND: &str = "console=ttyS0";
}

/// The embedded guest, unpacked.
pub(super) struct Embedded {
    work: PathBuf,
    kernel: PathBuf,
    initramfs: Vec<u8>,
}

impl Embedded {
    pub(super) fn unpack(places: &Places) -> Result<Self> {
        let images = crate::repository_root().join("guests/linux/images/riscv64");
        let unpacked = |name: &str| -> Result<Vec<u8>> {
            let path = images.join(name);
            let file = fs::File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
            zstd::decode_all(file).with_context(|| format!("cannot unpack {}", path.display()))
        };
        let kernel = places.work.join("kernel");
        write(&kernel, &unpacked("kernel.zst")?)?;
        Ok(Self { work: places.work.clone(), kernel, initramfs: unpacked("initramfs.cpio.zst")? })
    }

    /// The guest as it is: a shell on the console.
    pub(super) fn shell(&self) -> Result<Guest> {
        self.followed_by("shell", &[])
    }

    /// The guest with a program of `benches/guest` as its command.
    pub(super) fn program(&self, name: &str) -> Result<Guest> {
        let binary = self.compile(name)?;
        let mut archive = cpio::Archive::default();
        archive.directory("isomer", 0o755)?;
        archive.file("isomer/argv", 0o644, b"/bench\0".to_vec())?;
        archive.file("bench", 0o755, fs::read(&binary).context("cannot read what was compiled")?)?;
        self.followed_by(name, &archive.finish()?)
    }

    fn followed_by(&self, name: &str, archive: &[u8]) -> Result<Guest> {
        let initrd = self.work.join(format!("{name}.cpio"));
        write(&initrd, &[&self.initramfs, archive].concat())?;
        Ok(Guest { kernel: self.kernel.clone(), initrd })
    }

    fn compile(&self, name: &str) -> Result<PathBuf> {
        tools::require("compiling guest programs", &TOOLS)?;
        let source = crate::repository_root().join("benches/guest").join(name).with_extension("c");
        let binary = self.work.join(name);
        process::run(Command::new(COMPILER).args(FLAGS).arg("-o").arg(&binary).arg(source))?;
        Ok(binary)
    }
}

/// The compiler's name and version, and the flags.
pub(super) fn compiler() -> Result<String> {
    let version = process::capture(Command::new(COMPILER).arg("--version"))?;
    Ok(format!("{} `{}`", version.lines().next().unwrap_or_default(), FLAGS[..2].join(" ")))
}

/// Debian's stock kernel: the files named, or those that `cargo xtask boot` keeps. None if it has not run.
pub(super) fn debian(kernel: Option<&Path>, initrd: Option<&Path>) -> Result<Option<Guest>> {
    if let (Some(kernel), Some(initrd)) = (kernel, initrd) {
        return Ok(Some(Guest { kernel: kernel.to_owned(), initrd: initrd.to_owned() }));
    }
    let cache = crate::target_dir()?.join("boot");
    let initrd = cache.join("initramfs.cpio");
    let kernels = fs::read_dir(cache.join("packages/boot")).into_iter().flatten().flatten();
    let mut kernels = kernels
        .map(|entry| entry.path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinux-")));
    Ok(kernels.next().filter(|_| initrd.exists()).map(|kernel| Guest { kernel, initrd }))
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}
