//! `cargo xtask`: the repository's chores. One module a subcommand, one variant in [`Task`] for each.

mod bench;
mod boot;
mod check;
mod debian;
mod disk;
mod fuzz;
mod guest;
mod isa;
mod kill_disk;
mod machines;
mod net;
mod oracle;
mod powercut;
mod process;
mod share;
mod storm;
mod stress;
mod suites;
mod testfloat;
mod tools;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::Context;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Chores of the Isomer repository", disable_version_flag = true)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run everything that has to pass before a change is proposed; what continuous integration runs
    Check(check::Command),
    /// Run the instruction tests of tests/isa on every engine
    Isa(isa::Command),
    /// Boot the embedded guest and Debian's stock kernel
    Boot(boot::Command),
    /// Try the network card and the NAT with Debian's stock kernel
    Net(net::Command),
    /// Run Debian's stock kernel on shared directories, its root among them
    Share(share::Command),
    /// Replay the writes of disk images to every point at which power could fail
    Powercut(powercut::Command),
    /// Run Debian's stock kernel with its root on each kind of disk
    Disk(disk::Command),
    /// Kill isomer while its guest writes, and look at the file system that is left
    KillDisk(kill_disk::Command),
    /// Use disk images from several threads at once, with a model of what they hold
    Storm(storm::Command),
    /// Use a Debian machine as people do: packages, a compiler, a web server, reboots
    Debian(machines::Command),
    /// Compare random instruction streams with QEMU on every engine
    Oracle(oracle::Command),
    /// Measure speed, memory and start-up beside QEMU
    Bench(bench::Command),
    /// List and run the fuzz targets
    #[command(subcommand)]
    Fuzz(fuzz::Command),
    /// Build and verify the embedded Linux guest images
    #[command(subcommand)]
    Guest(guest::Command),
    /// Run public conformance suites on every engine
    Suites(suites::Command),
    /// Compare floating-point instructions with TestFloat's vectors on every engine
    Testfloat(testfloat::Command),
    /// Let four harts write code for one another, on every engine by turns, for an hour
    Stress(stress::Command),
}

fn main() -> ExitCode {
    match run(Cli::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> anyhow::Result<()> {
    match task {
        Task::Check(command) => check::run(&command),
        Task::Isa(command) => isa::run(&command),
        Task::Boot(command) => boot::run(&command),
        Task::Net(command) => net::run(&command),
        Task::Share(command) => share::run(&command),
        Task::Powercut(command) => powercut::run(&command),
        Task::Disk(command) => disk::run(&command),
        Task::KillDisk(command) => kill_disk::run(&command),
        Task::Storm(command) => storm::run(&command),
        Task::Debian(command) => machines::run(&command),
        Task::Oracle(command) => oracle::run(&command),
        Task::Bench(command) => bench::run(&command),
        Task::Fuzz(command) => fuzz::run(command),
        Task::Guest(command) => guest::run(command),
        Task::Suites(command) => suites::run(command),
        Task::Testfloat(command) => testfloat::run(&command),
        Task::Stress(command) => stress::run(&command),
    }
}

/// The root of the working tree, absolute.
fn repository_root() -> PathBuf {
    let manifest_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest_dir.parent().unwrap_or(manifest_dir).to_path_buf()
}

/// Cargo's target directory: this program runs from `TARGET/debug/xtask`, wherever the configuration puts that.
fn target_dir() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe().context("cannot tell where this program is")?;
    let folder = program.parent().and_then(Path::parent);
    folder
        .map(Path::to_path_buf)
        .with_context(|| format!("{} is not in a target directory", program.display()))
}

/// Cargo, the one that started us if one did.
fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(repository_root()).stdin(Stdio::null());
    cargo
}

/// Builds the release binary, `release/isomer` in the target directory.
fn build_release() -> anyhow::Result<()> {
    process::run(cargo().args(["build", "--release", "--package", "isomer"]))
}

/// The program to test: the one that was named, else the release binary, built now.
fn isomer(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    match named {
        Some(named) => Ok(named.to_path_buf()),
        None => {
            build_release()?;
            Ok(target_dir()?.join("release/isomer"))
        }
    }
}
