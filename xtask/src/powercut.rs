//! `cargo xtask powercut`: replays the writes of disk images to every point at which power could fail, and has QEMU's
//! own check look at some of what is left. The model is `isomer_devices::backend::powercut`.

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use isomer_devices::backend::{
    ImageFormat,
    powercut::{History, Replayed, replay, run_full},
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command as Program,
    time::Instant,
};

#[derive(Args)]
pub(crate) struct Command {
    /// Cuts to look at, for each format
    #[arg(long, default_value_t = 10_000)]
    points: u64,
    /// Where the random histories start
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Let `qemu-img check` see every Nth of them, if it is installed; 0: none
    #[arg(long, default_value_t = 50, value_name = "N")]
    qemu_every: u64,
}

/// Formats, cluster sizes as powers of two, and whether there is an image below.
const SHAPES: [(ImageFormat, u32, bool); 6] = [
    (ImageFormat::Raw, 0, false),
    (ImageFormat::Qcow2, 9, false),
    (ImageFormat::Qcow2, 9, true),
    (ImageFormat::Qcow2, 12, true),
    (ImageFormat::Qcow2, 16, false),
    (ImageFormat::Qcow2, 16, true),
];

pub(crate) fn run(command: &Command) -> Result<()> {
    ensure!(command.points > 0, "give a number of points");
    let qemu = Program::new("qemu-img").arg("--version").output().is_ok();
    if !qemu {
        println!("qemu-img is not installed: Isomer's own check alone looks at the images");
    }
    let scratch = std::env::temp_dir().join(format!("isomer-powercut-{}.qcow2", std::process::id()));
    for format in [ImageFormat::Raw, ImageFormat::Qcow2] {
        let start = Instant::now();
        let shapes: Vec<_> = SHAPES.iter().filter(|shape| shape.0 == format).collect();
        let (mut total, mut full, mut shown) = (Replayed::default(), 0, 0);
        let mut seed = command.seed;
        while total.points < command.points {
            for (format, cluster_bits, backing) in shapes.iter().copied() {
                let history = History {
                    format: *format,
                    cluster_bits: *cluster_bits,
                    backing: *backing,
                    seed,
                    operations: 60,
                };
                let mut point = 0;
                let mut inspect = |image: &[u8]| {
                    point += 1;
                    let wanted = qemu && *format == ImageFormat::Qcow2 && command.qemu_every > 0;
                    if !wanted || point % command.qemu_every != 0 {
                        return Ok(());
                    }
                    shown += 1;
                    qemu_finds_no_corruption(image, &scratch).map_err(|e| format!("{e:#}"))
                };
                let replayed = replay(&history, 2, &mut inspect)?;
                total.points += replayed.points;
                total.leaking += replayed.leaking;
                full += run_full(&history, 40)?;
                seed += 1;
            }
        }
        println!(
            "{format}: {} cuts, nothing flushed is lost, no corruption; {} leaked clusters and were repaired; \
             {shown} seen by qemu-img; {full} histories on a full host ({:.0} s)",
            total.points,
            total.leaking,
            start.elapsed().as_secs_f64()
        );
    }
    let _ = fs::remove_file(&scratch);
    Ok(())
}

/// Exit code 3 of `qemu-img check` is leaks alone.
fn qemu_finds_no_corruption(image: &[u8], scratch: &PathBuf) -> Result<()> {
    fs::write(scratch, image).with_context(|| format!("cannot write {}", scratch.display()))?;
    let output = Program::new("qemu-img").args(["check", "-f", "qcow2"]).arg(Path::new(scratch)).output()?;
    if !matches!(output.status.code(), Some(0 | 3)) {
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        bail!("qemu-img check of {}: {out}{err}", scratch.display());
    }
    Ok(())
}
