//! The classes of instructions that the comparison counts.

use isomer_aarch64::encoding::Encoding;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Class {
    Integer,
    Branch,
    System,
    LoadStore,
    Exclusive,
    Atomic,
    VectorLoadStore,
    ScalarFp,
    Vector,
    Crypto,
}

const EXCLUSIVE: [&str; 4] = ["ldx", "ldax", "stx", "stlx"];
const ATOMIC: [&str; 8] = ["cas", "swp", "ldadd", "ldclr", "ldeor", "ldset", "ldsm", "ldum"];
const CRYPTO: [&str; 7] = ["aes", "sha", "pmull", "eor3", "rax1", "xar", "bcax"];
const BRANCH: [&str; 14] = [
    "b",
    "bl",
    "cbz",
    "cbnz",
    "tbz",
    "tbnz",
    "br",
    "blr",
    "ret",
    "retaa",
    "retab",
    "b.{bcond}",
    "braa",
    "blraa",
];
const SYSTEM: [&str; 24] = [
    "nop", "yield", "wfe", "wfi", "sev", "sevl", "esb", "psb", "tsb", "clearbhb", "csdb", "hint", "clrex",
    "ssbb", "pssbb", "dsb", "dmb", "isb", "sb", "msr", "mrs", "{sysop}", "bti", "udf",
];

impl Class {
    pub(super) fn of(row: Encoding) -> Self {
        let name = row.name();
        let begins = |list: &[&str]| list.iter().any(|beginning| name.starts_with(beginning));
        let is_literal = row.operands().ends_with("{imm19}") && (name.starts_with("ld") || name == "prfm");
        match row.is_fp() {
            _ if row.operands().contains("[{Xnsp}") || is_literal => match row.is_fp() {
                true => Self::VectorLoadStore,
                false if begins(&EXCLUSIVE) => Self::Exclusive,
                false if begins(&ATOMIC) && !name.starts_with("ldar") => Self::Atomic,
                false => Self::LoadStore,
            },
            true if begins(&CRYPTO) => Self::Crypto,
            true if row.operands().contains("{V") => Self::Vector,
            true => Self::ScalarFp,
            false if BRANCH.contains(&name) || name.starts_with("bra") || name.starts_with("blra") => {
                Self::Branch
            }
            false if SYSTEM.contains(&name) => Self::System,
            false => Self::Integer,
        }
    }

    /// Does it go to memory?
    pub(super) const fn is_access(self) -> bool {
        matches!(self, Self::LoadStore | Self::Exclusive | Self::Atomic | Self::VectorLoadStore)
    }

    /// For people.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Integer => "integer",
            Self::Branch => "branches",
            Self::System => "system",
            Self::LoadStore => "loads and stores",
            Self::Exclusive => "exclusives",
            Self::Atomic => "atomics",
            Self::VectorLoadStore => "FP and vector accesses",
            Self::ScalarFp => "scalar FP",
            Self::Vector => "Advanced SIMD",
            Self::Crypto => "crypto",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_classed() {
        for (name, class) in [
            ("madd", Class::Integer),
            ("cbz", Class::Branch),
            ("isb", Class::System),
            ("ldp", Class::LoadStore),
            ("ldaxrb", Class::Exclusive),
            ("casal", Class::Atomic),
            ("ldarb", Class::LoadStore),
            ("aese", Class::Crypto),
        ] {
            let row = Encoding::all().find(|row| row.name() == name && !(name == "ldp" && row.is_fp()));
            assert_eq!(row.map(Class::of), Some(class), "{name}");
        }
    }
}
