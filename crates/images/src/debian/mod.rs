//! The Debian recipe: a minimal disk of Debian 13 for any instruction set, from the archive that this host uses.
//!
//! The host downloads and unpacks packages, which needs neither root nor Debian; their maintainer scripts run in the
//! guest, when it first starts (the *second stage*). So [`assemble`] leaves a disk whose packages are unpacked, and
//! whoever runs machines boots it once, with [`Assembled::SECOND_STAGE`] as its first process.

mod archive;
mod deb;
mod disk;
mod kernel;
mod mirror;
mod packages;
mod tree;

pub use mirror::Mirror;

use crate::{
    BootFiles, Client, DiskFormat, ImageError, Manifest, Progress, Store, Unit, error::file, store::Draft,
};
use archive::Archive;
use packages::Index;
use std::{collections::BTreeMap, fs, path::Path};
use tree::Tree;

/// The release.
pub const SUITE: &str = "trixie";
/// What the second stage prints last, if all went well.
pub const DONE: &str = "isomer: the second stage is done";
/// What it prints when something went wrong, with the reason behind it.
pub const FAILED: &str = "isomer: the second stage failed";

/// What is installed, besides what is essential or required, and what all of that depends on.
const PACKAGES: &[&str] = &[
    // Named first, so that it is the `awk` that others want.
    "mawk",
    "apt",
    "ca-certificates",
    "dbus",
    "debian-archive-keyring",
    "e2fsprogs",
    "init",
    "iproute2",
    "iputils-ping",
    "kmod",
    "less",
    "libpam-systemd",
    "login",
    "nano",
    "netbase",
    "openssh-server",
    "procps",
    "qemu-guest-agent",
    "systemd",
    "systemd-resolved",
    "systemd-sysv",
    "udev",
];

/// An instruction set, as Debian and its kernels call it.
struct Port {
    arch: &'static str,
    debian: &'static str,
    /// The metapackage of the kernel.
    kernel: &'static str,
    /// What the kernel's file begins with.
    image: &'static str,
}

/// One line an instruction set.
const PORTS: &[Port] = &[
    Port { arch: "riscv64", debian: "riscv64", kernel: "linux-image-riscv64", image: "boot/vmlinux-" },
    Port { arch: "aarch64", debian: "arm64", kernel: "linux-image-cloud-arm64", image: "boot/vmlinuz-" },
];

/// A disk that is ready for its second stage.
#[derive(Debug)]
pub struct Assembled {
    /// Where it is.
    pub draft: Draft,
    /// What it will be.
    pub manifest: Manifest,
    /// How many packages the second stage sets up.
    pub packages: usize,
}

impl Assembled {
    /// The kernel's command line for the second stage, but for the console.
    pub const SECOND_STAGE: &'static str = "root=/dev/vda rw quiet init=/usr/lib/isomer/second-stage";
    /// The disk's format.
    pub const FORMAT: DiskFormat = DiskFormat::Raw;
}

/// Does the recipe know the instruction set?
pub fn knows(arch: &str) -> bool {
    PORTS.iter().any(|port| port.arch == arch)
}

/// Downloads packages and makes the disk, kernel and initial RAM disk of `name`.
///
/// # Errors
/// When the archive cannot be reached or trusted, or the host lacks a tool.
pub fn assemble(
    store: &Store,
    client: &Client,
    mirror: &Mirror,
    name: &str,
    arch: &str,
    progress: &dyn Progress,
) -> Result<Assembled, ImageError> {
    let port = PORTS.iter().find(|port| port.arch == arch).ok_or_else(|| ImageError::Debian {
        why: format!("the recipe does not know {arch}"),
        fix: format!("it knows {}", PORTS.iter().map(|port| port.arch).collect::<Vec<_>>().join(" and ")),
    })?;
    disk::check_tools()?;
    let draft = store.begin(name, arch)?;
    let downloads = store.downloads().join("debian");
    let archive = Archive::open(client, mirror, SUITE, &downloads, progress)?;
    let index = Index::parse(archive.packages(port.debian, progress)?, port.debian)?;

    let mut wanted = index.required();
    wanted.extend(PACKAGES.iter().map(|package| (*package).to_owned()));
    let chosen = index.closure(&wanted)?;
    let kernel = index.kernel(port.kernel)?;
    let busybox = index.get("busybox-static")?;
    let mut fetched = chosen.clone();
    fetched.extend([kernel.clone(), busybox.clone()]);
    let files = archive.download(&fetched, progress)?;

    let root = draft.directory().join("root");
    let mut tree = Tree::new(&root, port.debian)?;
    progress.begin("Unpacking packages", Some(fetched.len() as u64), Unit::Items);
    for package in &chosen {
        progress.detail(&package.name);
        tree.install(package, &files[&package.name])?;
        progress.advance(1);
    }
    progress.detail(&kernel.name);
    let unpacked = kernel::unpack(&mut tree, &kernel, &files[&kernel.name], port.image)?;
    fs::write(draft.kernel(), &unpacked.image).map_err(file("write", &draft.kernel()))?;
    progress.advance(1);
    let shell = kernel::busybox(&busybox, &files[&busybox.name])?;
    let initrd = kernel::initrd(&root, &unpacked.release, &shell)?;
    fs::write(draft.initrd(), initrd).map_err(file("write", &draft.initrd()))?;
    progress.advance(1);
    progress.end();
    tree.finish()?;
    configure(&mut tree, mirror, &unpacked.release)?;

    progress.begin("Making the disk", None, Unit::Items);
    disk::make(&root, &draft.disk(Assembled::FORMAT))?;
    fs::remove_dir_all(&root).map_err(file("remove", &root))?;
    progress.end();
    let manifest = Manifest {
        name: name.to_owned(),
        arch: arch.to_owned(),
        title: format!("Debian {} ({SUITE}), {} packages", archive.version(), chosen.len()),
        source: mirror.uri.clone(),
        created_secs: 0,
        format: Assembled::FORMAT,
        boot: Some(BootFiles { append: "root=/dev/vda rw loglevel=4".into(), release: unpacked.release }),
        cloud_init: false,
        digests: BTreeMap::new(),
    };
    Ok(Assembled { draft, manifest, packages: chosen.len() })
}

/// Files that no package brings: `(path, content, mode)`.
const FILES: &[(&str, &str, u32)] = &[
    ("usr/lib/isomer/second-stage", include_str!("files/second-stage"), 0o755),
    ("etc/fstab", "/dev/vda / ext4 errors=remount-ro,x-systemd.growfs 0 1\n", 0o644),
    ("etc/hostname", "debian\n", 0o644),
    ("etc/hosts", "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n", 0o644),
    ("etc/systemd/network/80-isomer.network", include_str!("files/80-isomer.network"), 0o644),
    ("etc/systemd/system/serial-getty@.service.d/isomer.conf", include_str!("files/getty.conf"), 0o644),
    ("etc/systemd/system/isomer-keys.service", include_str!("files/isomer-keys.service"), 0o644),
];

/// Writes what makes the tree a machine of ours.
fn configure(tree: &mut Tree, mirror: &Mirror, release: &str) -> Result<(), ImageError> {
    for (path, content, mode) in FILES {
        tree.write(Path::new(path), content.as_bytes(), *mode)?;
    }
    tree.write(Path::new("etc/apt/sources.list.d/debian.sources"), mirror.sources(SUITE).as_bytes(), 0o644)?;
    tree.write(Path::new("usr/lib/isomer/kernel-release"), format!("{release}\n").as_bytes(), 0o644)
}
