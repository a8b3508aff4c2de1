//! `cargo xtask disk`: Debian's stock kernel with its root on each kind of disk, raw and qcow2, and a disc in the drive.
//!
//! The first boot writes, trims and reads back; the second, a machine of its own, finds what the first left. Afterwards
//! the image has to be sound.

pub(crate) mod files;

use anyhow::{Context, Result, ensure};
use clap::Args;
use isomer_devices::backend::{Image, ImageFormat, ImageOptions, image_tools};
use serde::Deserialize;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command as Program,
    time::{Duration, Instant},
};

use self::files::Files;
use crate::process;

/// The guest's first and last words.
const START_MARK: &str = "disk test has started";
const END_MARK: &str = "disk test is done";
/// Beyond the time limit that isomer keeps by itself.
const GRACE: Duration = Duration::from_secs(30);
/// Buses, and what Linux calls the first disk on each.
const BUSES: [(&str, &str); 3] = [("virtio", "vda"), ("nvme", "nvme0n1"), ("scsi", "sda")];

#[derive(Args)]
pub(crate) struct Command {
    /// Only this bus: virtio, nvme or scsi
    #[arg(long)]
    bus: Option<String>,
    /// Number of processors
    #[arg(long, default_value_t = 2)]
    cpus: u32,
    /// Seconds before the guest counts as hung
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    limit_s: u64,
    /// The isomer to test [default: the release binary, built from the working tree]
    #[arg(long, value_name = "FILE")]
    isomer: Option<PathBuf>,
    /// Download the newest packages again
    #[arg(long)]
    refresh: bool,
    /// Debian archive to download from [default: the one in the system's apt sources]
    #[arg(long, value_name = "URI")]
    mirror: Option<String>,
}

/// The part of isomer's JSON report that the test is judged by.
#[derive(Deserialize)]
struct Report {
    outcome: String,
    console: String,
}

/// # Errors
/// When a guest does not finish, or one of its checks fails.
pub(crate) fn run(command: &Command) -> Result<()> {
    let isomer = crate::isomer(command.isomer.as_deref())?;
    let work = crate::target_dir()?.join("disk");
    let files = Files::prepare(&work, command.mirror.as_deref(), command.refresh)?;
    let buses = BUSES.iter().filter(|(bus, _)| command.bus.as_deref().is_none_or(|only| only == *bus));
    let mut boots = 0;
    for (bus, device) in buses {
        for format in [ImageFormat::Raw, ImageFormat::Qcow2] {
            let image = work.join(format!("{bus}.{format}"));
            let _ = fs::remove_file(&image);
            let options =
                ImageOptions { format: Some(ImageFormat::Raw), read_only: true, ..ImageOptions::default() };
            let root = Image::open(&files.root, &options)?;
            image_tools::convert(&root, &image, format, &mut |_| ())?;
            for round in ["first", "second"] {
                let start = Instant::now();
                let disk = format!("{},format={format},bus={bus}", image.display());
                let report = boot(&isomer, command, &files, &disk, device, round)?;
                let console = work.join(format!("{bus}-{format}-{round}.txt"));
                fs::write(&console, &report.console)?;
                let passed = judge(&report)
                    .with_context(|| format!("{bus}/{format}/{round}: {}", console.display()))?;
                boots += 1;
                println!(
                    "ok    {bus}/{format}/{round:<7} {passed} checks, {:.1} s",
                    start.elapsed().as_secs_f64()
                );
            }
            let found = image_tools::check(&image, Some(format), false, &mut |_| ())?;
            ensure!(found.corruptions + found.leaks == 0, "{}: {:?}", image.display(), found.problems);
        }
    }
    ensure!(boots > 0, "there is no such bus");
    println!("disk: {boots} boots passed");
    Ok(())
}

fn boot(
    isomer: &Path,
    command: &Command,
    files: &Files,
    disk: &str,
    device: &str,
    round: &str,
) -> Result<Report> {
    let mut program = Program::new(isomer);
    program.args(["run", "--no-reboot", "--format", "json", "--memory", "512M"]);
    program.args(["--timeout", &format!("{}s", command.limit_s), "--cpus", &command.cpus.to_string()]);
    program.arg("--kernel").arg(&files.kernel).arg("--initrd").arg(&files.initramfs);
    program.args(["--append", &format!("console=ttyS0 quiet cdrom disk={device} round={round}")]);
    program.args(["--disk", disk]).arg("--cdrom").arg(&files.root);
    let output = process::output_within(&mut program, Duration::from_secs(command.limit_s) + GRACE)?;
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("no report: {}", String::from_utf8_lossy(&output.stderr)))
}

/// The number of checks that passed, if all did.
fn judge(report: &Report) -> Result<usize> {
    let lines = || report.console.lines().map(str::trim_end);
    let has = |mark: &str| lines().any(|line| line == mark);
    ensure!(has(START_MARK), "the guest did not reach the init on its root");
    let failed: Vec<_> = lines().filter(|line| line.starts_with("FAIL ")).collect();
    ensure!(failed.is_empty(), "{} checks failed: {}", failed.len(), failed.join(", "));
    ensure!(has(END_MARK) && report.outcome == "power_off", "the guest ended with {}", report.outcome);
    Ok(lines().filter(|line| line.starts_with("ok ")).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_judged_by_its_checks_and_its_end() {
        let report =
            |console: &str, outcome: &str| Report { outcome: outcome.into(), console: console.into() };
        let good = format!("{START_MARK}\r\nok a\r\nok b\r\n{END_MARK}\r\n");
        assert_eq!(judge(&report(&good, "power_off")).unwrap(), 2);
        assert!(judge(&report(&good, "timed_out")).is_err());
        assert!(judge(&report(&good.replace("ok b", "FAIL b"), "power_off")).is_err());
        assert!(judge(&report(&good.replace(START_MARK, ""), "power_off")).is_err());
    }

    #[test]
    fn the_scripts_print_what_a_run_is_judged_by() -> Result<()> {
        let script = fs::read_to_string(crate::repository_root().join("tests/disk/root-init"))?;
        assert!(
            script.contains(&format!("echo \"{START_MARK}\""))
                && script.contains(&format!("echo \"{END_MARK}\""))
        );
        Ok(())
    }
}
