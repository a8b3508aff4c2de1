//! `cargo xtask bench`: guest programs and boots on Isomer beside QEMU's TCG, in one run, in host CPU time.
//!
//! Both machines get the same kernel, initial RAM disk and command line. The clock is the CPU time of the emulator's
//! whole process, read when a marker line arrives on its standard output: start-up and boot stand outside, and what
//! else the host does matters little. Rounds interleave the machines. `--write` puts the tables into BENCHMARKS.md.

mod document;
mod footprint;
mod guest;
mod host;
mod machine;
mod speed;

use std::path::PathBuf;
use std::process::Command as Program;

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand};

use crate::process;
use crate::tools::{self, Tool};

/// Seconds before a run counts as hung.
const LIMIT_S: u64 = 600;

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Command {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    speed: speed::Options,
}

#[derive(Subcommand)]
enum What {
    /// Memory beyond guest RAM, and the time to a guest's first instruction
    Footprint(footprint::Options),
}

/// # Errors
/// When a machine does not run a row to its end, or two machines compute different results.
pub(crate) fn run(command: &Command) -> Result<()> {
    let work = crate::target_dir()?.join("bench");
    std::fs::create_dir_all(&work).with_context(|| format!("cannot create {}", work.display()))?;
    require_qemu()?;
    crate::build_release()?;
    let isomer = crate::target_dir()?.join("release/isomer");
    let places = Places { work, isomer };
    match &command.what {
        None => speed::run(&command.speed, &places),
        Some(What::Footprint(options)) => footprint::run(options, &places),
    }
}

/// Where benchmarks read and write.
struct Places {
    /// `target/bench`: everything that is made for a run.
    work: PathBuf,
    /// The release binary.
    isomer: PathBuf,
}

/// Makes sure that QEMU's system emulator is there. Debian 12 has version 10 among its backports only, and apt takes
/// packages from there, dependencies too, only when told so.
fn require_qemu() -> Result<()> {
    const PURPOSE: &str = "cargo xtask bench";
    let qemu = Tool::program(machine::QEMU, "qemu-system-misc");
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let is_bookworm = release.lines().any(|line| line == "VERSION_CODENAME=bookworm");
    if process::on_path(machine::QEMU) || !is_bookworm {
        return tools::require(PURPOSE, [&qemu]);
    }
    let install =
        ["install", "--yes", "--no-install-recommends", "-t", "bookworm-backports", "qemu-system-misc"];
    let is_root = process::capture(Program::new("id").arg("-u"))? == "0";
    ensure!(
        is_root,
        "{PURPOSE} needs QEMU 10: add bookworm-backports to apt's sources, then: sudo apt-get {}",
        install.join(" ")
    );
    let apt_get = || {
        let mut command = Program::new("apt-get");
        command.args(["-q", "-o", "DPkg::Lock::Timeout=600"]).env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    process::run(apt_get().arg("update"))?;
    process::run(apt_get().args(install)).context("is bookworm-backports among apt's sources?")
}
