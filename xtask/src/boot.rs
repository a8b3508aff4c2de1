//! `cargo xtask boot`: boots kernels that nobody here built, in every way that a user can, and the embedded guest.
//!
//! A boot passes when the guest reaches its init process, sees as many processors as it should, and powers off by
//! itself within a time limit. The release binary runs it, as a user would run it.

mod disk;
mod files;
mod platform;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Deserialize;
use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    process::{Command as Program, Output},
    time::{Duration, Instant},
};

use self::{
    files::Files,
    platform::{AARCH64, CLOUD_KERNEL, KERNEL, KERNEL_16K, Platform, RISCV64},
};
use crate::{process, tools::Tool};

/// What `tests/boot/init` prints first.
const INIT_MARK: &str = "init has started";
/// Beyond the time limit that isomer keeps by itself.
const GRACE: Duration = Duration::from_secs(30);
/// The lines of a console that an error shows.
const TAIL_LINES: usize = 20;

/// The boots of `cargo xtask check`: each way of booting, each number of harts, within minutes.
const CHECKED: [&str; 17] = [
    "riscv64/embedded/pci/1",
    "riscv64/embedded/pci/4",
    "riscv64/embedded/mmio/1",
    "riscv64/embedded/mmio/4",
    "riscv64/debian/builtin/1",
    "riscv64/debian/builtin/2",
    "riscv64/debian/builtin/4",
    "riscv64/debian/fw_jump/2",
    "riscv64/debian/fw_dynamic/1",
    "riscv64/debian/fw_dynamic/4",
    "riscv64/u-boot/fw_jump/pci/2",
    "riscv64/u-boot/fw_dynamic/mmio/1",
    "aarch64/embedded/pci/1",
    "aarch64/embedded/mmio/4",
    "aarch64/cloud/gic3/1",
    "aarch64/cloud/gic2/4",
    "aarch64/grub/pci/2",
];

#[derive(Args)]
pub(crate) struct Command {
    /// The whole matrix, not only the boots of `cargo xtask check`
    #[arg(long)]
    all: bool,
    /// Only boots whose name contains this
    #[arg(long)]
    only: Option<String>,
    /// Boot everything this many times
    #[arg(long, default_value_t = 1, value_name = "N")]
    repeat: u32,
    /// Print the names of the boots and end
    #[arg(long)]
    list: bool,
    /// Seconds before a boot counts as hung
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    limit_s: u64,
    /// Download the newest packages again
    #[arg(long)]
    refresh: bool,
    /// Debian archive to download from [default: the one in the system's apt sources]
    #[arg(long, value_name = "URI")]
    mirror: Option<String>,
    /// The program to test, in place of a release build made now
    #[arg(long, value_name = "FILE")]
    isomer: Option<PathBuf>,
}

impl Command {
    /// What `cargo xtask check` boots.
    pub(crate) fn checked() -> Self {
        Self {
            all: false,
            only: None,
            repeat: 1,
            list: false,
            limit_s: 300,
            refresh: false,
            mirror: None,
            isomer: None,
        }
    }
}

pub(crate) fn run(command: &Command) -> Result<()> {
    let mut boots = matrix();
    boots.retain(|boot| {
        let name = boot.name();
        match &command.only {
            Some(only) => name.contains(only),
            None => command.all || CHECKED.contains(&name.as_str()),
        }
    });
    ensure!(!boots.is_empty(), "no boot has such a name; --all --list prints them");
    if command.list {
        boots.iter().for_each(|boot| println!("{}", boot.name()));
        return Ok(());
    }

    let runner = Runner::prepare(command, &boots)?;
    let (mut passed, mut failed) = (0, 0);
    for round in 1..=command.repeat {
        if command.repeat > 1 {
            println!("round {round} of {}", command.repeat);
        }
        for boot in &boots {
            match runner.boot(boot) {
                Ok(cost) => {
                    passed += 1;
                    println!("ok    {:<34} {cost}", boot.name());
                }
                Err(why) => {
                    failed += 1;
                    println!("FAIL  {:<34} {why:#}", boot.name());
                }
            }
        }
    }
    println!("boot: {passed} passed, {failed} failed");
    ensure!(failed == 0, "{failed} of {} boots failed", passed + failed);
    Ok(())
}

/// One way to boot.
#[derive(Clone, Copy)]
struct Boot {
    platform: &'static Platform,
    guest: Guest,
    cpus: u32,
}

