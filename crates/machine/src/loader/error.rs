//! Why boot files are refused: each error says what is wrong, by which code scripts know it, and what to do.

use super::Span;
use isomer_core::MemoryError;
use miette::Diagnostic;
use std::fmt;

/// What a file was given as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// An operating system kernel, or what is started in its place.
    Kernel,
    /// Machine-mode firmware.
    Firmware,
    /// The initial RAM disk.
    Initrd,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kernel => "kernel",
            Self::Firmware => "firmware",
            Self::Initrd => "initrd",
        })
    }
}

/// Why a boot file could not be loaded.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum LoadError {
    /// Nothing in it.
    #[error("the {role} is empty")]
    #[diagnostic(
        code(isomer::load::empty),
        help("the file has no bytes: was its download or build interrupted? Get it again")
    )]
    Empty {
        /// What it was given as.
        role: Role,
    },

    /// It ends before its own header says.
    #[error("the {role} is truncated: its {format} header promises {need} bytes, the file has {have}")]
    #[diagnostic(
        code(isomer::load::truncated),
        help("copy or download the file again and compare its checksum")
    )]
    Truncated {
        /// What it was given as.
        role: Role,
        /// The format whose header was read.
        format: &'static str,
        /// Bytes the header asks for.
        need: u64,
        /// Bytes there are.
        have: u64,
    },

    /// A format that is known, and not what is needed here.
    #[error("the {role} is {what}")]
    #[diagnostic(code(isomer::load::foreign_format), help("{fix}"))]
    Foreign {
        /// What it was given as.
        role: Role,
        /// What it is instead.
        what: &'static str,
        /// What to do.
        fix: &'static str,
    },

    /// Code of another instruction set.
    #[error("the {role} is for {found}, but this machine is {expected}")]
    #[diagnostic(
        code(isomer::load::wrong_isa),
        help("give a {role} built for {expected}, or choose the machine with --arch")
    )]
    WrongIsa {
        /// What it was given as.
        role: Role,
        /// The file's instruction set.
        found: String,
        /// The machine's.
        expected: &'static str,
    },

    /// Nothing that is recognised.
    #[error("the {role} is in no known format (it starts with {start})")]
    #[diagnostic(code(isomer::load::unknown_format), help("expected {expected}"))]
    Unknown {
        /// What it was given as.
        role: Role,
        /// Its first bytes in hexadecimal.
        start: String,
        /// What would have been accepted.
        expected: &'static str,
    },

    /// The format is right and its content is not.
    #[error("the {role} is damaged: {format}: {why}")]
    #[diagnostic(
        code(isomer::load::damaged),
        help("build or download the file again; if it boots elsewhere, report this as a bug")
    )]
    Damaged {
        /// What it was given as.
        role: Role,
        /// The format.
        format: &'static str,
        /// What is wrong with it.
        why: String,
    },

    /// It unpacks to more than the machine's RAM.
    #[error("the {role} unpacks to more than the machine's {ram_mib} MiB of memory")]
    #[diagnostic(code(isomer::load::unpacks_too_large), help("give the machine more memory with --memory"))]
    UnpacksTooLarge {
        /// What it was given as.
        role: Role,
        /// The machine's memory.
        ram_mib: u64,
    },

    /// It asks for addresses where there is no RAM.
    #[error("the {role} wants to be at {span}, which is not in the machine's memory")]
    #[diagnostic(
        code(isomer::load::outside_memory),
        help("give the machine more memory with --memory, or link the file to addresses in {ram}")
    )]
    OutsideMemory {
        /// What it was given as.
        role: Role,
        /// Where it wants to be.
        span: Span,
        /// Where RAM is.
        ram: Span,
    },

    /// No free place is large enough.
    #[error("no room in memory for the {what} ({len} bytes) beside {others}")]
    #[diagnostic(
        code(isomer::load::no_room),
        help("give the machine more memory with --memory, or a smaller {what}")
    )]
    NoRoom {
        /// What is to be placed.
        what: &'static str,
        /// Its size.
        len: u64,
        /// What is there already.
        others: String,
    },

    /// Two things want the same memory.
    #[error("the {first} at {first_span} and the {second} at {second_span} overlap")]
    #[diagnostic(
        code(isomer::load::overlap),
        help("give the machine more memory with --memory, or link one of them to other addresses")
    )]
    Overlap {
        /// The lower one.
        first: &'static str,
        /// Where it is.
        first_span: Span,
        /// The higher one.
        second: &'static str,
        /// Where it is.
        second_span: Span,
    },

    /// Guest memory refused a write that was checked before: a bug, not the file's fault.
    #[error("cannot write the boot files to guest memory")]
    #[diagnostic(code(isomer::load::memory), help("this is a bug in Isomer: please report it"))]
    Memory(#[from] MemoryError),
}

/// The first bytes of a file, for messages.
pub(super) fn first_bytes(bytes: &[u8]) -> String {
    let hex: Vec<_> = bytes.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    hex.join(" ")
}
