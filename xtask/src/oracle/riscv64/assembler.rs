//! An assembler for what the harness itself needs: instructions by name and field, from the guest's own table.

use anyhow::{Context, Result, bail};
use isomer_riscv64::encoding::{Encoding, Field};
use std::collections::HashMap;

/// Registers by their ABI names, as far as the harness uses them.
pub(crate) mod reg {
    pub(crate) const ZERO: u8 = 0;
    pub(crate) const RA: u8 = 1;
    pub(crate) const SP: u8 = 2;
    pub(crate) const GP: u8 = 3;
    pub(crate) const T0: u8 = 5;
    pub(crate) const T1: u8 = 6;
    pub(crate) const T2: u8 = 7;
    pub(crate) const S0: u8 = 8;
    pub(crate) const S1: u8 = 9;
    pub(crate) const A0: u8 = 10;
    pub(crate) const A1: u8 = 11;
    pub(crate) const A2: u8 = 12;
    pub(crate) const A3: u8 = 13;
    pub(crate) const A7: u8 = 17;
}

/// The instruction table by name.
#[derive(Debug)]
pub(crate) struct Table(HashMap<&'static str, Encoding>);

impl Table {
    pub(crate) fn new() -> Self {
        Self(Encoding::all().map(|row| (row.name(), row)).collect())
    }

    /// The row called `name`.
    pub(crate) fn row(&self, name: &str) -> Result<Encoding> {
        self.0.get(name).copied().with_context(|| format!("no instruction {name}"))
    }

    /// `name` with these fields and the others 0.
    pub(crate) fn encode(&self, name: &str, fields: &[(Field, i64)]) -> Result<u32> {
        let row = self.row(name)?;
        fields.iter().try_fold(row.fill(0), |insn, &(field, value)| {
            row.set(insn, field, value).with_context(|| format!("{name}: {field:?} cannot be {value}"))
        })
    }
}

/// Code at a known address.
#[derive(Debug)]
pub(crate) struct Code<'a> {
    table: &'a Table,
    base: u64,
    pub(crate) bytes: Vec<u8>,
}

impl<'a> Code<'a> {
    pub(crate) fn new(table: &'a Table, base: u64) -> Self {
        Self { table, base, bytes: Vec::new() }
    }

    /// The address of what comes next.
    pub(crate) fn here(&self) -> u64 {
        self.base + self.bytes.len() as u64
    }

    /// Appends an instruction.
    pub(crate) fn insn(&mut self, name: &str, fields: &[(Field, i64)]) -> Result<()> {
        let insn = self.table.encode(name, fields)?;
        self.bytes.extend_from_slice(&insn.to_le_bytes()[..self.table.row(name)?.bytes()]);
        Ok(())
    }

    /// `name rd, rs1, imm`, and loads: `name rd, imm(rs1)`.
    pub(crate) fn imm(&mut self, name: &str, rd: u8, rs1: u8, imm: i64) -> Result<()> {
        self.insn(name, &[(Field::Rd, rd.into()), (Field::Rs1, rs1.into()), (Field::Imm, imm)])
    }

    /// `name rs2, imm(rs1)`, and branches: `name rs1, rs2, imm`.
    pub(crate) fn pair(&mut self, name: &str, rs1: u8, rs2: u8, imm: i64) -> Result<()> {
        self.insn(name, &[(Field::Rs1, rs1.into()), (Field::Rs2, rs2.into()), (Field::Imm, imm)])
    }

    /// `name rd, rs1, rs2`.
    pub(crate) fn three(&mut self, name: &str, rd: u8, rs1: u8, rs2: u8) -> Result<()> {
        self.insn(name, &[(Field::Rd, rd.into()), (Field::Rs1, rs1.into()), (Field::Rs2, rs2.into())])
    }

    /// `name rd, csr, rs1`.
    pub(crate) fn csr(&mut self, name: &str, rd: u8, csr: u16, rs1: u8) -> Result<()> {
        self.insn(name, &[(Field::Rd, rd.into()), (Field::Csr, csr.into()), (Field::Rs1, rs1.into())])
    }

    /// `auipc rd` such that the rest of the way to `address`, which is returned, is a 12-bit immediate.
    fn upper(&mut self, rd: u8, address: u64) -> Result<i64> {
        let distance = address.wrapping_sub(self.here()).cast_signed();
        let low = distance << 52 >> 52;
        self.insn("auipc", &[(Field::Rd, rd.into()), (Field::Imm, distance - low)])?;
        Ok(low)
    }

    /// Puts `address` into `rd`.
    pub(crate) fn address(&mut self, rd: u8, address: u64) -> Result<()> {
        let low = self.upper(rd, address)?;
        self.imm("addi", rd, rd, low)
    }

    /// Loads the doubleword at `address` into `rd`.
    pub(crate) fn load(&mut self, rd: u8, address: u64) -> Result<()> {
        let low = self.upper(rd, address)?;
        self.imm("ld", rd, rd, low)
    }

    /// Jumps to `address`, at most 1 MiB away.
    pub(crate) fn jump(&mut self, address: u64) -> Result<()> {
        let distance = address.wrapping_sub(self.here()).cast_signed();
        if !(-(1 << 20)..1 << 20).contains(&distance) {
            bail!("too much code: {distance} bytes to {address:#x}");
        }
        self.insn("jal", &[(Field::Imm, distance)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_relative_to_the_code() -> Result<()> {
        let table = Table::new();
        let mut code = Code::new(&table, 0x8000_1000);
        code.load(reg::A0, 0x8000_0ff8)?; // auipc a0,0; ld a0,-8(a0)
        code.jump(0x8000_1000)?; // j .-8
        let words: Vec<u32> =
            code.bytes.chunks_exact(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]])).collect();
        assert_eq!(words, [0x0000_0517, 0xff85_3503, 0xff9f_f06f]);
        assert!(code.jump(0x9000_0000).is_err());
        assert!(code.insn("frobnicate", &[]).is_err());
        Ok(())
    }
}