#[derive(Clone, Copy)]
enum Guest {
    /// A command in the embedded guest, whose streams are on virtio.
    Embedded { transport: &'static str },
    /// Debian's kernel, loaded by isomer.
    Debian { firmware: Option<OpenSbi> },
    /// Debian's kernel, loaded by U-Boot from a disk.
    UBoot { firmware: OpenSbi, transport: &'static str },
    /// One of Debian's kernels, loaded by isomer; with an interrupt controller of this version.
    Arm { name: &'static str, kernel: &'static str, gic: u32 },
    /// Debian's kernel, loaded by GRUB from a disk that EDK2 finds.
    Grub { transport: &'static str },
}

/// A disk that a boot loader starts from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Disk {
    /// For U-Boot: an ext2 file system with a menu.
    Extlinux,
    /// For EDK2: GRUB in an EFI system partition.
    Efi,
}

impl Disk {
    fn name(self) -> &'static str {
        match self {
            Self::Extlinux => "extlinux",
            Self::Efi => "efi",
        }
    }

    fn tools(self) -> &'static [Tool] {
        match self {
            Self::Extlinux => &disk::EXTLINUX_TOOLS,
            Self::Efi => &disk::EFI_TOOLS,
        }
    }
}

/// The ways OpenSBI is told what to start next: by its own constants, or by the loader.
#[derive(Clone, Copy)]
enum OpenSbi {
    Jump,
    Dynamic,
}

impl OpenSbi {
    const ALL: [Self; 2] = [Self::Jump, Self::Dynamic];

    fn name(self) -> &'static str {
        match self {
            Self::Jump => "fw_jump",
            Self::Dynamic => "fw_dynamic",
        }
    }
}

const TRANSPORTS: [&str; 2] = ["pci", "mmio"];
const CPUS: [u32; 3] = [1, 2, 4];

/// Debian's kernels for Arm, by the names of their boots.
const ARM_KERNELS: [(&str, &str); 3] = [("cloud", CLOUD_KERNEL), ("generic", KERNEL), ("16k", KERNEL_16K)];

/// Every boot there is.
fn matrix() -> Vec<Boot> {
    let mut boots = Vec::new();
    let mut add = |platform: &'static Platform, guest| {
        boots.extend(CPUS.map(|cpus| Boot { platform, guest, cpus }));
    };
    for platform in [&RISCV64, &AARCH64] {
        for transport in TRANSPORTS {
            add(platform, Guest::Embedded { transport });
        }
    }
    add(&RISCV64, Guest::Debian { firmware: None });
    for firmware in OpenSbi::ALL {
        add(&RISCV64, Guest::Debian { firmware: Some(firmware) });
    }
    for firmware in OpenSbi::ALL {
        for transport in TRANSPORTS {
            add(&RISCV64, Guest::UBoot { firmware, transport });
        }
    }
    for (name, kernel) in ARM_KERNELS {
        for gic in [2, 3] {
            add(&AARCH64, Guest::Arm { name, kernel, gic });
        }
    }
    for transport in TRANSPORTS {
        add(&AARCH64, Guest::Grub { transport });
    }
    boots
}

impl Boot {
    fn name(&self) -> String {
        let (arch, cpus) = (self.platform.arch, self.cpus);
        let way = match self.guest {
            Guest::Embedded { transport } => format!("embedded/{transport}"),
            Guest::Debian { firmware } => format!("debian/{}", firmware.map_or("builtin", OpenSbi::name)),
            Guest::UBoot { firmware, transport } => format!("u-boot/{}/{transport}", firmware.name()),
            Guest::Arm { name, gic, .. } => format!("{name}/gic{gic}"),
            Guest::Grub { transport } => format!("grub/{transport}"),
        };
        format!("{arch}/{way}/{cpus}")
    }

    /// The packages it needs.
    fn packages(&self) -> &'static [&'static str] {
        match self.guest {
            Guest::Embedded { .. } => &[],
            Guest::Debian { .. } => &[platform::KERNEL, platform::BUSYBOX, platform::OPENSBI],
            Guest::UBoot { .. } => {
                &[platform::KERNEL, platform::BUSYBOX, platform::OPENSBI, platform::U_BOOT]
            }
            Guest::Arm { kernel: CLOUD_KERNEL, .. } => &[CLOUD_KERNEL, platform::BUSYBOX],
            Guest::Arm { kernel: KERNEL_16K, .. } => &[KERNEL_16K, platform::BUSYBOX],
            Guest::Arm { .. } => &[KERNEL, platform::BUSYBOX],
            Guest::Grub { .. } => &[KERNEL, platform::BUSYBOX, platform::EDK2, platform::GRUB],
        }
    }

    /// The disk it boots from.
    fn disk(&self) -> Option<Disk> {
        match self.guest {
            Guest::UBoot { .. } => Some(Disk::Extlinux),
            Guest::Grub { .. } => Some(Disk::Efi),
            _ => None,
        }
    }
}

