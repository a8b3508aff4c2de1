//! TestFloat's functions, and the settings in which their results differ.

/// What an operand or a result is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    F16,
    F32,
    F64,
    I32,
    U32,
    I64,
    U64,
    /// What a comparison gives: 0 or 1.
    Bool,
}

impl Kind {
    pub(crate) const FORMATS: [Self; 3] = [Self::F16, Self::F32, Self::F64];
    const INTEGERS: [Self; 4] = [Self::U32, Self::U64, Self::I32, Self::I64];

    /// By TestFloat's name.
    fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::I32 => "i32",
            Self::U32 => "ui32",
            Self::I64 => "i64",
            Self::U64 => "ui64",
            Self::Bool => "bool",
        }
    }

    pub(crate) fn bits(self) -> u32 {
        match self {
            Self::F16 => 16,
            Self::F32 | Self::I32 | Self::U32 => 32,
            Self::F64 | Self::I64 | Self::U64 => 64,
            Self::Bool => 1,
        }
    }

    pub(crate) fn is_float(self) -> bool {
        Self::FORMATS.contains(&self)
    }

    pub(crate) fn is_signed(self) -> bool {
        matches!(self, Self::I32 | Self::I64)
    }
}

/// Where results are rounded to, in the order of RISC-V's encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rounding {
    NearEven,
    MinMag,
    Min,
    Max,
    NearMaxMag,
    Odd,
}

impl Rounding {
    pub(crate) const ALL: [Self; 6] =
        [Self::NearEven, Self::MinMag, Self::Min, Self::Max, Self::NearMaxMag, Self::Odd];

    /// By TestFloat's name.
    pub(crate) fn name(self) -> &'static str {
        ["rnear_even", "rminMag", "rmin", "rmax", "rnear_maxMag", "rodd"][self as usize]
    }
}

/// A function that TestFloat has vectors of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Function {
    /// `add`, `sub`, `mul`, `div`.
    Binary(&'static str, Kind),
    Sqrt(Kind),
    MulAdd(Kind),
    /// `eq`, `lt`, `le` and those of the other signalling.
    Compare(Relation, Kind),
    RoundToInt(Kind),
    /// From, to.
    Convert(Kind, Kind),
}

/// What a comparison asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Relation {
    pub(crate) name: &'static str,
    /// `eq`, `lt` or `le`.
    pub(crate) asks: &'static str,
    /// A quiet NaN is invalid, too.
    pub(crate) signalling: bool,
}

const RELATIONS: [Relation; 6] = [
    Relation { name: "eq", asks: "eq", signalling: false },
    Relation { name: "le", asks: "le", signalling: true },
    Relation { name: "lt", asks: "lt", signalling: true },
    Relation { name: "eq_signaling", asks: "eq", signalling: true },
    Relation { name: "le_quiet", asks: "le", signalling: false },
    Relation { name: "lt_quiet", asks: "lt", signalling: false },
];

impl Function {
    /// All of the formats that guests have, but the remainder, for which none has an instruction.
    pub(crate) fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for format in Kind::FORMATS {
            all.extend(["add", "sub", "mul", "div"].map(|name| Self::Binary(name, format)));
            all.extend([Self::Sqrt(format), Self::MulAdd(format), Self::RoundToInt(format)]);
            all.extend(RELATIONS.map(|relation| Self::Compare(relation, format)));
            let others = Kind::FORMATS.into_iter().filter(|other| *other != format);
            all.extend(others.map(|other| Self::Convert(format, other)));
            all.extend(Kind::INTEGERS.map(|integer| Self::Convert(format, integer)));
            all.extend(Kind::INTEGERS.map(|integer| Self::Convert(integer, format)));
        }
        all
    }

    /// By TestFloat's name.
    pub(crate) fn name(self) -> String {
        let of = |name: &str, format: Kind| format!("{}_{name}", format.name());
        match self {
            Self::Binary(name, format) => of(name, format),
            Self::Sqrt(format) => of("sqrt", format),
            Self::MulAdd(format) => of("mulAdd", format),
            Self::Compare(relation, format) => of(relation.name, format),
            Self::RoundToInt(format) => of("roundToInt", format),
            Self::Convert(from, to) => format!("{}_to_{}", from.name(), to.name()),
        }
    }

    pub(crate) fn operands(self) -> (Kind, usize) {
        match self {
            Self::Binary(_, format) | Self::Compare(_, format) => (format, 2),
            Self::MulAdd(format) => (format, 3),
            Self::Sqrt(format) | Self::RoundToInt(format) | Self::Convert(format, _) => (format, 1),
        }
    }

    pub(crate) fn result(self) -> Kind {
        match self {
            Self::Compare(..) => Kind::Bool,
            Self::Convert(_, to) => to,
            _ => self.operands().0,
        }
    }

    /// Whether a result may have to be rounded.
    pub(crate) fn rounds(self) -> bool {
        match self {
            Self::Compare(..) => false,
            Self::Convert(from, to) if from.is_float() && to.is_float() => to.bits() < from.bits(),
            Self::Convert(from, Kind::F64) => from.bits() > 32,
            _ => true,
        }
    }
}

/// A function in one setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) function: Function,
    pub(crate) rounding: Rounding,
    /// Rounding to an integer raises the inexact flag. Elsewhere it always does.
    pub(crate) exact: bool,
}

impl Setting {
    /// Every one that makes a difference.
    pub(crate) fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for function in Function::all() {
            let roundings = if function.rounds() { Rounding::ALL.as_slice() } else { &[Rounding::NearEven] };
            let exactness =
                if matches!(function, Function::RoundToInt(_)) { [true, false].as_slice() } else { &[true] };
            for &rounding in roundings {
                all.extend(exactness.iter().map(|&exact| Self { function, rounding, exact }));
            }
        }
        all
    }

    /// Rounding and exactness, for people.
    pub(crate) fn describe(self) -> String {
        match (self.function.rounds(), self.exact) {
            (false, _) => "-".to_owned(),
            (true, true) => self.rounding.name().to_owned(),
            (true, false) => format!("{} notexact", self.rounding.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn functions_have_their_names_operands_and_results() {
        let by_name = |name: &str| Function::all().into_iter().find(|function| function.name() == name);
        for (name, operands, result, rounds) in [
            ("f16_mulAdd", (Kind::F16, 3), Kind::F16, true),
            ("f64_le_quiet", (Kind::F64, 2), Kind::Bool, false),
            ("f64_to_f32", (Kind::F64, 1), Kind::F32, true),
            ("f16_to_f64", (Kind::F16, 1), Kind::F64, false),
            ("ui32_to_f64", (Kind::U32, 1), Kind::F64, false),
            ("ui64_to_f64", (Kind::U64, 1), Kind::F64, true),
            ("f64_to_i32", (Kind::F64, 1), Kind::I32, true),
            ("i32_to_f32", (Kind::I32, 1), Kind::F32, true),
            ("f32_roundToInt", (Kind::F32, 1), Kind::F32, true),
        ] {
            let function = by_name(name).unwrap();
            assert_eq!(
                (function.operands(), function.result(), function.rounds()),
                (operands, result, rounds)
            );
        }
        let names: BTreeSet<_> = Function::all().into_iter().map(Function::name).collect();
        assert_eq!((names.len(), Function::all().len()), (69, 69));
    }

    #[test]
    fn settings_are_those_that_make_a_difference() {
        let of = |name: &str| Setting::all().into_iter().filter(|s| s.function.name() == name).count();
        assert_eq!((of("f32_add"), of("f32_lt"), of("f32_roundToInt"), of("f32_to_f64")), (6, 1, 12, 1));
    }
}
