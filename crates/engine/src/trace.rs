//! Human-readable traces of what a vCPU does, chosen by category.

use std::{io::Write, str::FromStr, sync::Mutex};

/// What to trace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// Every instruction, with its address and assembly text (slow: one instruction a block).
    pub insn: bool,
    /// Every page walk with its outcome.
    pub mmu: bool,
    /// Every trap and interrupt taken.
    pub irq: bool,
}

impl Trace {
    /// Is anything traced?
    pub const fn any(self) -> bool {
        self.insn || self.mmu || self.irq
    }
}

/// An unknown trace category.
#[derive(Debug, thiserror::Error)]
#[error("unknown trace category {0:?}: the categories are insn, mmu and irq")]
pub struct UnknownCategory(String);

impl FromStr for Trace {
    type Err = UnknownCategory;

    fn from_str(list: &str) -> Result<Self, Self::Err> {
        let mut trace = Self::default();
        for category in list.split(',').filter(|c| !c.is_empty()) {
            match category {
                "insn" => trace.insn = true,
                "mmu" => trace.mmu = true,
                "irq" => trace.irq = true,
                other => return Err(UnknownCategory(other.to_owned())),
            }
        }
        Ok(trace)
    }
}

/// Writes one trace line to standard error, whole.
pub(crate) fn line(vcpu: usize, text: std::fmt::Arguments<'_>) {
    static OUTPUT: Mutex<()> = Mutex::new(());
    let _guard = OUTPUT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    // A closed standard error loses the trace, nothing else.
    let _ = writeln!(std::io::stderr().lock(), "[cpu{vcpu}] {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn categories_parse() {
        assert_eq!("insn,irq".parse::<Trace>().unwrap(), Trace { insn: true, irq: true, mmu: false });
        assert!("insn,foo".parse::<Trace>().is_err());
    }
}
