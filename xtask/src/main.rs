//! `cargo xtask`: the repository's chores. One module a subcommand, one variant in [`Task`] for each.

mod guest;
mod process;
mod suites;

use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Chores of the Isomer repository", disable_version_flag = true)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build and verify the embedded Linux guest images
    #[command(subcommand)]
    Guest(guest::Command),
    /// Run public conformance suites on every engine
    Suites(suites::Command),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().task {
        Task::Guest(command) => guest::run(command),
        Task::Suites(command) => suites::run(command),
    }
}

/// The root of the working tree, absolute.
fn repository_root() -> PathBuf {
    let manifest_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest_dir.parent().unwrap_or(manifest_dir).to_path_buf()
}
