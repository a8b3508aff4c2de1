//! `cargo xtask bench`: guest programs and boots on Isomer beside QEMU's TCG, in one run, in host CPU time.
//!
//! Both machines get the same kernel, initial RAM disk and command line. The clock is the CPU time of the emulator's
//! whole process, read when a marker line arrives on its standard output: start-up and boot stand outside, and what
//! else the host does matters little. Rounds interleave the machines. `--write` puts the tables into BENCHMARKS.md.

mod columns;
mod disk;
mod document;
mod footprint;
mod host;
mod image;
pub(crate) mod machine;
mod net;
mod platform;
mod report;
mod rows;
mod session;
mod speed;

use std::path::PathBuf;
use std::process::Command as Program;

use anyhow::{Context, Result, ensure};
use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};

use self::platform::Platform;
use crate::process;
use crate::tools;

/// Seconds before a run counts as hung.
const LIMIT_S: u64 = 600;

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Command {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    speed: speed::Options,
    /// The guest's instruction set
    #[arg(long, global = true, default_value = "riscv64", value_parser = PossibleValuesParser::new(Platform::names()))]
    arch: String,
    /// QEMU's processor model: cortex-a72 or max, say [default: QEMU's own, for aarch64 cortex-a72]
    #[arg(long, global = true, value_name = "MODEL")]
    qemu_cpu: Option<String>,
    /// The isomer to measure [default: the release binary, built from the working tree]
    #[arg(long, global = true, value_name = "FILE")]
    isomer: Option<PathBuf>,
}

#[derive(Subcommand)]
enum What {
    /// Memory beyond guest RAM, and the time to a guest's first instruction
    Footprint(footprint::Options),
    /// Reads and writes of a disk, by fio
    Disk(disk::Options),
    /// Transfers, connections and names through the NAT
    Net(net::Options),
}

/// # Errors
/// When a machine does not run a row to its end, or two machines compute different results.
pub(crate) fn run(command: &Command) -> Result<()> {
    if command.what.is_none() && command.speed.list {
        speed::list();
        return Ok(());
    }
    if command.what.is_none() {
        // Before a build that takes minutes.
        command.speed.check()?;
    }
    let platform = Platform::named(&command.arch)?;
    require_qemu(platform)?;
    let isomer = crate::isomer(command.isomer.as_deref())?;
    let work = crate::target_dir()?.join("bench").join(platform.arch);
    std::fs::create_dir_all(&work).with_context(|| format!("cannot create {}", work.display()))?;
    let qemu_cpu = command.qemu_cpu.clone();
    let places = Places { work, isomer, built: command.isomer.is_none(), qemu_cpu, platform };
    match &command.what {
        None => speed::run(&command.speed, &places),
        Some(What::Footprint(options)) => footprint::run(options, &places),
        Some(What::Disk(options)) => disk::run(options, &places),
        Some(What::Net(options)) => net::run(options, &places),
    }
}

/// Where benchmarks read and write, and for which guests.
struct Places {
    /// `target/bench/ARCH`: everything that is made for a run.
    work: PathBuf,
    isomer: PathBuf,
    /// Whether that binary was built from the working tree just now.
    built: bool,
    /// In place of the platform's.
    qemu_cpu: Option<String>,
    platform: &'static Platform,
}

impl Places {
    /// What tells QEMU which processor to be.
    fn qemu_cpu_options(&self) -> Vec<String> {
        let model = self.qemu_cpu.as_deref().or(self.platform.qemu_cpu);
        model.into_iter().flat_map(|model| ["-cpu".to_owned(), model.to_owned()]).collect()
    }

    /// The section of BENCHMARKS.md for a table of this name: each instruction set but the first has its own.
    fn section(&self, name: &str) -> String {
        match self.platform.arch {
            "riscv64" => name.to_owned(),
            arch => format!("{name} {arch}"),
        }
    }

    /// The folder of a code cache: what for, and in which state.
    fn cache(&self, purpose: &str, state: &str) -> PathBuf {
        self.work.join("cache").join(purpose).join(state)
    }
}

/// Makes sure that QEMU's system emulator is there. Debian 12 has version 10 among its backports only, and apt takes
/// packages from there, dependencies too, only when told so.
fn require_qemu(platform: &Platform) -> Result<()> {
    const PURPOSE: &str = "cargo xtask bench";
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let is_bookworm = release.lines().any(|line| line == "VERSION_CODENAME=bookworm");
    if process::on_path(platform.qemu) || !is_bookworm {
        return tools::require(PURPOSE, [&platform.qemu_tool]);
    }
    let install = [
        "install",
        "--yes",
        "--no-install-recommends",
        "-t",
        "bookworm-backports",
        platform.qemu_tool.package(),
    ];
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
