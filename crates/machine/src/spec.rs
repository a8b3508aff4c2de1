//! What the user asked for, with a default for everything.

use isomer_devices::backend::{
    CacheMode, ImageFormat,
    net::{MacAddr, Publish},
    share::Owners,
};
use isomer_engine::{CacheSettings, EngineKind, Trace};
use std::{net::SocketAddr, path::PathBuf};

/// A guest instruction set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Arch {
    /// 64-bit RISC-V.
    #[default]
    Riscv64,
    /// 64-bit Arm.
    Aarch64,
}

impl Arch {
    /// All that can be run.
    pub const ALL: &'static [Self] = &[Self::Riscv64, Self::Aarch64];

    /// The name users type, as `uname -m` prints it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Riscv64 => "riscv64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// By [`Self::name`].
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|arch| arch.name() == name)
    }
}

/// Which engine runs guest code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EngineChoice {
    /// The best that works here.
    #[default]
    Auto,
    /// The interpreter.
    Interp,
    /// Compiled code for what is hot.
    Jit,
    /// The reference engine: slow, the oracle of the others.
    Reference,
}

impl EngineChoice {
    /// The engine's own name for it.
    pub(crate) const fn kind(self) -> EngineKind {
        match self {
            Self::Interp => EngineKind::Interpreter,
            Self::Auto | Self::Jit => EngineKind::Jit,
            Self::Reference => EngineKind::Reference,
        }
    }
}

/// An Arm board's interrupt controller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GicVersion {
    /// GICv2 with a frame for messages: at most eight CPUs.
    V2,
    /// GICv3 with an interrupt translation service.
    #[default]
    V3,
}

/// What can be chosen about a board. Boards without the part concerned ignore the choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BoardOptions {
    /// The interrupt controller (aarch64).
    pub gic: GicVersion,
    /// CPUs have EL2, so that the guest can be a hypervisor (aarch64).
    pub el2: bool,
}

/// How a device is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// virtio over PCI: what distributions' kernels have built in.
    #[default]
    Pci,
    /// virtio over MMIO.
    Mmio,
}

/// What is measured while the guest runs.
#[derive(Clone, Debug, Default)]
pub struct ProfileOptions {
    /// Sample where the guest's time goes.
    pub sample: bool,
    /// Tell the host's `perf` of compiled code: see [`crate::profile::perf_map_path`].
    pub perf_map: bool,
    /// Files with names for guest addresses, besides kernel and firmware.
    pub symbols: Vec<PathBuf>,
}

/// What a disk is plugged into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DiskBus {
    /// virtio-blk.
    #[default]
    Virtio,
    /// An NVMe controller of its own.
    Nvme,
    /// The machine's virtio-scsi host.
    Scsi,
}

/// One disk.
#[derive(Clone, Debug, Default)]
pub struct DiskSpec {
    /// The image.
    pub path: PathBuf,
    /// Its format; `None` detects it.
    pub format: Option<ImageFormat>,
    /// Refuse writes.
    pub read_only: bool,
    /// Throw writes away at the end.
    pub ephemeral: bool,
    /// When writes are complete.
    pub cache: CacheMode,
    /// What the guest discards stays where it is.
    pub keep_discarded: bool,
    /// What the disk answers when it is asked who it is; empty: `isomer-N`.
    pub serial: String,
    /// What it is plugged into.
    pub bus: DiskBus,
    /// It is a disc in a CD-ROM drive, on the virtio-scsi host.
    pub cdrom: bool,
}

/// Where the cable of a network card leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Network {
    /// A network of the guest's own, translated to the host's sockets.
    User {
        /// The guest reaches nobody; published ports work.
        restrict: bool,
        /// The name server, in place of the host's.
        dns: Option<SocketAddr>,
        /// Ports of the guest that the host's stations reach.
        publish: Vec<Publish>,
    },
    /// An interface of the host.
    Tap {
        /// Its name.
        name: String,
    },
}

impl Default for Network {
    fn default() -> Self {
        Self::User { restrict: false, dns: None, publish: Vec::new() }
    }
}

