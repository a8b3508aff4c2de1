//! `cargo xtask bench net`: the network card and the NAT beside QEMU's virtio-net and its user networking. The same
//! guest talks to the same servers on this host's loopback through either.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::document::{self, Spread};
use super::machine::Running;
use super::{LIMIT_S, Places, host};
use crate::net::guest::Guest;
use crate::net::servers::Servers;
use crate::net::{READY, STATUS};
use crate::process;

/// How long a row may take.
const ROW_LIMIT: Duration = Duration::from_secs(600);
/// Guest RAM of every machine.
const MEMORY_MIB: u32 = 512;

#[derive(Args)]
pub(super) struct Options {
    /// How often each row runs on each machine
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// MiB that are downloaded, and that are uploaded
    #[arg(long, default_value_t = 256, value_name = "MIB")]
    mib: u64,
    /// Connections at once
    #[arg(long, default_value_t = 500, value_name = "N")]
    connections: u32,
    /// Questions to the name server
    #[arg(long, default_value_t = 5000, value_name = "N")]
    questions: u32,
    /// Isomer's engines
    #[arg(long, value_delimiter = ',', default_value = "interp,jit", value_name = "ENGINE")]
    engine: Vec<String>,
    /// Put the table into BENCHMARKS.md
    #[arg(long)]
    write: bool,
}

/// One thing that is measured.
struct Row {
    name: &'static str,
    /// What the guest runs.
    line: String,
    /// How much it moves, and in which unit.
    amount: f64,
    unit: &'static str,
}

/// What a row took.
#[derive(Clone, Copy)]
struct Sample {
    cpu: Duration,
    wall: Duration,
}

pub(super) fn run(options: &Options, places: &Places) -> Result<()> {
    let load_before = host::load();
    let program = compile(places)?;
    let work = crate::target_dir()?.join("net");
    fs::create_dir_all(&work).with_context(|| format!("cannot create {}", work.display()))?;
    let guest = Guest::prepare(&work, None, false, &[("netload", &program)])?;
    let servers = Servers::start()?;
    let rows = rows(options, &servers);
    let names: Vec<&str> = std::iter::once("QEMU").chain(options.engine.iter().map(String::as_str)).collect();
    // samples[row][machine]
    let mut samples: Vec<Vec<Vec<Sample>>> = vec![vec![Vec::new(); names.len()]; rows.len()];
    for round in 0..options.runs as usize {
        for step in 0..names.len() {
            // Another one goes first in each round.
            let index = (step + round) % names.len();
            let mut machine = boot(names[index], places, &guest)?;
            for (row, samples) in rows.iter().zip(&mut samples) {
                let sample = measure(&mut machine, row)
                    .with_context(|| format!("{} on {}", row.name, names[index]))?;
                println!(
                    "{:<24} {:<8} {:>8.2} s CPU {:>8.2} s",
                    row.name,
                    names[index],
                    sample.cpu.as_secs_f64(),
                    sample.wall.as_secs_f64()
                );
                samples[index].push(sample);
            }
            machine.stop()?;
        }
    }
    let mut facts = vec![document::command_line()];
    facts.extend(host::describe(places)?);
    facts.push(format!("load average of 1 and 5 minutes before: {load_before}; after: {}", host::load()));
    let text = format!("\n{}\n{}\n", table(&names, &rows, &samples), document::note(&facts));
    println!("{text}");
    if options.write {
        document::write(&places.section("net"), &text)?;
    }
    Ok(())
}

fn compile(places: &Places) -> Result<PathBuf> {
    let binary = places.work.join("netload");
    let source = crate::repository_root().join("benches/net/netload.c");
    let mut compiler = Command::new(places.platform.compiler);
    process::run(
        compiler.args(["-O2", "-static", "-Wall", "-Wextra", "-Werror", "-o"]).arg(&binary).arg(source),
    )?;
    Ok(binary)
}

