//! From a sequence that ends differently to the few items that matter, and to text.

use super::{
    Oracle,
    record::{Kind, Record, Word},
    subject::{Sequence, Subject},
};
use anyhow::{Context, Result, bail};
use isomer_engine::EngineKind;
use isomer_ir::Guest;
use std::fmt::Write;

impl<S: Subject> Oracle<S> {
    /// Takes items out of a sequence as long as it still ends differently.
    ///
    /// # Errors
    /// When a program cannot be run.
    pub(crate) fn reduce(&self, whole: &Sequence, input: &Record, engine: EngineKind) -> Result<Sequence> {
        let some = |items: Vec<Vec<u8>>| Sequence { keeper: whole.keeper, items };
        let prefixes: Vec<_> = (1..whole.items.len()).map(|n| some(whole.items[..n].to_vec())).collect();
        let first = self.differing(&prefixes, input, engine)?.first().copied();
        let mut least = first.map_or_else(|| whole.clone(), |n| prefixes[n].clone());
        loop {
            let without = |gone: &[usize]| {
                let left = least.items.iter().enumerate().filter(|(n, _)| !gone.contains(n));
                some(left.map(|(_, item)| item.clone()).collect())
            };
            let single: Vec<_> = (0..least.items.len()).map(|n| without(&[n])).collect();
            let removable = self.differing(&single, input, engine)?;
            if removable.is_empty() {
                return Ok(least);
            }
            // One alone can go; of several together, as many as possible.
            let several: Vec<_> = (1..=removable.len()).map(|n| without(&removable[..n])).collect();
            match self.differing(&several, input, engine)?.last() {
                Some(&n) => least = several[n].clone(),
                None => return Ok(least),
            }
        }
    }

    /// The first of `sequences` whose program alone cannot be compared, without the items that do not matter.
    ///
    /// # Errors
    /// When none fails alone.
    pub(crate) fn failing(
        &self,
        sequences: &[(&Sequence, &[Record])],
        engines: &[EngineKind],
    ) -> Result<(Sequence, anyhow::Error)> {
        let mut left = sequences;
        while left.len() > 1 {
            let (first, second) = left.split_at(left.len() / 2);
            left = if self.compare(first, engines).is_err() { first } else { second };
        }
        let (sequence, inputs) = *left.first().context("no sequences")?;
        let mut least = sequence.clone();
        let mut n = least.items.len();
        while n > 0 {
            n -= 1;
            let mut fewer = least.clone();
            fewer.items.remove(n);
            if self.compare(&[(&fewer, inputs)], engines).is_err() {
                least = fewer;
            }
        }
        match self.compare(&[(&least, inputs)], engines) {
            Ok(_) => bail!("no sequence fails alone"),
            Err(error) => Ok((least, error)),
        }
    }

    /// Which of `candidates` end differently from `input`, in order.
    fn differing(&self, candidates: &[Sequence], input: &Record, engine: EngineKind) -> Result<Vec<usize>> {
        if candidates.is_empty() {
            return Ok(Vec::new());
        }
        let inputs = [input.clone()];
        let sequences: Vec<_> = candidates.iter().map(|sequence| (sequence, inputs.as_slice())).collect();
        Ok(self.compare(&sequences, &[engine])?.differing[0].iter().map(|pair| pair.number).collect())
    }

    /// A difference for people: code, what it starts from, and where it ends on either side.
    ///
    /// # Errors
    /// When the program cannot be run.
    pub(crate) fn describe(
        &self,
        sequence: &Sequence,
        input: &Record,
        engine: EngineKind,
    ) -> Result<Option<Report>> {
        let inputs = [input.clone()];
        let compared = self.compare(&[(sequence, &inputs)], &[engine])?;
        let Some(pair) = compared.differing[0].first() else { return Ok(None) };
        let start = pair.reference.get(Word::Sequence as i64) + 8;
        let mut text = self.listing(sequence, start);
        let last = text.lines().last().and_then(|line| line.split_whitespace().nth(2));
        let last = last.unwrap_or_default().to_owned();
        let names: Vec<_> = text.split([' ', ',', '(', ')', '\n']).map(str::to_owned).collect();
        text.push_str("  from\n");
        let layout = self.subject.layout();
        for register in &layout.0 {
            let is_status = matches!(register.kind, Kind::Status(_));
            if is_status || names.iter().any(|named| mentions(named, &register.name)) {
                let keeper = if register.at == Word::x(sequence.keeper) { " (scratch memory)" } else { "" };
                let _ = writeln!(text, "    {:<5} {:016x}{keeper}", register.name, input.get(register.at));
            }
        }
        let _ = writeln!(text, "  to       QEMU             {engine:?}");
        for (name, reference, ours) in pair.reference.differences(&pair.ours, layout) {
            let _ = writeln!(text, "    {name:<5} {reference:016x} {ours:016x}");
        }
        Ok(Some(Report { last, text }))
    }

    /// A sequence's assembly, as if its first item lay at `start`.
    pub(crate) fn listing(&self, sequence: &Sequence, start: u64) -> String {
        let code: Vec<u8> = sequence.bytes().collect();
        let (mut text, mut at) = (String::new(), 0);
        while at < code.len() {
            let pc = start + at as u64;
            let (assembly, len) = self.subject.guest().disassemble(&code[at..], pc);
            if len == 0 {
                break;
            }
            let hex: String = code[at..at + len].iter().rev().map(|byte| format!("{byte:02x}")).collect();
            let _ = writeln!(text, "    {pc:x}: {hex:>8}  {assembly}");
            at += len;
        }
        text
    }
}

/// Does an operand name this register? Vectors and narrow registers go by other letters (`v3.16b`, `w3`).
fn mentions(operand: &str, register: &str) -> bool {
    let number = |name: &str| name.trim_start_matches(|c: char| c.is_ascii_alphabetic()).parse::<u8>().ok();
    let plain = operand.trim_matches(['{', '}', '[', ']', '!']).split('.').next().unwrap_or_default();
    let is_alias = |letters: &str, register: &str| {
        plain.starts_with(|c| letters.contains(c))
            && number(plain).is_some_and(|n| number(register) == Some(n))
    };
    let is_vector = register.starts_with('d') && is_alias("bhsdqv", register);
    plain == register || is_vector || register.starts_with('x') && is_alias("wx", register)
}

/// A difference for people.
pub(crate) struct Report {
    /// The mnemonic of the last instruction: most often the culprit.
    pub(crate) last: String,
    pub(crate) text: String,
}

#[cfg(test)]
mod tests {
    use super::mentions;

    #[test]
    fn operands_name_registers_in_several_ways() {
        for (operand, register) in
            [("a0", "a0"), ("w3", "x3"), ("v3.16b", "d3"), ("{v7.4s", "dh7"), ("[x9]", "x9")]
        {
            assert!(mentions(operand, register), "{operand} {register}");
        }
        assert!(
            !mentions("#3", "x3") && !mentions("x3", "d3") && !mentions("w13", "x3") && !mentions("a1", "a0")
        );
    }
}
