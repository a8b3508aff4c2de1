//! Text to blocks. Total: any text gives a block or an error with its place.

use super::{
    Dialect,
    form::{self, Form, Number},
    names::{Named, template},
};
use crate::{
    block::{Block, Inst, LinkHint, Terminal},
    types::{Align, Endian, FpModel, HelperId, MemFlags, MmuIndex, Order, Slot, Type, Value},
};
use std::str::FromStr;

/// What is wrong with a text, and where.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct ParseError {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// What was expected, or what is there.
    pub message: String,
}

type Parsed<T = ()> = Result<T, ParseError>;

/// Reads a whole block.
pub(super) fn block(text: &str, dialect: Dialect<'_>) -> Parsed<Block> {
    let last = text.lines().count();
    let mut lines = text.lines().enumerate().filter_map(|(index, line)| {
        let code = line.split(';').next().unwrap_or("");
        (!code.trim().is_empty()).then_some(Cursor {
            line: index + 1,
            whole: code,
            rest: code,
            dialect,
            operands: 0,
        })
    });
    let mut body = None;
    while let Some(mut cursor) = lines.next() {
        let Some(block) = &mut body else {
            body = Some(cursor.header()?);
            continue;
        };
        if let Some(terminal) = cursor.block_line(block)? {
            block.terminal = terminal;
            let mut close = lines.next().ok_or_else(|| missing(last, "`}`"))?;
            close.symbol("}")?;
            close.end()?;
            return match lines.next() {
                Some(cursor) => Err(cursor.error("nothing may follow the block")),
                None => body.ok_or_else(|| missing(last, "a block")),
            };
        }
    }
    Err(missing(last, if body.is_some() { "a terminal" } else { "a block" }))
}

fn missing(last_line: usize, what: &str) -> ParseError {
    ParseError { line: last_line + 1, column: 1, message: format!("the text ends where {what} is expected") }
}

/// What is left of one line.
struct Cursor<'a> {
    line: usize,
    whole: &'a str,
    rest: &'a str,
    dialect: Dialect<'a>,
    /// Operands so far.
    operands: u32,
}

impl<'a> Cursor<'a> {
    fn error(&self, message: impl Into<String>) -> ParseError {
        let read = &self.whole[..self.whole.len() - self.rest.len()];
        ParseError { line: self.line, column: read.chars().count() + 1, message: message.into() }
    }

