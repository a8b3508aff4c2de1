//! The Linux guests built into the program (`guests/linux`), so that `isomer run` works offline.

use crate::spec::Arch;
use std::io::Read;

struct Image {
    arch: Arch,
    kernel: &'static [u8],
    initramfs: &'static [u8],
}

/// One entry an architecture.
static IMAGES: &[Image] = &[
    Image {
        arch: Arch::Riscv64,
        kernel: include_bytes!("../../../guests/linux/images/riscv64/kernel.zst"),
        initramfs: include_bytes!("../../../guests/linux/images/riscv64/initramfs.cpio.zst"),
    },
    Image {
        arch: Arch::Aarch64,
        kernel: include_bytes!("../../../guests/linux/images/aarch64/kernel.zst"),
        initramfs: include_bytes!("../../../guests/linux/images/aarch64/initramfs.cpio.zst"),
    },
];

/// The kernel command line of an embedded guest on virtio-console.
pub const COMMAND_LINE: &str = "console=hvc0 quiet";

/// Names of the virtio-console ports an embedded guest runs a command through, in the order of announcement: the
/// guest's init waits for the last.
pub mod port {
    /// The command's standard input.
    pub const STDIN: &str = "isomer.stdin";
    /// Its standard output.
    pub const STDOUT: &str = "isomer.stdout";
    /// Its standard error.
    pub const STDERR: &str = "isomer.stderr";
    /// One line `exit N` when it ended.
    pub const CONTROL: &str = "isomer.control";
}

/// First process of the guest, as the stored images' successors will have it: those stored know no shares and no
/// network.
const INIT: &[u8] = include_bytes!("../../../guests/linux/init");
/// What the guest's DHCP client does with a lease; the stored images lack it, too.
const UDHCPC: &[u8] = include_bytes!("../../../guests/linux/rootfs/etc/udhcpc");

/// A shared directory that the guest mounts by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// File system type, as mount(8) calls it.
    pub kind: &'static str,
    /// What the device calls itself.
    pub tag: String,
    /// Where in the guest.
    pub path: String,
    /// Options of mount(8).
    pub options: String,
}

/// Kernel and initial RAM disk of the embedded guest, unpacked.
#[derive(Debug)]
pub struct Guest {
    /// The kernel.
    pub kernel: Vec<u8>,
    /// The initial RAM disk: an uncompressed cpio archive.
    pub initrd: Vec<u8>,
}

/// What the guest is told, through its initial RAM disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct Told<'a> {
    /// Run this instead of a shell.
    pub command: Option<&'a [String]>,
    /// Mount these.
    pub mounts: &'a [Mount],
    /// Ask for an address on the first network card.
    pub network: bool,
}

/// Unpacks the embedded guest of `arch`, with what it is told.
pub fn guest(arch: Arch, told: &Told<'_>) -> std::io::Result<Option<Guest>> {
    let Some(image) = IMAGES.iter().find(|image| image.arch == arch) else { return Ok(None) };
    let unpack = |packed: &[u8]| {
        let mut bytes = Vec::new();
        zstd::Decoder::new(packed)?.read_to_end(&mut bytes)?;
        Ok::<_, std::io::Error>(bytes)
    };
    let kernel = unpack(image.kernel)?;
    let mut initrd = unpack(image.initramfs)?;
    if let Some(command) = told.command {
        let argv = command.iter().flat_map(|arg| arg.bytes().chain([0])).collect::<Vec<_>>();
        append_file(&mut initrd, "isomer/argv", 0o644, &argv);
    }
    if !told.mounts.is_empty() {
        let words =
            told.mounts.iter().flat_map(|mount| [mount.kind, &mount.tag, &mount.path, &mount.options]);
        let words = words.flat_map(|word| word.bytes().chain([0])).collect::<Vec<_>>();
        append_file(&mut initrd, "isomer/mounts", 0o644, &words);
    }
    if told.network {
        append_file(&mut initrd, "isomer/net", 0o644, b"eth0\n");
        append_file(&mut initrd, "etc/udhcpc", 0o755, UDHCPC);
    }
    if told.network || !told.mounts.is_empty() {
        append_file(&mut initrd, "init", 0o755, INIT);
    }
    Ok(Some(Guest { kernel, initrd }))
}

/// Appends a second cpio archive (newc format) with one file; Linux unpacks archives one after the other.
fn append_file(archive: &mut Vec<u8>, name: &str, mode: usize, data: &[u8]) {
    let pad = |archive: &mut Vec<u8>| archive.resize(archive.len().next_multiple_of(4), 0);
    pad(archive);
    for (ino, mode, name, data) in [(1, 0o100_000 | mode, name, data), (0, 0, "TRAILER!!!", &[][..])] {
        let fields = [ino, mode, 0, 0, 1, 0, data.len(), 0, 0, 0, 0, name.len() + 1, 0];
        archive.extend_from_slice(b"070701");
        fields.iter().for_each(|field| archive.extend_from_slice(format!("{field:08x}").as_bytes()));
        archive.extend_from_slice(name.as_bytes());
        archive.push(0);
        pad(archive);
        archive.extend_from_slice(data);
        pad(archive);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_guest_is_whole() {
        for image in IMAGES {
            let make = |told: Told<'_>| guest(image.arch, &told).unwrap().unwrap();
            let plain = make(Told::default());
            let command = ["echo".to_owned(), String::new()];
            let told = make(Told { command: Some(&command), ..Told::default() });
            assert!(plain.kernel.len() > 1 << 20);
            let added = &told.initrd[plain.initrd.len()..];
            assert!(added.windows(6).any(|w| w == b"echo\0\0"));
            assert_eq!(told.initrd.len() % 4, 0);
            let mount = Mount { kind: "9p", tag: "a".into(), path: "/mnt/a b".into(), options: "ro".into() };
            let sharing = make(Told { mounts: &[mount], ..Told::default() });
            let added = &sharing.initrd[plain.initrd.len()..];
            assert!(added.windows(16).any(|w| w == b"9p\0a\0/mnt/a b\0ro"));
            assert!(added.windows(INIT.len()).any(|w| w == INIT));
            let networked = make(Told { network: true, ..Told::default() });
            let added = &networked.initrd[plain.initrd.len()..];
            assert!([INIT, UDHCPC].iter().all(|file| added.windows(file.len()).any(|w| w == *file)));
        }
    }
}