fn rows(options: &Options, servers: &Servers) -> Vec<Row> {
    let bytes = options.mib << 20;
    let (http, sink) = (servers.http.port(), servers.sink.port());
    let row = |name, line, amount: f64, unit| Row { name, line, amount, unit };
    let load = |mode: &str, port: u16, amount: u64| format!("netload {mode} 10.0.2.2 {port} {amount}");
    let mib = options.mib as f64;
    vec![
        row("wget", format!("wget -q -O /dev/null http://10.0.2.2:{http}/{bytes} && echo ok"), mib, "MiB"),
        row("download", load("download", http, bytes), mib, "MiB"),
        row("upload", load("upload", sink, bytes), mib, "MiB"),
        row(
            "connections",
            load("connections", http, options.connections.into()),
            options.connections.into(),
            "",
        ),
        row("dns", load("dns", servers.dns.port(), options.questions.into()), options.questions.into(), ""),
    ]
}

fn boot(name: &str, places: &Places, guest: &Guest) -> Result<Running> {
    let memory = MEMORY_MIB.to_string();
    let mut command;
    let dash = match name {
        "QEMU" => {
            command = Command::new(places.platform.qemu);
            command.args(places.platform.qemu_machine).args(places.qemu_cpu_options()).args([
                "-smp",
                "1",
                "-m",
                &memory,
                "-nographic",
            ]);
            command.args(["-netdev", "user,id=n", "-device", "virtio-net-pci,netdev=n", "-no-reboot"]);
            "-"
        }
        engine => {
            command = Command::new(&places.isomer);
            command.args(["run", "--arch", places.platform.arch, "--memory", &format!("{memory}M")]);
            command.args(["--engine", engine, "--no-reboot", "--quiet"]);
            "--"
        }
    };
    command.arg(format!("{dash}kernel")).arg(&guest.kernel);
    command.arg(format!("{dash}initrd")).arg(&guest.initrd);
    command.args([&format!("{dash}append"), &format!("{} quiet", places.platform.append())]);
    let mut machine = Running::start(command, Duration::from_secs(LIMIT_S))?;
    machine.wait_for(READY)?;
    machine.type_line("ip link set lo up; udhcpc -q -n -t 10 -i eth0 -s /etc/udhcpc", ROW_LIMIT)?;
    machine.wait_for("net: lease ")?;
    machine.wait_for(STATUS)?;
    Ok(machine)
}

/// From the command's start to its last line.
fn measure(machine: &mut Running, row: &Row) -> Result<Sample> {
    let before = host::cpu_time(machine.pid())?;
    let start = Instant::now();
    machine.type_line(&row.line, ROW_LIMIT)?;
    machine.wait_for("ok")?;
    let cpu = machine.wait_for(STATUS)?;
    let wall = start.elapsed();
    let status = machine.rest_of_line()?;
    ensure!(status == "0", "`{}` exited with {status}", row.line);
    Ok(Sample { cpu: cpu.saturating_sub(before), wall })
}

fn table(names: &[&str], rows: &[Row], samples: &[Vec<Vec<Sample>>]) -> String {
    let mut header = vec!["what".to_owned(), "how much".to_owned()];
    for name in names {
        header.push(format!("{name}: CPU s"));
        header.push("a second".to_owned());
        if *name != names[0] {
            header.push("ratio of CPU".to_owned());
        }
    }
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    let spread = |samples: &[Sample], get: fn(&Sample) -> Duration| {
        Spread::of(samples.iter().map(|sample| get(sample).as_secs_f64()))
    };
    let lines = rows.iter().zip(samples).map(|(row, samples)| {
        let mut cells =
            vec![row.name.to_owned(), format!("{} {}", row.amount, row.unit).trim_end().to_owned()];
        let reference = spread(&samples[0], |sample| sample.cpu);
        for (index, samples) in samples.iter().enumerate() {
            let (cpu, wall) = (spread(samples, |sample| sample.cpu), spread(samples, |sample| sample.wall));
            cells.push(cpu.map_or_else(String::new, |cpu| format!("{cpu:.2}")));
            cells.push(
                wall.map_or_else(String::new, |wall| format!("{:.0} {}", row.amount / wall.median, row.unit)),
            );
            if index != 0 {
                let ratio = reference.zip(cpu).map(|(qemu, own)| qemu.median / own.median.max(0.01));
                cells.push(ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}")));
            }
        }
        cells
    });
    document::table(1, &header, &lines.collect::<Vec<_>>())
}