    fn expected(&self, what: &str) -> ParseError {
        self.error(format!("expected {what}"))
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn try_symbol(&mut self, symbol: &str) -> bool {
        self.skip_space();
        match self.rest.strip_prefix(symbol) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn symbol(&mut self, symbol: &str) -> Parsed {
        if self.try_symbol(symbol) { Ok(()) } else { Err(self.expected(&format!("`{symbol}`"))) }
    }

    fn end(&mut self) -> Parsed {
        self.skip_space();
        if self.rest.is_empty() { Ok(()) } else { Err(self.expected("the end of the line")) }
    }

    /// The longest run of characters that `accept` accepts.
    fn take(&mut self, accept: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !accept(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    fn ident(&mut self) -> &'a str {
        self.take(|c| c.is_ascii_alphanumeric() || c == '_')
    }

    /// Puts back what was read since `rest`, so that an error points at it.
    fn back<T>(&mut self, rest: &'a str, message: impl Into<String>) -> Parsed<T> {
        self.rest = rest;
        Err(self.error(message))
    }

    fn decimal<N: FromStr>(&mut self, what: &str) -> Parsed<N> {
        self.skip_space();
        let start = self.rest;
        let digits = self.take(|c| c.is_ascii_digit());
        digits.parse().or_else(|_| self.back(start, format!("expected {what}")))
    }

    fn signed(&mut self) -> Parsed<i64> {
        self.skip_space();
        let start = self.rest;
        if !self.rest.starts_with(['+', '-']) {
            return Err(self.expected("an offset with its sign"));
        }
        let number = self.take(|c| c.is_ascii_digit() || c == '+' || c == '-');
        number.parse().or_else(|_| self.back(start, "expected an offset of 64 bits"))
    }

    fn hexadecimal<N: Number>(&mut self) -> Parsed<N> {
        self.skip_space();
        let start = self.rest;
        self.symbol("0x")?;
        let digits = self.take(|c| c.is_ascii_hexdigit());
        match u128::from_str_radix(digits, 16).ok().and_then(N::from_wide) {
            Some(number) => Ok(number),
            None => self.back(start, "expected a hexadecimal number that fits"),
        }
    }

    fn name<E: Named>(&mut self) -> Parsed<E> {
        self.skip_space();
        let start = self.rest;
        let name = self.ident();
        match E::from_name(name) {
            Some(value) => Ok(value),
            None => self.back(start, format!("`{name}` is not {}", E::WHAT)),
        }
    }

    fn plain_value(&mut self) -> Parsed<Value> {
        self.symbol("v").map_err(|error| ParseError { message: "expected a value".into(), ..error })?;
        if !self.rest.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(self.expected("a value's number"));
        }
        self.decimal("a value's number").map(Value)
    }

    // --- lines

    fn header(&mut self) -> Parsed<Block> {
        self.symbol("block")?;
        self.symbol("mode=")?;
        let mode = self.hexadecimal()?;
        self.symbol("len=")?;
        let len = self.decimal("a length in bytes")?;
        self.symbol("insns=")?;
        let insn_count = self.decimal("a number of instructions")?;
        self.symbol("fp=")?;
        let nan = self.name()?;
        self.symbol(",")?;
        let tininess = self.name()?;
        let flush_inputs = self.try_symbol(",flush_inputs");
        let flush_outputs = self.try_symbol(",flush_outputs");
        self.symbol("{")?;
        self.end()?;
        Ok(Block {
            insts: Vec::new(),
            value_types: Vec::new(),
            terminal: Terminal::Exit { offset: 0 },
            mode,
            fp: FpModel { nan, tininess, flush_inputs, flush_outputs },
            insn_count,
            len,
            slots: self.dialect.slots,
        })
    }

    /// An operation, which is appended, or the terminal.
    fn block_line(&mut self, block: &mut Block) -> Parsed<Option<Terminal>> {
        self.skip_space();
        let results = self.results()?;
        let start = self.rest;
        let name = self.ident();
        if results.is_empty()
            && let Some(mut terminal) = form::terminal_template(name)
        {
            form::terminal(&mut terminal, self)?;
            return self.end().map(|()| Some(terminal));
        }
        let Some(mut op) = template(name) else {
            return self.back(start, format!("there is no operation `{name}`"));
        };
        form::operation(&mut op, self)?;
        self.end()?;
        let first = Value(block.value_types.len() as u32);
        // The slot is one of the table: `Form::slot` gives no other.
        let (types, count) = op.results(|slot| block.slots[usize::from(slot.0)].ty);
        let expected = (0..count as u32).map(|i| Value(first.0 + i));
        if !results.iter().copied().eq(expected.clone()) {
            let expected: Vec<Value> = expected.collect();
            self.rest = self.whole.trim_start();
            return Err(self.error(format!("`{name}` gives {count} results, which are {expected:?} here")));
        }
        block.value_types.extend_from_slice(&types[..count]);
        block.insts.push(Inst { op, first });
        Ok(None)
    }

    /// `v1, v2 =`, or nothing.
    fn results(&mut self) -> Parsed<Vec<Value>> {
        let is_value =
            |rest: &str| rest.strip_prefix('v').is_some_and(|n| n.starts_with(|c: char| c.is_ascii_digit()));
        let mut results = Vec::new();
        if is_value(self.rest) {
            results.push(self.plain_value()?);
            while self.try_symbol(",") {
                results.push(self.plain_value()?);
            }
            self.symbol("=")?;
            self.skip_space();
        }
        Ok(results)
    }

    // --- operands

    fn operand(&mut self) -> Parsed {
        if self.operands > 0 {
            self.symbol(",")?;
        }
        self.operands += 1;
        self.skip_space();
        Ok(())
    }

    /// A name or `#number`, as a number.
    fn numbered(&mut self, what: &str, limit: usize, find: impl Fn(&str) -> Option<usize>) -> Parsed<u16> {
        self.operand()?;
        let start = self.rest;
        let number = if self.try_symbol("#") {
            self.decimal::<u16>("a number").ok().filter(|&number| usize::from(number) < limit)
        } else {
            let name = self.take(|c| !c.is_whitespace() && c != ',');
            find(name).and_then(|index| u16::try_from(index).ok())
        };
        match number {
            Some(number) => Ok(number),
            None => self.back(start, format!("there is no such {what}")),
        }
    }
}

impl Form for Cursor<'_> {
    type Error = ParseError;

    fn word<E: Named>(&mut self, word: &mut E) -> Parsed {
        self.symbol(".")?;
        *word = self.name()?;
        Ok(())
    }

    fn flag(&mut self, flag: &mut bool, words: [&'static str; 2]) -> Parsed {
        self.symbol(".")?;
        let start = self.rest;
        let word = self.ident();
        match words.iter().position(|known| *known == word) {
            Some(index) => *flag = index == 1,
            None => return self.back(start, format!("expected `{}` or `{}`", words[0], words[1])),
        }
        Ok(())
    }

    fn optional_type(&mut self, ty: &mut Option<Type>) -> Parsed {
        self.symbol(".")?;
        *ty = if self.try_symbol("none") { None } else { Some(self.name()?) };
        Ok(())
    }

    fn value(&mut self, v: &mut Value) -> Parsed {
        self.operand()?;
        *v = self.plain_value()?;
        Ok(())
    }

    fn address(&mut self, v: &mut Value) -> Parsed {
        self.operand()?;
        self.symbol("[")?;
        *v = self.plain_value()?;
        self.symbol("]")
    }

    fn optional_value(&mut self, v: &mut Option<Value>) -> Parsed {
        self.skip_space();
        if !self.rest.is_empty() {
            self.operand()?;
            *v = Some(self.plain_value()?);
        }
        Ok(())
    }

    fn arguments(&mut self, args: &mut [Option<Value>; 4]) -> Parsed {
        for arg in args {
            self.skip_space();
            if self.rest.is_empty() {
                break;
            }
            self.operand()?;
            *arg = if self.try_symbol("_") { None } else { Some(self.plain_value()?) };
        }
        Ok(())
    }

    fn slot(&mut self, slot: &mut Slot) -> Parsed {
        let slots = self.dialect.slots;
        let number =
            self.numbered("slot", slots.len(), |name| slots.iter().position(|desc| desc.name == name))?;
        *slot = Slot(number);
        Ok(())
    }

    fn helper(&mut self, helper: &mut HelperId) -> Parsed {
        let helpers = self.dialect.helpers;
        let find = |name: &str| helpers.iter().position(|known| *known == name);
        *helper = HelperId(self.numbered("helper", usize::MAX, find)?);
        Ok(())
    }

    fn bits<N: Number>(&mut self, bits: &mut N) -> Parsed {
        self.operand()?;
        *bits = self.hexadecimal()?;
        Ok(())
    }

    fn number(&mut self, number: &mut u8) -> Parsed {
        self.operand()?;
        *number = self.decimal("a number below 256")?;
        Ok(())
    }

    fn offset(&mut self, offset: &mut i64) -> Parsed {
        self.operand()?;
        *offset = self.signed()?;
        Ok(())
    }

    fn order(&mut self, order: &mut Order) -> Parsed {
        self.operand()?;
        *order = self.name()?;
        Ok(())
    }

    fn mem_flags(&mut self, flags: &mut MemFlags) -> Parsed {
        self.operand()?;
        self.symbol("mmu=")?;
        flags.mmu = MmuIndex(self.decimal("a regime's number")?);
        flags.order = self.name()?;
        flags.endian = if self.try_symbol(form::BIG) { Endian::Big } else { Endian::Little };
        flags.align = if self.try_symbol(form::ALIGNED) { Align::Natural } else { Align::Any };
        Ok(())
    }

    fn hint(&mut self, hint: &mut LinkHint) -> Parsed {
        *hint = if self.try_symbol("call") {
            LinkHint::Call { return_offset: self.signed()? }
        } else if self.try_symbol("return") {
            LinkHint::Return
        } else {
            LinkHint::None
        };
        Ok(())
    }

    fn insn(&mut self, offset: &mut u32, len: &mut u8) -> Parsed {
        self.symbol("+")?;
        *offset = self.decimal("an offset of 32 bits")?;
        *len = self.decimal("a length below 256")?;
        Ok(())
    }
}