/// What a boot took.
struct Cost {
    wall: Duration,
    /// Host CPU time and guest instructions, where isomer reports them.
    work: Option<(Duration, u64)>,
}

impl std::fmt::Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:5.1} s", self.wall.as_secs_f64())?;
        if let Some((cpu, insns)) = self.work {
            write!(f, ", {:5.1} s CPU, {:4} million instructions", cpu.as_secs_f64(), insns / 1_000_000)?;
        }
        Ok(())
    }
}

/// The parts of isomer's JSON report that a boot is judged by.
#[derive(Deserialize)]
struct Report {
    outcome: String,
    resets: u64,
    cpu_ms: u64,
    console: String,
    vcpus: Vec<Vcpu>,
}

#[derive(Deserialize)]
struct Vcpu {
    insns: u64,
}

/// Runs isomer and judges what it reports.
struct Runner {
    isomer: PathBuf,
    /// By instruction set; absent if no boot needs them.
    files: Vec<(&'static str, Files)>,
    /// Where the consoles of failed boots go.
    failures: PathBuf,
    limit: Duration,
}

impl Runner {
    fn prepare(command: &Command, boots: &[Boot]) -> Result<Self> {
        let target = crate::target_dir()?;
        let isomer = crate::isomer(command.isomer.as_deref())?;
        let mut files = Vec::new();
        for platform in [&RISCV64, &AARCH64] {
            let of_it = || boots.iter().filter(|boot| boot.platform.arch == platform.arch);
            let packages: BTreeSet<&str> = of_it().flat_map(|boot| boot.packages()).copied().collect();
            let disks = of_it().filter_map(Boot::disk).collect();
            if !packages.is_empty() {
                let mirror = command.mirror.as_deref();
                let made = Files::prepare(platform, &packages, &disks, mirror, command.refresh)?;
                files.push((platform.arch, made));
            }
        }
        Ok(Self {
            isomer,
            files,
            failures: target.join("boot/failed"),
            limit: Duration::from_secs(command.limit_s),
        })
    }

    fn boot(&self, boot: &Boot) -> Result<Cost> {
        let mut isomer = Program::new(&self.isomer);
        isomer.args(["run", "--no-reboot", "--timeout", &format!("{}s", self.limit.as_secs())]);
        isomer.args(["--arch", boot.platform.arch, "--cpus", &boot.cpus.to_string()]);
        let start = Instant::now();
        let work = match boot.guest {
            Guest::Embedded { transport } => {
                isomer.args(["--transport", transport, "--", "sh", "-c", "uname -m; nproc; exit 7"]);
                self.command(&mut isomer, 7, &format!("{}\n{}\n", boot.platform.arch, boot.cpus))?;
                None
            }
            Guest::Debian { firmware } => {
                self.direct(&mut isomer, boot, KERNEL)?;
                if let Some(firmware) = firmware {
                    isomer.arg("--firmware").arg(self.files(boot)?.opensbi(firmware));
                }
                Some(self.system(&mut isomer, boot)?)
            }
            Guest::UBoot { firmware, transport } => {
                let files = self.files(boot)?;
                isomer.arg("--firmware").arg(files.opensbi(firmware)).arg("--kernel").arg(files.u_boot());
                add_disk(&mut isomer, transport, files.disk(Disk::Extlinux));
                Some(self.system(&mut isomer, boot)?)
            }
            Guest::Arm { kernel, gic, .. } => {
                self.direct(&mut isomer, boot, kernel)?;
                isomer.args(["--board", &format!("gic={gic}")]);
                Some(self.system(&mut isomer, boot)?)
            }
            Guest::Grub { transport } => {
                let files = self.files(boot)?;
                isomer.arg("--firmware").arg(files.edk2());
                add_disk(&mut isomer, transport, files.disk(Disk::Efi));
                Some(self.system(&mut isomer, boot)?)
            }
        };
        Ok(Cost { wall: start.elapsed(), work })
    }

    /// A kernel that isomer loads itself, with the initramfs.
    fn direct(&self, isomer: &mut Program, boot: &Boot, kernel: &str) -> Result<()> {
        let files = self.files(boot)?;
        isomer.arg("--kernel").arg(files.kernel(kernel)?).arg("--initrd").arg(&files.initramfs);
        isomer.args(["--append", &format!("console={}", boot.platform.console)]);
        Ok(())
    }

