//! The four instruction sets of the embedded guest, and what Debian and the kernel's build call each of them.

use clap::ValueEnum;

use crate::tools::Tool;

/// An instruction set the recipe can build for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Arch {
    #[value(name = "riscv64")]
    Riscv64,
    #[value(name = "aarch64")]
    Aarch64,
    #[value(name = "x86_64")]
    X86_64,
    #[value(name = "ppc64le")]
    Ppc64le,
}

/// What differs between the instruction sets.
pub(crate) struct Recipe {
    /// Our name: of the image folder and of the configuration fragment.
    pub(crate) name: &'static str,
    /// Debian's name of the architecture.
    pub(crate) debian: &'static str,
    /// The kernel's `ARCH=`.
    pub(crate) kbuild: &'static str,
    /// Prefix of the cross tools, the kernel's `CROSS_COMPILE=`.
    pub(crate) cross: &'static str,
    /// The cross compiler.
    pub(crate) compiler: Tool,
    /// The kernel's make goal, and the file it leaves below the object folder.
    pub(crate) goal: &'static str,
    pub(crate) image_path: &'static str,
    /// The image's format as the manifest states it.
    pub(crate) image_format: &'static str,
    /// An ELF image carries symbols that a loader has no use for.
    pub(crate) strip: bool,
}

impl Arch {
    pub(crate) const ALL: [Arch; 4] = [Arch::Riscv64, Arch::Aarch64, Arch::X86_64, Arch::Ppc64le];

    pub(crate) fn recipe(self) -> &'static Recipe {
        match self {
            Arch::Riscv64 => &RISCV64,
            Arch::Aarch64 => &AARCH64,
            Arch::X86_64 => &X86_64,
            Arch::Ppc64le => &PPC64LE,
        }
    }
}

const RISCV64: Recipe = Recipe {
    name: "riscv64",
    debian: "riscv64",
    kbuild: "riscv",
    cross: "riscv64-linux-gnu-",
    compiler: Tool::program("riscv64-linux-gnu-gcc", "gcc-riscv64-linux-gnu"),
    goal: "Image",
    image_path: "arch/riscv/boot/Image",
    image_format: "Image",
    strip: false,
};

const AARCH64: Recipe = Recipe {
    name: "aarch64",
    debian: "arm64",
    kbuild: "arm64",
    cross: "aarch64-linux-gnu-",
    compiler: Tool::program("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
    goal: "Image",
    image_path: "arch/arm64/boot/Image",
    image_format: "Image",
    strip: false,
};

const X86_64: Recipe = Recipe {
    name: "x86_64",
    debian: "amd64",
    kbuild: "x86",
    cross: "x86_64-linux-gnu-",
    compiler: Tool::program("x86_64-linux-gnu-gcc", "gcc-x86-64-linux-gnu"),
    goal: "bzImage",
    image_path: "arch/x86/boot/bzImage",
    image_format: "bzImage",
    strip: false,
};

const PPC64LE: Recipe = Recipe {
    name: "ppc64le",
    debian: "ppc64el",
    kbuild: "powerpc",
    cross: "powerpc64le-linux-gnu-",
    compiler: Tool::program("powerpc64le-linux-gnu-gcc", "gcc-powerpc64le-linux-gnu"),
    goal: "vmlinux",
    image_path: "vmlinux",
    image_format: "vmlinux",
    strip: true,
};
