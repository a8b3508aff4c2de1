//! `cargo xtask bench footprint`: what a machine costs beside its guest. Memory beyond the pages that the guest has
//! touched, host CPU while the guest idles, and the time to a guest's first instruction.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use super::document::{self, Spread};
use super::guest::Embedded;
use super::machine::{Machine, QEMU, Running};
use super::{LIMIT_S, Places, host};

/// How often memory is measured.
const MEMORY_RUNS: usize = 3;
/// What the embedded guest's shell prints.
const PROMPT: &str = "isomer:~# ";
/// How long the guest is left alone before its memory is looked at, its host CPU time on the clock.
const IDLE: Duration = Duration::from_secs(10);

#[derive(Args)]
pub(super) struct Options {
    /// How often a machine is started
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Isomer's engine
    #[arg(long, default_value = "interp")]
    engine: String,
    /// Put the tables into BENCHMARKS.md
    #[arg(long)]
    write: bool,
}

pub(super) fn run(options: &Options, places: &Places) -> Result<()> {
    let load_before = host::load();
    let memory = memory(options, places)?;
    let startup = startup(options, places)?;
    let mut facts = vec![document::command_line()];
    facts.extend(host::describe()?);
    facts.push(format!("load average of 1 and 5 minutes before: {load_before}; after: {}", host::load()));
    for (section, table) in [("footprint", memory), ("start-up", startup)] {
        let text = format!("\n{table}\n{}\n", document::note(&facts));
        println!("{text}");
        if options.write {
            document::write(section, &text)?;
        }
    }
    Ok(())
}

/// Sums over the mappings of a process, in KiB (proc(5), smaps). Pages that are mapped twice count twice in `rss` and
/// once in the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Mappings {
    rss: u64,
    pss: u64,
    /// Of the mappings that are the guest's RAM.
    guest_ram: u64,
    /// Of programs and libraries.
    files: u64,
    /// Of everything else: heap, stacks, code caches.
    anonymous: u64,
}

impl Mappings {
    fn read(pid: u32, guest_ram: &str) -> Result<Self> {
        let path = format!("/proc/{pid}/smaps");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let sums = Self::parse(&text, guest_ram);
        ensure!(sums.guest_ram > 0, "no mapping of process {pid} has {guest_ram:?} in its name");
        Ok(sums)
    }

    fn parse(smaps: &str, guest_ram: &str) -> Self {
        let mut sums = Self::default();
        let mut name = "";
        for line in smaps.lines() {
            let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
            let kib = || rest.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0);
            match first {
                "Rss:" => sums.rss += kib(),
                "Pss:" => {
                    sums.pss += kib();
                    *sums.of(name, guest_ram) += kib();
                }
                // address permissions offset device inode name: only the first line of a mapping has no colon there.
                _ if !first.ends_with(':') => name = line.splitn(6, ' ').nth(5).unwrap_or("").trim(),
                _ => {}
            }
        }
        sums
    }

    fn of(&mut self, name: &str, guest_ram: &str) -> &mut u64 {
        if name.contains(guest_ram) {
            &mut self.guest_ram
        } else if name.starts_with('/') && !name.ends_with("(deleted)") {
            &mut self.files
        } else {
            &mut self.anonymous
        }
    }
}

/// The largest resident set that a process has had, in KiB (proc(5), status).
fn peak(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let kib = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = kib.and_then(|kib| kib.trim().trim_end_matches(" kB").parse().ok());
    kib.with_context(|| format!("{path} does not say VmHWM"))
}

/// What one idle machine costs.
struct Idle {
    mappings: Mappings,
    /// The largest resident set since the start, in KiB.
    peak: u64,
    cpu: Duration,
}