    fn files(&self, boot: &Boot) -> Result<&Files> {
        let found = self.files.iter().find(|(arch, _)| *arch == boot.platform.arch);
        found.map(|(_, files)| files).context("the files of Debian's kernel were not prepared")
    }

    /// A command in the embedded guest has to print `expected` and to exit with `code`.
    fn command(&self, isomer: &mut Program, code: i32, expected: &str) -> Result<()> {
        let output = process::output_within(isomer, self.limit + GRACE)?;
        let printed = String::from_utf8_lossy(&output.stdout);
        let right = output.status.code() == Some(code) && printed == expected;
        ensure!(right, "expected {expected:?} and exit code {code}, got {printed:?}, {}", ending(&output));
        Ok(())
    }

    /// A system has to reach `tests/boot/init` with all its processors and to power off; returns host CPU time and
    /// guest instructions.
    fn system(&self, isomer: &mut Program, boot: &Boot) -> Result<(Duration, u64)> {
        let output = process::output_within(isomer.args(["--format", "json"]), self.limit + GRACE)?;
        let report: Report = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("no report, {}", ending(&output)))?;
        let wrong = report.fault(boot.cpus);
        if let Some(wrong) = wrong {
            let file = self.failures.join(format!("{}.txt", boot.name().replace('/', "-")));
            fs::create_dir_all(&self.failures)?;
            fs::write(&file, &report.console).with_context(|| format!("cannot write {}", file.display()))?;
            anyhow::bail!("{wrong}; the end of {}:\n{}", file.display(), tail(&report.console));
        }
        let insns = report.vcpus.iter().map(|vcpu| vcpu.insns).sum();
        Ok((Duration::from_millis(report.cpu_ms), insns))
    }
}

impl Report {
    /// What is not as it has to be after a good boot.
    fn fault(&self, cpus: u32) -> Option<String> {
        let processors = format!("processors: {cpus}");
        let has_line = |wanted: &str| self.console.lines().any(|line| line.trim_end() == wanted);
        if self.outcome != "power_off" || self.resets != 0 {
            Some(format!("ended with {} after {} resets, not with power_off", self.outcome, self.resets))
        } else if !has_line(INIT_MARK) {
            Some("did not reach init".to_owned())
        } else if !has_line(&processors) {
            Some(format!("init did not print `{processors}`"))
        } else {
            None
        }
    }
}

/// The disk that a boot loader finds its kernel on.
fn add_disk(isomer: &mut Program, transport: &str, disk: PathBuf) {
    let mut disk = disk.into_os_string();
    disk.push(",format=raw,ro");
    isomer.args(["--transport", transport, "--disk"]).arg(disk);
}

fn ending(output: &Output) -> String {
    format!("{}\n{}", output.status, tail(&String::from_utf8_lossy(&output.stderr)))
}

/// The last lines of a text.
fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_checked_boot_is_in_the_matrix_once() {
        let names: Vec<String> = matrix().iter().map(Boot::name).collect();
        for checked in CHECKED {
            assert_eq!(names.iter().filter(|name| *name == checked).count(), 1, "{checked}");
        }
    }

    #[test]
    fn what_a_boot_needs_its_platform_has() {
        for boot in matrix() {
            for key in boot.packages() {
                let has = boot.platform.packages.iter().any(|package| package.key == *key);
                assert!(has, "{}: {key}", boot.name());
            }
        }
    }

    #[test]
    fn a_boot_passes_only_if_it_ended_as_it_should() {
        let good = || Report {
            outcome: "power_off".into(),
            resets: 0,
            cpu_ms: 1,
            console: format!("[    0.0] Linux\r\n{INIT_MARK}\r\nprocessors: 4\r\n"),
            vcpus: Vec::new(),
        };
        assert_eq!(good().fault(4), None);
        let bad = [
            Report { outcome: "timed_out".into(), ..good() },
            Report { resets: 1, ..good() },
            Report { console: "processors: 4".into(), ..good() },
            Report { console: format!("{INIT_MARK}\nprocessors: 1\n"), ..good() },
        ];
        for report in bad {
            assert!(report.fault(4).is_some(), "{}", report.console);
        }
    }

    #[test]
    fn the_init_script_prints_what_boots_are_judged_by() -> Result<()> {
        let script = fs::read_to_string(crate::repository_root().join("tests/boot/init"))?;
        assert!(script.contains(&format!("echo {INIT_MARK}\n")) && script.contains("echo processors: "));
        Ok(())
    }
}
