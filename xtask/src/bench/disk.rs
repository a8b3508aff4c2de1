//! `cargo xtask bench disk`: Debian's fio on Isomer's disks beside QEMU's virtio-blk, in the same guest, with the host's
//! cache in between and past the guest's.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use isomer_devices::backend::{Image, ImageFormat};

use super::document::{self, Spread};
use super::machine::Running;
use super::{LIMIT_S, Places, host};
use crate::disk::files::{Files, fio_root};

/// What the guest prints when it takes commands, and when one has ended.
const READY: &str = "bench: ready";
const STATUS: &str = "bench: status ";
/// How long a row may take.
const ROW_LIMIT: Duration = Duration::from_secs(300);
/// Guest RAM of every machine.
const MEMORY_MIB: u32 = 512;
/// The measured disk's length.
const DISK_BYTES: u64 = 1 << 30;

#[derive(Args)]
pub(super) struct Options {
    /// How often each row runs on each machine
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Isomer's engine
    #[arg(long, default_value = "jit", value_name = "ENGINE")]
    engine: String,
    /// Formats of the disk
    #[arg(long, value_delimiter = ',', default_value = "raw,qcow2", value_name = "FORMAT")]
    format: Vec<ImageFormat>,
    /// How Isomer attaches it; QEMU's is virtio-blk
    #[arg(long, value_delimiter = ',', default_value = "virtio,nvme,scsi", value_name = "BUS")]
    bus: Vec<String>,
    /// Put the table into BENCHMARKS.md
    #[arg(long)]
    write: bool,
}

/// One thing that is measured.
struct Row {
    name: &'static str,
    /// Of fio, besides what all have.
    options: &'static str,
    /// It writes: the figures are in other fields.
    writes: bool,
    /// Requests count, or MiB.
    unit: &'static str,
}

const ROWS: [Row; 5] = [
    Row {
        name: "random reads, 4 KiB, 16 deep",
        options: "--rw=randread --bs=4k --iodepth=16 --io_size=64m",
        writes: false,
        unit: "IOPS",
    },
    Row {
        name: "random writes, 4 KiB, 16 deep",
        options: "--rw=randwrite --bs=4k --iodepth=16 --io_size=64m",
        writes: true,
        unit: "IOPS",
    },
    Row {
        name: "random writes, 4 KiB, each flushed",
        options: "--rw=randwrite --bs=4k --iodepth=1 --io_size=4m --fsync=1",
        writes: true,
        unit: "IOPS",
    },
    Row {
        name: "sequential reads, 1 MiB",
        options: "--rw=read --bs=1m --iodepth=4 --io_size=1g",
        writes: false,
        unit: "MiB/s",
    },
    Row {
        name: "sequential writes, 1 MiB",
        options: "--rw=write --bs=1m --iodepth=4 --io_size=1g --end_fsync=1",
        writes: true,
        unit: "MiB/s",
    },
];

/// A machine and its disk.
struct Kind {
    /// `None`: QEMU.
    bus: Option<String>,
    format: ImageFormat,
}

impl Kind {
    fn name(&self) -> String {
        match &self.bus {
            None => format!("QEMU {}", self.format),
            Some(bus) => format!("{bus} {}", self.format),
        }
    }

    /// The measured disk as the guest knows it: the second of virtio, or the first of its bus.
    fn device(&self) -> &'static str {
        match self.bus.as_deref() {
            Some("nvme") => "nvme0n1",
            Some("scsi") => "sda",
            _ => "vdb",
        }
    }
}

/// What a row came to.
#[derive(Clone, Copy)]
struct Sample {
    rate: f64,
    cpu: f64,
}

pub(super) fn run(options: &Options, places: &Places) -> Result<()> {
    let load_before = host::load();
    let work = crate::target_dir()?.join("disk");
    fs::create_dir_all(&work).with_context(|| format!("cannot create {}", work.display()))?;
    let files = Files::prepare(&work, None, false)?;
    let root = fio_root(&work)?;
    let mut kinds = Vec::new();
    for format in &options.format {
        kinds.push(Kind { bus: None, format: *format });
        kinds.extend(options.bus.iter().map(|bus| Kind { bus: Some(bus.clone()), format: *format }));
    }
    // samples[row][kind]
    let mut samples: Vec<Vec<Vec<Sample>>> = vec![vec![Vec::new(); kinds.len()]; ROWS.len()];
    for round in 0..options.runs as usize {
        for step in 0..kinds.len() {
            // Another one goes first in each round.
            let index = (step + round) % kinds.len();
            let kind = &kinds[index];
            let disk = work.join(format!("bench.{}", kind.format));
            let _ = fs::remove_file(&disk);
            Image::create(&disk, kind.format, DISK_BYTES, None)?;
            let mut machine = boot(kind, options, places, &files, &root, &disk)?;
            // Everything has its place on the disk: what is measured is not the allocation.
            let fill =
                format!("dd if=/dev/zero of=/dev/{} bs=1M conv=fsync 2> /dev/null; true", kind.device());
            machine.type_line(&fill, ROW_LIMIT)?;
            machine.wait_for(STATUS)?;
            for (row, samples) in ROWS.iter().zip(&mut samples) {
                let sample = measure(&mut machine, row, kind)
                    .with_context(|| format!("{} on {}", row.name, kind.name()))?;
                println!(
                    "{:<36} {:<14} {:>9.0} {:<6} {:>7.2} s CPU",
                    row.name,
                    kind.name(),
                    sample.rate,
                    row.unit,
                    sample.cpu
                );
                samples[index].push(sample);
            }
            machine.stop()?;
        }
    }
    let mut facts = vec![document::command_line()];
    facts.extend(host::describe(places)?);
    facts.push(format!("load average of 1 and 5 minutes before: {load_before}; after: {}", host::load()));
    let text = format!("\n{}\n{}\n", table(&kinds, &samples), document::note(&facts));
    println!("{text}");
    if options.write {
        document::write(&places.section("disk"), &text)?;
    }
    Ok(())
}

