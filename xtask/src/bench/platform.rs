//! The instruction sets whose guests are measured, and what Debian and QEMU call the parts of each: one table line for
//! one more.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::process;
use crate::tools::Tool;

/// Everything that differs between guests.
pub(super) struct Platform {
    /// Isomer's name of the instruction set.
    pub(super) arch: &'static str,
    /// Debian's.
    pub(super) debian: &'static str,
    /// Depends on the newest kernel's package.
    pub(super) kernel_metapackage: &'static str,
    /// The kernel's file in that package, as a pattern of tar.
    pub(super) kernel_pattern: &'static str,
    pub(super) compiler: &'static str,
    /// The compiler and the C library for it.
    pub(super) tools: [Tool; 2],
    pub(super) qemu: &'static str,
    pub(super) qemu_tool: Tool,
    /// QEMU's board.
    pub(super) qemu_machine: &'static [&'static str],
    /// The model of its processor where the default is not a 64-bit one; `--qemu-cpu` takes its place.
    pub(super) qemu_cpu: Option<&'static str>,
    /// The kernel's name of the serial port.
    pub(super) console: &'static str,
    /// The shortest kernel there is, for start-up times.
    pub(super) tiny: TinyKernel,
}

/// A bare-metal program that powers the machine off at once.
pub(super) struct TinyKernel {
    /// Of ELF's `e_machine` (System V gABI and its supplements).
    pub(super) elf_machine: u16,
    pub(super) code: &'static [u32],
    /// What keeps QEMU from starting firmware in its place.
    pub(super) qemu_options: &'static [&'static str],
    /// Where QEMU, without firmware, and Isomer start a kernel.
    pub(super) qemu_address: u64,
    pub(super) isomer_address: u64,
}

static PLATFORMS: [Platform; 2] = [RISCV64, AARCH64];

const RISCV64: Platform = Platform {
    arch: "riscv64",
    debian: "riscv64",
    kernel_metapackage: "linux-image-riscv64",
    kernel_pattern: "./boot/vmlinux-*",
    compiler: "riscv64-linux-gnu-gcc",
    tools: [
        Tool::program("riscv64-linux-gnu-gcc", "gcc-riscv64-linux-gnu"),
        Tool::file("/usr/riscv64-linux-gnu/lib/libc.a", "libc6-dev-riscv64-cross"),
    ],
    qemu: "qemu-system-riscv64",
    qemu_tool: Tool::program("qemu-system-riscv64", "qemu-system-misc"),
    qemu_machine: &["-M", "virt"],
    qemu_cpu: None,
    console: "ttyS0",
    tiny: TinyKernel {
        elf_machine: 243,
        // The test finisher at 0x100000 takes 0x5555 for success.
        code: &[
            0x0010_02b7, // lui  t0, 0x100
            0x0000_5337, // lui  t1, 0x5
            0x5553_0313, // addi t1, t1, 0x555
            0x0062_a023, // sw   t1, 0(t0)
            0x0000_006f, // j    .
        ],
        qemu_options: &["-bios", "none"],
        qemu_address: 0x8000_0000,
        isomer_address: 0x8020_0000,
    },
};

const AARCH64: Platform = Platform {
    arch: "aarch64",
    debian: "arm64",
    kernel_metapackage: "linux-image-arm64",
    kernel_pattern: "./boot/vmlinuz-*",
    compiler: "aarch64-linux-gnu-gcc",
    tools: [
        Tool::program("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
        Tool::file("/usr/aarch64-linux-gnu/lib/libc.a", "libc6-dev-arm64-cross"),
    ],
    qemu: "qemu-system-aarch64",
    qemu_tool: Tool::program("qemu-system-aarch64", "qemu-system-arm"),
    qemu_machine: &["-M", "virt,gic-version=3"],
    qemu_cpu: Some("cortex-a72"),
    console: "ttyAMA0",
    tiny: TinyKernel {
        elf_machine: 183,
        // PSCI's SYSTEM_OFF.
        code: &[
            0x5280_0100, // mov  w0, #8
            0x72b0_8000, // movk w0, #0x8400, lsl #16
            0xd400_0002, // hvc  #0
            0x1400_0000, // b    .
        ],
        qemu_options: &[],
        qemu_address: 0x4020_0000,
        isomer_address: 0x4020_0000,
    },
};

impl Platform {
    /// The names that `--arch` takes.
    pub(super) fn names() -> Vec<&'static str> {
        PLATFORMS.iter().map(|platform| platform.arch).collect()
    }

    pub(super) fn named(arch: &str) -> Result<&'static Self> {
        let found = PLATFORMS.iter().find(|platform| platform.arch == arch);
        found.with_context(|| format!("no benchmarks for {arch}; there are some for {:?}", Self::names()))
    }

    /// The kernel's command line.
    pub(super) fn append(&self) -> String {
        format!("console={}", self.console)
    }

    /// The compiler's name and version.
    pub(super) fn compiler_version(&self) -> Result<String> {
        let version = process::capture(Command::new(self.compiler).arg("--version"))?;
        Ok(version.lines().next().unwrap_or_default().to_owned())
    }

    pub(super) fn qemu_version(&self) -> Result<String> {
        let version = process::capture(Command::new(self.qemu).arg("--version"))?;
        Ok(version.lines().next().unwrap_or_default().to_owned())
    }
}

impl TinyKernel {
    /// An ELF file that is loaded and started at `address`.
    pub(super) fn elf(&self, address: u64) -> Vec<u8> {
        const CODE_OFFSET: u64 = 64 + 56;
        let code: Vec<u8> = self.code.iter().flat_map(|insn| insn.to_le_bytes()).collect();
        let len = code.len() as u64;
        // System V gABI: 64-bit, little-endian, an executable, one program header right behind.
        let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        elf.extend([2_u16, self.elf_machine].iter().flat_map(|half| half.to_le_bytes()));
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

    /// Writes the file for one of the two machines.
    pub(super) fn write(&self, path: &Path, address: u64) -> Result<()> {
        std::fs::write(path, self.elf(address)).with_context(|| format!("cannot write {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object::{Object, ObjectSegment};

    #[test]
    fn the_tiny_kernel_is_an_elf_file_with_one_segment() -> Result<()> {
        for (name, architecture, len) in
            [("riscv64", object::Architecture::Riscv64, 20), ("aarch64", object::Architecture::Aarch64, 16)]
        {
            let tiny = &Platform::named(name)?.tiny;
            let bytes = tiny.elf(0x8020_0000);
            let elf = object::File::parse(bytes.as_slice())?;
            assert_eq!((elf.architecture(), elf.entry()), (architecture, 0x8020_0000));
            let segments: Vec<_> = elf.segments().collect();
            assert_eq!((segments.len(), segments[0].address(), segments[0].size()), (1, 0x8020_0000, len));
            assert_eq!(segments[0].data()?[..4], tiny.code[0].to_le_bytes());
        }
        Ok(())
    }

    #[test]
    fn an_unknown_instruction_set_is_refused_with_the_known_ones() {
        let error = Platform::named("vax").map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("vax") && error.contains("riscv64"), "{error}");
    }
}
