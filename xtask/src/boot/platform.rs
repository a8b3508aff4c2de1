//! What the boots of each instruction set are made of: Debian's packages, and the files in them.

/// One instruction set's kernels and firmware.
pub(super) struct Platform {
    /// What isomer calls it, as `uname -m` does.
    pub(super) arch: &'static str,
    /// What Debian calls it.
    pub(super) debian: &'static str,
    /// The serial port's name in Linux.
    pub(super) console: &'static str,
    pub(super) packages: &'static [Package],
}

/// A package of which the boots need a few files.
pub(super) struct Package {
    /// The boots' own name of it.
    pub(super) key: &'static str,
    /// Debian's.
    pub(super) name: &'static str,
    /// It depends on the package meant: the newest kernel's.
    pub(super) is_meta: bool,
    /// It is of the guest's architecture; firmware packages are for hosts of any.
    pub(super) is_guest: bool,
    /// What to unpack, as tar's patterns.
    pub(super) patterns: &'static [&'static str],
}

impl Package {
    const fn kernel(key: &'static str, name: &'static str, pattern: &'static [&'static str]) -> Self {
        Self { key, name, is_meta: true, is_guest: true, patterns: pattern }
    }
    const fn firmware(key: &'static str, name: &'static str, patterns: &'static [&'static str]) -> Self {
        Self { key, name, is_meta: false, is_guest: false, patterns }
    }
    const fn program(key: &'static str, name: &'static str, patterns: &'static [&'static str]) -> Self {
        Self { key, name, is_meta: false, is_guest: true, patterns }
    }
}

/// The kernel that most boots take.
pub(super) const KERNEL: &str = "kernel";
/// A kernel for virtual machines, with few drivers.
pub(super) const CLOUD_KERNEL: &str = "kernel-cloud";
/// A kernel with pages of 16 KiB.
pub(super) const KERNEL_16K: &str = "kernel-16k";
pub(super) const BUSYBOX: &str = "busybox";
pub(super) const OPENSBI: &str = "opensbi";
pub(super) const U_BOOT: &str = "u-boot";
pub(super) const EDK2: &str = "edk2";
pub(super) const GRUB: &str = "grub";

const BUSYBOX_FILES: &[&str] = &["./usr/bin/busybox"];
const VMLINUZ: &[&str] = &["./boot/vmlinuz-*"];

pub(super) static RISCV64: Platform = Platform {
    arch: "riscv64",
    debian: "riscv64",
    console: "ttyS0",
    packages: &[
        Package::kernel(KERNEL, "linux-image-riscv64", &["./boot/vmlinux-*"]),
        Package::program(BUSYBOX, "busybox-static", BUSYBOX_FILES),
        Package::firmware(OPENSBI, "opensbi", &["./usr/lib/riscv64-linux-gnu/opensbi/generic/fw_*"]),
        Package::firmware(U_BOOT, "u-boot-qemu", &["./usr/lib/u-boot/qemu-riscv64_smode/u-boot.bin"]),
    ],
};

pub(super) static AARCH64: Platform = Platform {
    arch: "aarch64",
    debian: "arm64",
    console: "ttyAMA0",
    packages: &[
        Package::kernel(KERNEL, "linux-image-arm64", VMLINUZ),
        Package::kernel(CLOUD_KERNEL, "linux-image-cloud-arm64", VMLINUZ),
        Package::kernel(KERNEL_16K, "linux-image-arm64-16k", VMLINUZ),
        Package::program(BUSYBOX, "busybox-static", BUSYBOX_FILES),
        Package::firmware(EDK2, "qemu-efi-aarch64", &["./usr/share/qemu-efi-aarch64/QEMU_EFI.fd"]),
        // One binary with all modules, which reads EFI/debian/grub.cfg where it was started from.
        Package::program(
            GRUB,
            "grub-efi-arm64-unsigned",
            &["./usr/lib/grub/arm64-efi/monolithic/grubaa64.efi"],
        ),
    ],
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_platform_has_a_kernel_and_busybox_and_no_name_twice() {
        for platform in [&RISCV64, &AARCH64] {
            let count = |key| platform.packages.iter().filter(|package| package.key == key).count();
            assert_eq!((count(KERNEL), count(BUSYBOX)), (1, 1), "{}", platform.arch);
            assert!(platform.packages.iter().all(|package| count(package.key) == 1));
        }
    }
}
