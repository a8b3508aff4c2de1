//! Blocks to text.

use super::{
    Dialect,
    form::{self, Form, Number},
    names::{Named, mnemonic},
};
use crate::{
    block::{Block, Inst, LinkHint},
    types::{HelperId, MemFlags, Order, Slot, Type, Value},
};
use std::fmt::{Error, Result, Write};

/// Writes a whole block. Any block can be written, however malformed.
pub(super) fn block(block: &Block, dialect: Dialect<'_>, out: &mut dyn Write) -> Result {
    let fp = &block.fp;
    write!(out, "block mode={:#x} len={} insns={} ", block.mode, block.len, block.insn_count)?;
    write!(out, "fp={},{}", fp.nan.name(), fp.tininess.name())?;
    for (flag, word) in [(fp.flush_inputs, "flush_inputs"), (fp.flush_outputs, "flush_outputs")] {
        if flag {
            write!(out, ",{word}")?;
        }
    }
    out.write_str(" {\n")?;
    for inst in &block.insts {
        operation(inst, dialect, out)?;
    }
    write!(out, "  {}", form::terminal_name(&block.terminal))?;
    let mut terminal = block.terminal;
    form::terminal(&mut terminal, &mut Printer { dialect, out, operands: 0 })?;
    out.write_str("\n}\n")
}

fn operation(inst: &Inst, dialect: Dialect<'_>, out: &mut dyn Write) -> Result {
    out.write_str("  ")?;
    let slot_type = |slot: Slot| dialect.slots.get(usize::from(slot.0)).map_or(Type::I64, |desc| desc.ty);
    let (_, results) = inst.op.results(slot_type);
    for i in 0..results as u32 {
        let end = if i + 1 == results as u32 { " = " } else { ", " };
        write!(out, "v{}{end}", inst.first.0.wrapping_add(i))?;
    }
    out.write_str(mnemonic(&inst.op))?;
    let mut op = inst.op;
    form::operation(&mut op, &mut Printer { dialect, out, operands: 0 })?;
    out.write_char('\n')
}

struct Printer<'a> {
    dialect: Dialect<'a>,
    out: &'a mut dyn Write,
    /// Operands so far.
    operands: u32,
}

impl Printer<'_> {
    fn operand(&mut self, text: std::fmt::Arguments<'_>) -> Result {
        self.out.write_str(if self.operands == 0 { " " } else { ", " })?;
        self.operands += 1;
        self.out.write_fmt(text)
    }

    fn named(&mut self, name: Option<&'static str>, number: u16) -> Result {
        match name {
            Some(name) => self.operand(format_args!("{name}")),
            None => self.operand(format_args!("#{number}")),
        }
    }
}

impl Form for Printer<'_> {
    type Error = Error;

    fn word<E: Named>(&mut self, word: &mut E) -> Result {
        write!(self.out, ".{}", word.name())
    }

    fn flag(&mut self, flag: &mut bool, words: [&'static str; 2]) -> Result {
        write!(self.out, ".{}", words[usize::from(*flag)])
    }

    fn optional_type(&mut self, ty: &mut Option<Type>) -> Result {
        write!(self.out, ".{}", ty.map_or("none", Type::name))
    }

    fn value(&mut self, v: &mut Value) -> Result {
        self.operand(format_args!("{v:?}"))
    }

    fn address(&mut self, v: &mut Value) -> Result {
        self.operand(format_args!("[{v:?}]"))
    }

    fn optional_value(&mut self, v: &mut Option<Value>) -> Result {
        v.as_mut().map_or(Ok(()), |v| self.value(v))
    }

    fn arguments(&mut self, args: &mut [Option<Value>; 4]) -> Result {
        let count = args.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        args[..count].iter_mut().try_for_each(|arg| match arg {
            Some(v) => self.value(v),
            None => self.operand(format_args!("_")),
        })
    }

    fn slot(&mut self, slot: &mut Slot) -> Result {
        self.named(self.dialect.slots.get(usize::from(slot.0)).map(|desc| desc.name), slot.0)
    }

    fn helper(&mut self, helper: &mut HelperId) -> Result {
        self.named(self.dialect.helpers.get(usize::from(helper.0)).copied(), helper.0)
    }

    fn bits<N: Number>(&mut self, bits: &mut N) -> Result {
        self.operand(format_args!("{:#x}", bits.to_wide()))
    }

    fn number(&mut self, number: &mut u8) -> Result {
        self.operand(format_args!("{number}"))
    }

    fn offset(&mut self, offset: &mut i64) -> Result {
        self.operand(format_args!("{offset:+}"))
    }

    fn order(&mut self, order: &mut Order) -> Result {
        self.operand(format_args!("{}", order.name()))
    }

    fn mem_flags(&mut self, flags: &mut MemFlags) -> Result {
        self.operand(format_args!("mmu={} {}", flags.mmu.0, flags.order.name()))?;
        form::exceptions(flags)
            .into_iter()
            .filter(|(_, applies)| *applies)
            .try_for_each(|(word, _)| write!(self.out, " {word}"))
    }

    fn hint(&mut self, hint: &mut LinkHint) -> Result {
        match hint {
            LinkHint::None => Ok(()),
            LinkHint::Call { return_offset } => write!(self.out, " call {return_offset:+}"),
            LinkHint::Return => self.out.write_str(" return"),
        }
    }

    fn insn(&mut self, offset: &mut u32, len: &mut u8) -> Result {
        write!(self.out, " +{offset} {len}")
    }
}