fn boot(
    kind: &Kind,
    options: &Options,
    places: &Places,
    files: &Files,
    root: &Path,
    disk: &Path,
) -> Result<Running> {
    let memory = MEMORY_MIB.to_string();
    let (root, disk) = (root.display(), disk.display());
    let mut command;
    let dash = match &kind.bus {
        None => {
            command = Command::new(places.platform.qemu);
            command.args(places.platform.qemu_machine).args(places.qemu_cpu_options()).args([
                "-smp",
                "1",
                "-m",
                &memory,
                "-nographic",
            ]);
            for (id, file, format, snapshot) in [
                ("root", root.to_string(), ImageFormat::Raw, "on"),
                ("disk", disk.to_string(), kind.format, "off"),
            ] {
                let drive = format!(
                    "file={file},format={format},if=none,id={id},cache=writeback,snapshot={snapshot}"
                );
                command.args(["-drive", &drive, "-device", &format!("virtio-blk-pci,drive={id}")]);
            }
            command.arg("-no-reboot");
            "-"
        }
        Some(bus) => {
            command = Command::new(&places.isomer);
            command.args(["run", "--arch", places.platform.arch, "--memory", &format!("{memory}M")]);
            command.args(["--engine", &options.engine, "--no-reboot", "--quiet"]);
            command.args(["--disk", &format!("{root},format=raw,ephemeral")]);
            command.args(["--disk", &format!("{disk},format={},bus={bus}", kind.format)]);
            "--"
        }
    };
    command.arg(format!("{dash}kernel")).arg(&files.kernel);
    command.arg(format!("{dash}initrd")).arg(&files.initramfs);
    command.args([&format!("{dash}append"), &format!("{} quiet disk=vda", places.platform.append())]);
    let mut machine = Running::start(command, Duration::from_secs(LIMIT_S))?;
    machine.wait_for(READY)?;
    Ok(machine)
}

/// fio's own rate, and the CPU time from its start to its end.
fn measure(machine: &mut Running, row: &Row, kind: &Kind) -> Result<Sample> {
    let before = host::cpu_time(machine.pid())?;
    // fio(1), TERSE OUTPUT, version 3: bandwidth in KiB a second, and requests a second.
    let (bandwidth, requests) = if row.writes { (48, 49) } else { (7, 8) };
    let field = if row.unit == "IOPS" { requests } else { bandwidth };
    let line = format!(
        "fio --name=b --filename=/dev/{} --direct=1 --ioengine=libaio --output-format=terse --terse-version=3 {} \
         | sed 's/^/rate;/' | cut -d';' -f1,6,{}",
        kind.device(),
        row.options,
        field + 1
    );
    machine.type_line(&line, ROW_LIMIT)?;
    machine.wait_for("rate;")?;
    let answer = machine.rest_of_line()?;
    let cpu = machine.wait_for(STATUS)?;
    let (errors, rate) = answer.split_once(';').with_context(|| format!("fio says {answer:?}"))?;
    ensure!(errors == "0", "fio ended with error {errors}");
    let rate: f64 = rate.parse().with_context(|| format!("fio says {answer:?}"))?;
    let rate = if row.unit == "IOPS" { rate } else { rate / 1024.0 };
    Ok(Sample { rate, cpu: cpu.saturating_sub(before).as_secs_f64() })
}

fn table(kinds: &[Kind], samples: &[Vec<Vec<Sample>>]) -> String {
    let mut header = vec!["what".to_owned(), "unit".to_owned()];
    for kind in kinds {
        header.extend([kind.name(), "CPU s".to_owned()]);
    }
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    let cell = |samples: &[Sample], get: fn(&Sample) -> f64, digits: usize| {
        Spread::of(samples.iter().map(get))
            .map_or_else(String::new, |spread| format!("{:.digits$}", spread.median))
    };
    let lines = ROWS.iter().zip(samples).map(|(row, samples)| {
        let mut cells = vec![row.name.to_owned(), row.unit.to_owned()];
        for samples in samples {
            cells.push(cell(samples, |sample| sample.rate, 0));
            cells.push(cell(samples, |sample| sample.cpu, 2));
        }
        cells
    });
    document::table(2, &header, &lines.collect::<Vec<_>>())
}
