//! `cargo xtask kill-disk`: kills isomer at random instants while the embedded guest writes to an ext4 file system, and
//! looks whether everything is there that the guest was told is.
//!
//! The guest writes numbered files, calls `sync`, and only then says so on its console; another process of its keeps
//! the disk busy. After each kill the image has to be sound, the file system has to pass e2fsck once its journal is
//! replayed, and the files have to be there; the next round goes on with the same image.

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use isomer_devices::backend::{
    BlockBackend, Image, ImageFormat, ImageOptions, image_tools, powercut::Random,
};
use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command as Program, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::tools::Tool;
use crate::{process, tools};

/// The disk's length.
const DISK_BYTES: u64 = 256 << 20;
/// Files that are written in turn.
const FILES: u64 = 50;
/// Kills come this long after the first file, at most.
const LONGEST_MS: u64 = 1500;
/// Longer than any boot.
const BOOT_LIMIT: Duration = Duration::from_secs(120);
const TOOLS: [Tool; 3] = [
    Tool::program("mke2fs", "e2fsprogs"),
    Tool::program("e2fsck", "e2fsprogs"),
    Tool::program("debugfs", "e2fsprogs"),
];

#[derive(Args)]
pub(crate) struct Command {
    /// Kills, for each format
    #[arg(long, default_value_t = 200)]
    kills: u64,
    /// Chooses the instants
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How the disk is attached: virtio
    #[arg(long, default_value = "virtio")]
    bus: String,
    /// The isomer to test [default: the release binary, built from the working tree]
    #[arg(long, value_name = "FILE")]
    isomer: Option<PathBuf>,
}

pub(crate) fn run(command: &Command) -> Result<()> {
    tools::require("looking at file systems", &TOOLS)?;
    let isomer = crate::isomer(command.isomer.as_deref())?;
    let work = crate::target_dir()?.join("kill-disk");
    fs::create_dir_all(&work)?;
    for format in [ImageFormat::Raw, ImageFormat::Qcow2] {
        let start = Instant::now();
        let mut test = Test::prepare(&isomer, &work, format, &command.bus)?;
        let mut random = Random::new(command.seed);
        for kill in 1..=command.kills {
            let after = Duration::from_millis(random.below(LONGEST_MS));
            test.round(after)
                .with_context(|| format!("{format}, kill {kill}, {after:?} after the first file"))?;
        }
        println!(
            "{format}: {} kills, {} files acknowledged and found, {} leaked clusters repaired ({:.0} s)",
            command.kills,
            test.acknowledged,
            test.leaks,
            start.elapsed().as_secs_f64()
        );
    }
    Ok(())
}

struct Test {
    isomer: PathBuf,
    image: PathBuf,
    flat: PathBuf,
    format: ImageFormat,
    bus: String,
    /// The number of the next file's contents.
    next: u64,
    acknowledged: u64,
    leaks: u64,
}

impl Test {
    /// Makes an image with an empty file system.
    fn prepare(isomer: &Path, work: &Path, format: ImageFormat, bus: &str) -> Result<Self> {
        let test = Self {
            isomer: isomer.into(),
            image: work.join(format!("disk.{format}")),
            flat: work.join("flat.img"),
            format,
            bus: bus.into(),
            next: 1,
            acknowledged: 0,
            leaks: 0,
        };
        for old in [&test.image, &test.flat] {
            let _ = fs::remove_file(old);
        }
        Image::create(&test.flat, ImageFormat::Raw, DISK_BYTES, None)?;
        process::run(Program::new("mke2fs").args(["-q", "-F", "-t", "ext4"]).arg(&test.flat))?;
        let options = ImageOptions { format: Some(ImageFormat::Raw), ..ImageOptions::default() };
        let flat = Image::open(&test.flat, &options)?;
        image_tools::convert(&flat, &test.image, format, &mut |_| ())?;
        Ok(test)
    }

    /// What the guest does: `sync` returns when everything is on the disk, so what is said after it is a promise.
    fn script(&self) -> String {
        let device = match self.bus.as_str() {
            "nvme" => "nvme0n1",
            "scsi" => "sda",
            _ => "vda",
        };
        format!(
            "mount -t ext4 /dev/{device} /mnt || exit 1\n\
             (while :; do dd if=/dev/urandom of=/mnt/busy bs=64k count=64 2>/dev/null; rm -f /mnt/busy; done) &\n\
             i={}\n\
             while :; do\n\
               yes \"file $i\" | head -c 20000 > /mnt/f$((i % {FILES})).new\n\
               mv /mnt/f$((i % {FILES})).new /mnt/f$((i % {FILES}))\n\
               sync\n\
               echo done $i\n\
               i=$((i + 1))\n\
             done",
            self.next
        )
    }

