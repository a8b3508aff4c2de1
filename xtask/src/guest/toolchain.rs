//! The programs a kernel build needs, and the Debian packages they come from.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use super::arch::Recipe;
use crate::process;

/// How the presence of a package's content shows.
enum Probe {
    Program(&'static str),
    File(&'static str),
}

/// What every build uses, whatever the instruction set.
const TOOLS: [(Probe, &str); 11] = [
    (Probe::Program("apt-get"), "apt"),
    (Probe::Program("dpkg-deb"), "dpkg"),
    (Probe::File(super::apt::KEYRING), "debian-archive-keyring"),
    (Probe::Program("make"), "make"),
    (Probe::Program("gcc"), "gcc"),
    (Probe::Program("flex"), "flex"),
    (Probe::Program("bison"), "bison"),
    (Probe::Program("bc"), "bc"),
    (Probe::Program("tar"), "tar"),
    (Probe::Program("xz"), "xz-utils"),
    (Probe::Program("perl"), "perl"),
];

/// The x86 build's `objtool` reads ELF files and digests with libraries of the host.
const X86_TOOLS: [(Probe, &str); 2] =
    [(Probe::File("/usr/include/gelf.h"), "libelf-dev"), (Probe::Program("zstd"), "zstd")];

/// Makes sure that the build's tools are there: installs what lacks when run by root, else says what to install.
///
/// # Errors
/// When packages lack and this is not root, or when apt-get fails.
pub(crate) fn require(recipe: &Recipe) -> Result<()> {
    let missing = missing_packages(recipe);
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    if process::capture(Command::new("id").arg("-u"))? != "0" {
        bail!("the kernel build needs more packages; install them with: sudo apt-get install {names}");
    }
    println!("installing {names}");
    process::run(
        Command::new("apt-get")
            .args(["-o", "DPkg::Lock::Timeout=600", "install", "--yes", "--no-install-recommends"])
            .args(&missing)
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )?;
    match missing_packages(recipe).as_slice() {
        [] => Ok(()),
        still => bail!("apt-get installed {names}, and yet the files of {} are missing", still.join(" ")),
    }
}

fn missing_packages(recipe: &Recipe) -> Vec<&'static str> {
    let x86_only = X86_TOOLS.iter().filter(|_| recipe.kbuild == "x86");
    let mut missing: Vec<_> = TOOLS
        .iter()
        .chain(x86_only)
        .filter(|(probe, _)| !present(probe))
        .map(|&(_, package)| package)
        .collect();
    if !process::on_path(&format!("{}gcc", recipe.cross)) {
        missing.push(recipe.compiler_package);
    }
    missing
}

fn present(probe: &Probe) -> bool {
    match probe {
        Probe::Program(name) => process::on_path(name),
        Probe::File(path) => Path::new(path).exists(),
    }
}