/// The table of an idle guest's memory.
fn memory(options: &Options, places: &Places) -> Result<String> {
    let guest = Embedded::unpack(places)?.shell()?;
    let machines = [
        (
            Machine::Qemu,
            "memory-backend-memfd",
            vec!["-object", "memory-backend-memfd,id=ram,size=512M", "-machine", "memory-backend=ram"],
        ),
        (Machine::Isomer(options.engine.clone()), "memfd:isomer-ram", Vec::new()),
    ];
    let mut measured = [Vec::new(), Vec::new()];
    for _ in 0..MEMORY_RUNS {
        for ((machine, guest_ram, extra), measured) in machines.iter().zip(&mut measured) {
            let mut command = machine.command(&places.isomer, &guest);
            command.args(extra);
            let mut running = Running::start(command, Duration::from_secs(LIMIT_S))?;
            running.wait_for(PROMPT)?;
            // What the boot left to do in the background.
            thread::sleep(Duration::from_secs(1));
            let before = host::cpu_time(running.pid())?;
            thread::sleep(IDLE);
            let cpu = host::cpu_time(running.pid())? - before;
            let mappings = Mappings::read(running.pid(), guest_ram)?;
            measured.push(Idle { mappings, peak: peak(running.pid())?, cpu });
            running.stop()?;
        }
    }

    type Figure = (&'static str, fn(&Idle) -> f64);
    fn mib(kib: u64) -> f64 {
        kib as f64 / 1024.0
    }
    let figures: [Figure; 7] = [
        ("largest resident set so far, MiB", |idle| mib(idle.peak)),
        ("resident set, MiB", |idle| mib(idle.mappings.rss)),
        ("guest RAM touched, MiB", |idle| mib(idle.mappings.guest_ram)),
        ("**beyond guest RAM, MiB**", |idle| mib(idle.mappings.pss - idle.mappings.guest_ram)),
        ("of that program and libraries, MiB", |idle| mib(idle.mappings.files)),
        ("of that heap, stacks, code, MiB", |idle| mib(idle.mappings.anonymous)),
        ("host CPU in 10 s of idling, s", |idle| idle.cpu.as_secs_f64()),
    ];
    let cell = |runs: &[Idle], figure: fn(&Idle) -> f64| {
        Spread::of(runs.iter().map(figure)).map_or_else(String::new, |spread| spread.to_string())
    };
    let rows: Vec<Vec<String>> = figures
        .iter()
        .map(|(name, figure)| {
            vec![(*name).to_owned(), cell(&measured[0], *figure), cell(&measured[1], *figure)]
        })
        .collect();
    Ok(document::table(&["idle at the shell prompt", "QEMU", "Isomer"], &rows))
}

/// The table of the time from exec to a guest's first instruction.
fn startup(options: &Options, places: &Places) -> Result<String> {
    // Where each machine starts a kernel: QEMU, without firmware, at the beginning of RAM.
    let kernels = [("tiny-qemu.elf", 0x8000_0000), ("tiny-isomer.elf", 0x8020_0000)];
    let mut paths = Vec::new();
    for (name, address) in kernels {
        let path = places.work.join(name);
        fs::write(&path, tiny_kernel(address)).with_context(|| format!("cannot write {}", path.display()))?;
        paths.push(path);
    }
    let mut qemu = Command::new(QEMU);
    qemu.args(["-M", "virt", "-smp", "1", "-m", "512", "-nographic", "-bios", "none", "-kernel"])
        .arg(&paths[0]);
    let mut isomer = Command::new(&places.isomer);
    isomer.args(["run", "--memory", "512M", "--engine", &options.engine, "--kernel"]).arg(&paths[1]);

    let (qemu_wall, qemu_cpu) = start_often(&mut qemu, options.runs)?;
    let (isomer_wall, isomer_cpu) = start_often(&mut isomer, options.runs)?;
    let rows = [
        vec!["wall time, ms".into(), format!("{qemu_wall:.1}"), format!("{isomer_wall:.1}")],
        vec!["host CPU time, mean, ms".into(), format!("{qemu_cpu:.1}"), format!("{isomer_cpu:.1}")],
    ];
    Ok(document::table(
        &[&format!("whole life of a process, {} runs", options.runs), "QEMU", "Isomer"],
        &rows,
    ))
}

/// Runs a command many times: wall time, and mean CPU time, in milliseconds.
fn start_often(command: &mut Command, runs: u32) -> Result<(Spread, f64)> {
    let shown = crate::process::describe(command);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let before = host::children_cpu_time()?;
    let mut walls_ms = Vec::new();
    for _ in 0..runs {
        let start = Instant::now();
        let mut child = command.spawn().with_context(|| format!("cannot start `{shown}`"))?;
        let status = child.wait()?;
        walls_ms.push(start.elapsed().as_secs_f64() * 1000.0);
        ensure!(status.success(), "`{shown}` ended with {status}");
    }
    let cpu_ms = (host::children_cpu_time()? - before).as_secs_f64() * 1000.0 / f64::from(runs);
    match Spread::of(walls_ms) {
        Some(walls) => Ok((walls, cpu_ms)),
        None => bail!("`{shown}` did not run"),
    }
}

/// A kernel that powers the machine off with its first store: 0x5555 to the test finisher at 0x100000.
fn tiny_kernel(address: u64) -> Vec<u8> {
    const CODE: [u32; 5] = [
        0x0010_02b7, // lui  t0, 0x100
        0x0000_5337, // lui  t1, 0x5
        0x5553_0313, // addi t1, t1, 0x555
        0x0062_a023, // sw   t1, 0(t0)
        0x0000_006f, // j    .
    ];
    const CODE_OFFSET: u64 = 64 + 56;
    let code: Vec<u8> = CODE.iter().flat_map(|insn| insn.to_le_bytes()).collect();
    let len = code.len() as u64;
    // System V gABI: 64-bit, little-endian, an executable for RISC-V (243), one program header right behind.
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    elf.extend([2_u16, 243].iter().flat_map(|half| half.to_le_bytes()));
    elf.extend(1_u32.to_le_bytes());
    elf.extend([address, 64, 0].iter().flat_map(|word| word.to_le_bytes()));
    elf.extend(0_u32.to_le_bytes());
    elf.extend([64_u16, 56, 1, 64, 0, 0].iter().flat_map(|half| half.to_le_bytes()));
    // A segment to load (1), readable and executable (5).
    elf.extend([1_u32, 5].iter().flat_map(|half| half.to_le_bytes()));
    elf.extend([CODE_OFFSET, address, address, len, len, 4].iter().flat_map(|word| word.to_le_bytes()));
    elf.extend(code);
    elf
}

#[cfg(test)]
mod tests {
    use super::*;
    use object::{Object, ObjectSegment};

    #[test]
    fn mappings_are_summed_by_what_they_are() {
        let smaps = "55d0-55d1 r-xp 00000000 08:01 77                         /usr/bin/isomer\n\
                     Size:                 16 kB\nRss:                  12 kB\nPss:                   6 kB\n\
                     7f00-7f01 rw-s 00000000 00:01 99                         /memfd:isomer-ram (deleted)\n\
                     Rss:                 100 kB\nPss:                  50 kB\nPss_Dirty:            50 kB\n\
                     7f02-7f03 rw-p 00000000 00:00 0                          [heap]\n\
                     Rss:                   8 kB\nPss:                   8 kB\nVmFlags: rd wr\n\
                     7f04-7f05 rw-p 00000000 00:00 0 \n\
                     Rss:                   4 kB\nPss:                   4 kB\n";
        let sums = Mappings::parse(smaps, "memfd:isomer-ram");
        assert_eq!(sums, Mappings { rss: 124, pss: 68, guest_ram: 50, files: 6, anonymous: 12 });
        let own = Mappings::read(std::process::id(), "xtask");
        assert!(own.is_ok_and(|own| own.pss > 0 && own.rss >= own.guest_ram));
    }

    #[test]
    fn the_tiny_kernel_is_an_elf_file_with_one_segment() -> Result<()> {
        let bytes = tiny_kernel(0x8020_0000);
        let elf = object::File::parse(bytes.as_slice())?;
        assert_eq!((elf.architecture(), elf.entry()), (object::Architecture::Riscv64, 0x8020_0000));
        let segments: Vec<_> = elf.segments().collect();
        assert_eq!((segments.len(), segments[0].address(), segments[0].size()), (1, 0x8020_0000, 20));
        assert_eq!(segments[0].data()?[..4], [0xb7, 0x02, 0x10, 0x00]);
        Ok(())
    }
}