/// One network card.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetSpec {
    /// Where its cable leads.
    pub network: Network,
    /// Its address; `None` is the board's.
    pub mac: Option<MacAddr>,
}

/// How a directory is shared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ShareKind {
    /// virtio-fs.
    #[default]
    VirtioFs,
    /// 9P2000.L over virtio.
    NineP,
}

/// How long a guest trusts what it was told about a shared directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ShareTrust {
    /// Not at all.
    Nothing,
    /// For a second.
    #[default]
    Second,
    /// For ever: only the guest changes the directory.
    Always,
}

/// One shared directory.
#[derive(Clone, Debug, Default)]
pub struct ShareSpec {
    /// The directory on the host.
    pub path: PathBuf,
    /// What the guest knows it by: a tag, or the path where it is to be.
    pub guest: Option<String>,
    /// How.
    pub kind: ShareKind,
    /// Refuse changes.
    pub read_only: bool,
    /// Whose files appear to be; `None`: the host's numbers if the machine is run by root, else the guest's root's.
    pub owners: Option<Owners>,
    /// How long the guest trusts what it was told (virtio-fs; with 9p the guest chooses when it mounts).
    pub trust: ShareTrust,
    /// Locks reach the host (virtio-fs; those of 9p always do).
    pub host_locks: bool,
}

/// What the guest boots.
#[derive(Clone, Debug, Default)]
pub enum Boot {
    /// The embedded Linux: a shell, or a command whose exit code becomes ours.
    #[default]
    Embedded,
    /// Files given by the user.
    Files {
        /// The kernel; may be absent where firmware finds one on a disk.
        kernel: Option<PathBuf>,
        /// The initial RAM disk.
        initrd: Option<PathBuf>,
        /// Firmware run in the most privileged mode instead of the built-in one.
        firmware: Option<PathBuf>,
    },
}

/// Where the console is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Console {
    /// The board's serial port.
    Serial,
    /// virtio-console.
    Virtio,
}

/// A machine to be made.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Instruction set.
    pub arch: Arch,
    /// CPU model; `None` is the board's default.
    pub cpu_model: Option<String>,
    /// Number of CPUs.
    pub cpus: usize,
    /// RAM in bytes.
    pub memory_bytes: u64,
    /// What to boot.
    pub boot: Boot,
    /// Kernel command line; `None` is the board's default.
    pub append: Option<String>,
    /// Command to run in the embedded guest.
    pub command: Option<Vec<String>>,
    /// Disks in order.
    pub disks: Vec<DiskSpec>,
    /// Network cards in order.
    pub net: Vec<NetSpec>,
    /// Shared directories.
    pub shares: Vec<ShareSpec>,
    /// How virtio devices are attached.
    pub transport: Transport,
    /// What was chosen about the board.
    pub board: BoardOptions,
    /// Engine.
    pub engine: EngineChoice,
    /// Where compiled code is kept between runs.
    pub cache: CacheSettings,
    /// What to trace.
    pub trace: Trace,
    /// What to measure.
    pub profile: ProfileOptions,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            arch: Arch::default(),
            cpu_model: None,
            cpus: 1,
            memory_bytes: 512 << 20,
            boot: Boot::default(),
            append: None,
            command: None,
            disks: Vec::new(),
            net: Vec::new(),
            shares: Vec::new(),
            transport: Transport::default(),
            board: BoardOptions::default(),
            engine: EngineChoice::default(),
            cache: CacheSettings::default(),
            trace: Trace::default(),
            profile: ProfileOptions::default(),
        }
    }
}

impl Spec {
    /// Which console the guest will use: the one its command line names first, else the boot path's own.
    pub fn console(&self) -> Console {
        let named = self.append.as_deref().and_then(|append| {
            let words = append.split_ascii_whitespace();
            words.rev().find_map(|word| word.strip_prefix("console="))
        });
        match (named, &self.boot) {
            (Some(name), _) if name.starts_with("hvc") => Console::Virtio,
            (Some(_), _) | (None, Boot::Files { .. }) => Console::Serial,
            (None, Boot::Embedded) => Console::Virtio,
        }
    }
}