    fn round(&mut self, after: Duration) -> Result<()> {
        let mut isomer = Program::new(&self.isomer);
        let disk = format!("{},format={},bus={}", self.image.display(), self.format, self.bus);
        isomer.args(["run", "--quiet", "--cpus", "2", "--memory", "256M", "--disk", &disk]);
        isomer.args(["--", "sh", "-c", &self.script()]);
        isomer.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = isomer.spawn().context("cannot start isomer")?;
        let last = self.kill(child, after)?;
        self.look(last)?;
        self.acknowledged += last + 1 - self.next;
        // The one that was being written may be there or not.
        self.next = last + 2;
        Ok(())
    }

    /// Lets it run until `after` the first file, then kills it; returns the number of the last file it promised.
    fn kill(&self, mut child: Child, after: Duration) -> Result<u64> {
        let stdout = child.stdout.take().context("no standard output")?;
        let errors = process::read_to_end(child.stderr.take().context("no standard error")?);
        let last = AtomicU64::new(self.next - 1);
        let first = Mutex::new(None);
        let result = thread::scope(|scope| {
            scope.spawn(|| {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    if let Some(number) = line.trim().strip_prefix("done ").and_then(|n| n.parse().ok()) {
                        last.store(number, Ordering::Release);
                        if let Ok(mut first) = first.lock() {
                            first.get_or_insert_with(Instant::now);
                        }
                    }
                }
            });
            let start = Instant::now();
            loop {
                if child.try_wait()?.is_some() {
                    break Ok(false);
                }
                let since = first.lock().ok().and_then(|first| *first);
                if since.is_some_and(|first| first.elapsed() >= after) {
                    child.kill()?;
                    child.wait()?;
                    break Ok(true);
                }
                if start.elapsed() > BOOT_LIMIT {
                    child.kill()?;
                    child.wait()?;
                    break Err(anyhow::anyhow!("the guest wrote nothing in {BOOT_LIMIT:?}"));
                }
                thread::sleep(Duration::from_millis(1));
            }
        });
        let errors = errors.join().unwrap_or_default();
        ensure!(result?, "isomer ended by itself: {}", String::from_utf8_lossy(&errors));
        Ok(last.into_inner())
    }

    /// Looks at what the kill left.
    fn look(&mut self, last: u64) -> Result<()> {
        let found = image_tools::check(&self.image, Some(self.format), false, &mut |_| ())?;
        ensure!(found.corruptions == 0, "the image is damaged: {:?}", found.problems);
        self.leaks += found.leaks;
        // Opening for writing repairs, as the next start of a machine does.
        let options = ImageOptions { format: Some(self.format), ..ImageOptions::default() };
        let image = Image::open(&self.image, &options)?;
        let _ = fs::remove_file(&self.flat);
        image_tools::convert(&image, &self.flat, ImageFormat::Raw, &mut |_| ())?;
        ensure!(image.size_bytes() == DISK_BYTES, "the disk has another size");
        drop(image);
        let found = image_tools::check(&self.image, Some(self.format), false, &mut |_| ())?;
        ensure!(found.leaks == 0, "leaks were not repaired: {:?}", found.problems);
        // The journal is replayed first; nothing is left to mend then.
        let _ = Program::new("e2fsck").arg("-fy").arg(&self.flat).output()?;
        let output = Program::new("e2fsck").arg("-fn").arg(&self.flat).output()?;
        ensure!(output.status.success(), "e2fsck: {}", String::from_utf8_lossy(&output.stdout));
        let oldest = last.saturating_sub(FILES - 1).max(1);
        for number in oldest.max(self.next)..=last {
            // The file may have been replaced by the next of its name already.
            let wanted = [number, number + FILES];
            let path = format!("/f{}", number % FILES);
            let output =
                Program::new("debugfs").arg("-R").arg(format!("cat {path}")).arg(&self.flat).output()?;
            let text = String::from_utf8_lossy(&output.stdout);
            let line = text.lines().next().unwrap_or_default();
            let known = wanted.iter().any(|number| line == format!("file {number}"));
            if !known || text.len() != 20_000 {
                bail!("{path} should have file {number}, and has {} bytes: {line:?}", text.len());
            }
        }
        Ok(())
    }
}
