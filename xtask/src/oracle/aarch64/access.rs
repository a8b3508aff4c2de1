//! How a load or store finds its address, from the assembly of its row in the decode table.

use isomer_aarch64::encoding::{Encoding, Field};

/// What is added to the base register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Offset {
    None,
    /// imm12, shifted by the size.
    Scaled(u32),
    /// imm9.
    Bytes,
    /// imm7, shifted by the size.
    Pair(u32),
    /// A register, extended, and shifted by the size if the instruction says so.
    Register(u32),
    Fixed(i64),
}

/// Whether the base register is written, and when.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Moves {
    No,
    Before,
    After,
}

/// An addressing mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Access {
    pub(super) offset: Offset,
    pub(super) moves: Moves,
    /// A misaligned one faults, here or there.
    pub(super) is_aligned: bool,
}

/// Mnemonics, by their beginnings, of accesses that must be aligned.
const ALIGNED: [&str; 22] = [
    "cas", "swp", "ldadd", "ldclr", "ldeor", "ldset", "ldsm", "ldum", "ldar", "ldlar", "ldapr", "ldapur",
    "stlr", "stllr", "stlur", "ldiapp", "stilp", "ldx", "ldax", "stx", "stlx", "stl1",
];

impl Access {
    /// The addressing mode of a row; `None` for those that have no base register.
    pub(super) fn of(row: Encoding) -> Option<Self> {
        const BASE: &str = "[{Xnsp}";
        let operands = row.operands();
        let rest = &operands[operands.find(BASE)? + BASE.len()..];
        let moves = match rest {
            _ if rest.ends_with("]!") => Moves::Before,
            _ if rest.starts_with("], ") => Moves::After,
            _ => Moves::No,
        };
        let shift = |after: &str| {
            let digit = rest.split_once(after).and_then(|(_, text)| text.chars().next());
            digit.and_then(|digit| digit.to_digit(10))
        };
        let fixed = rest.strip_prefix(", #-").and_then(|text| text.strip_suffix("]!"));
        let offset = None
            .or(shift("{off12.").map(Offset::Scaled))
            .or(shift("{off7.").map(Offset::Pair))
            .or(shift("{imm7.").map(Offset::Pair))
            .or(shift("{offreg.").map(Offset::Register))
            .or((rest.contains("{off9}") || rest.contains("{imm9}")).then_some(Offset::Bytes))
            .or(fixed.and_then(|text| text.parse::<i64>().ok()).map(|number| Offset::Fixed(-number)))
            .unwrap_or(Offset::None);
        let is_aligned = ALIGNED.iter().any(|name| row.name().starts_with(name));
        Some(Self { offset, moves, is_aligned })
    }

    /// The general registers that it writes, or might: a bit each.
    pub(super) fn written(self, row: Encoding, insn: u32) -> u32 {
        let mut all = 0;
        let name = row.name();
        let pair = name.starts_with("casp");
        // Rs and Rm are one field: a status, or data that is exchanged or loaded; else an index.
        let third = ["cas", "stx", "stlx", "ldiapp"].iter().any(|beginning| name.starts_with(beginning));
        if !row.is_fp() {
            for (field, is_data) in [(Field::Rt, true), (Field::Rt2, true), (Field::Rs, third)] {
                if row.has(field) && is_data {
                    let bit = 1 << field.of(insn);
                    all |= if pair { bit | bit << 1 } else { bit };
                }
            }
        }
        if self.moves == Moves::No { all } else { all | 1 << Field::Rn.of(insn) }
    }

    /// Not one of the combinations of registers that the manual calls constrained unpredictable.
    pub(super) fn is_predictable(self, row: Encoding, insn: u32) -> bool {
        let of = |field: Field| row.has(field).then(|| field.of(insn));
        let (t, n) = (Field::Rt.of(insn), Field::Rn.of(insn));
        let second = of(Field::Rt2).or(of(Field::Rm).filter(|_| matches!(row.name(), "stilp" | "ldiapp")));
        let loads_one_twice = row.name().starts_with('l') && second == Some(t);
        let moves_data = self.moves != Moves::No && !row.is_fp() && (t == n || second == Some(n));
        !loads_one_twice && !moves_data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addressing_modes_are_read_from_the_table() {
        let of = |name: &str, operands: &str| {
            let row = Encoding::all().find(|row| row.name() == name && row.operands() == operands);
            Access::of(row.unwrap_or_else(|| panic!("no row {name} {operands}")))
        };
        let access = |offset, moves, is_aligned| Some(Access { offset, moves, is_aligned });
        assert_eq!(of("ldr", "{Xt}, [{Xnsp}{off12.3}]"), access(Offset::Scaled(3), Moves::No, false));
        assert_eq!(of("ldr", "{Xt}, [{Xnsp}, #{imm9}]!"), access(Offset::Bytes, Moves::Before, false));
        assert_eq!(
            of("stp", "{Wt}, {Wt2}, [{Xnsp}], #{imm7.2}"),
            access(Offset::Pair(2), Moves::After, false)
        );
        assert_eq!(of("str", "{Wt}, [{Xnsp}, {offreg.2}]"), access(Offset::Register(2), Moves::No, false));
        assert_eq!(
            of("stilp", "{Xt}, {Xm}, [{Xnsp}, #-16]!"),
            access(Offset::Fixed(-16), Moves::Before, true)
        );
        assert_eq!(of("casal", "{Xs}, {Xt}, [{Xnsp}]"), access(Offset::None, Moves::No, true));
        assert_eq!(of("ldr", "{Xt}, {imm19}"), None);
    }

    #[test]
    fn what_is_written_is_known() {
        let written = |insn: u32| {
            let row = Encoding::of(&isomer_aarch64::Aarch64::max(), insn).expect("an instruction");
            Access::of(row).expect("an access").written(row, insn)
        };
        assert_eq!(written(0x48a3_fc94), 1 << 3 | 1 << 20, "cash w3, w20, [x4]");
        assert_eq!(written(0xf8e5_0002), 1 << 2, "ldaddal x5, x2, [x0]");
        assert_eq!(written(0x4822_7c04), 0b11_1100, "casp x2, x3, x4, x5, [x0]");
        assert_eq!(written(0xf861_6802), 1 << 2, "ldr x2, [x0, x1]");
        assert_eq!(written(0xa8c1_1002), 1 << 2 | 1 << 4 | 1, "ldp x2, x4, [x0], #16");
    }
}
