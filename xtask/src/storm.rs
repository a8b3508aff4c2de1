//! `cargo xtask storm`: threads at once on one disk image, each with a model of its part. The test is
//! `isomer_devices::backend::storm`.

use anyhow::{Context, Result, ensure};
use clap::Args;
use isomer_devices::backend::{
    ImageFormat,
    storm::{self, Storm},
};
use std::{fs, time::Instant};

#[derive(Args)]
pub(crate) struct Command {
    /// Operations for each format
    #[arg(long, default_value_t = 10_000_000)]
    operations: u64,
    /// Threads
    #[arg(long, default_value_t = 4)]
    threads: u64,
    /// What happens
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub(crate) fn run(command: &Command) -> Result<()> {
    ensure!((1..=64).contains(&command.threads), "use 1 to 64 threads");
    let path = std::env::temp_dir().join(format!("isomer-storm-{}.img", std::process::id()));
    for format in [ImageFormat::Raw, ImageFormat::Qcow2] {
        let start = Instant::now();
        let storm =
            Storm { format, threads: command.threads, operations: command.operations, seed: command.seed };
        let result = storm::run(&storm, &path);
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        result?;
        println!(
            "{format}: {} operations of {} threads agree with the model ({:.0} s)",
            command.operations,
            command.threads,
            start.elapsed().as_secs_f64()
        );
    }
    Ok(())
}
