//! Formats that are not bootable here and that people give by mistake: each with its name and the way out.

use super::error::{LoadError, Role};

/// A format, by bytes at a fixed offset.
struct Foreign {
    offset: usize,
    magic: &'static [u8],
    what: &'static str,
    fix: &'static str,
}

const fn foreign_at(offset: usize, magic: &'static [u8], what: &'static str, fix: &'static str) -> Foreign {
    Foreign { offset, magic, what, fix }
}

const UNPACK: &str = "unpack it first, or compress it with gzip or zstd instead";
const AS_DISK: &str =
    "give disk images with --disk; a kernel is a file such as /boot/vmlinux or /boot/vmlinuz";
const AS_INITRD: &str = "give it with --initrd, and the kernel with --kernel";

/// In the order they are tried.
const KNOWN: &[Foreign] = &[
    foreign_at(
        0x202,
        b"HdrS",
        "a bzImage: a Linux kernel for x86",
        "choose --arch x86_64, or give a kernel of this machine",
    ),
    foreign_at(
        4,
        b"zimg",
        "a compressed EFI application (vmlinuz.efi)",
        "unpack the kernel's Image from it, or build the kernel without CONFIG_EFI_ZBOOT",
    ),
    foreign_at(0, b"070701", "an initramfs (cpio archive)", AS_INITRD),
    foreign_at(0, b"070702", "an initramfs (cpio archive)", AS_INITRD),
    foreign_at(0, b"070707", "a cpio archive", AS_INITRD),
    foreign_at(0, b"QFI\xfb", "a qcow2 disk image", AS_DISK),
    foreign_at(0x200, b"EFI PART", "a disk image (GPT)", AS_DISK),
    foreign_at(0x8001, b"CD001", "a CD or DVD image (ISO 9660)", AS_DISK),
    foreign_at(0x438, b"\x53\xef", "an ext2, ext3 or ext4 file system", AS_DISK),
    foreign_at(0, b"hsqs", "a squashfs file system", AS_DISK),
    foreign_at(0, b"KDMV", "a VMDK disk image", AS_DISK),
    foreign_at(0, b"vhdxfile", "a VHDX disk image", AS_DISK),
    foreign_at(
        0,
        b"\xd0\x0d\xfe\xed",
        "a device tree or FIT image",
        "unpack the kernel's Image from a FIT image; the machine makes its device tree itself",
    ),
    foreign_at(
        0,
        b"\x27\x05\x19\x56",
        "a U-Boot image (uImage)",
        "give the Image or ELF file it was made from",
    ),
    foreign_at(
        0,
        b"!<arch>\n",
        "a Debian package or static library",
        "unpack it (dpkg-deb -x) and give the kernel inside",
    ),
    foreign_at(0, b"\xfd7zXZ\0", "compressed with xz", UNPACK),
    foreign_at(0, b"BZh", "compressed with bzip2", UNPACK),
    foreign_at(0, b"\x02\x21\x4c\x18", "compressed with LZ4", UNPACK),
    foreign_at(0, b"\x04\x22\x4d\x18", "compressed with LZ4", UNPACK),
    foreign_at(0, b"\x5d\0\0", "compressed with LZMA", UNPACK),
    foreign_at(0, b"\x89LZO\0\r\n\x1a\n", "compressed with LZO", UNPACK),
    foreign_at(0, b"PK\x03\x04", "a zip archive", UNPACK),
    foreign_at(0, b"#!", "a script", "scripts run inside the guest: isomer run -- COMMAND"),
    foreign_at(
        0,
        b"MZ",
        "a PE executable without a Linux Image header",
        "give the kernel's Image; EFI applications need UEFI firmware and a disk",
    ),
];

/// The error for a file in a known foreign format. Firmware is code without a header, so a magic of less than
/// four bytes proves nothing there.
pub(super) fn foreign(role: Role, bytes: &[u8]) -> Option<LoadError> {
    let matches = |f: &&Foreign| {
        let strong = f.magic.len() >= 4 || role != Role::Firmware;
        strong && bytes.get(f.offset..).is_some_and(|rest| rest.starts_with(f.magic))
    };
    let found = KNOWN.iter().find(matches)?;
    Some(LoadError::Foreign { role, what: found.what, fix: found.fix })
}
