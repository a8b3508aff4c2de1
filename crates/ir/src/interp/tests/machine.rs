//! A CPU with every kind of slot, and an environment with every kind of memory, for tests.

use crate::{
    CpuHeader, CpuState, SlotDesc,
    guest::Access,
    interp::{Code, Entry, Env, Fault, HostPlace},
    op::Op,
    softfloat::{NanRule, Tininess},
    types::{FpModel, HelperId, MemFlags, MmuIndex, Slot, Type},
};
use std::{collections::HashMap, ptr::NonNull, sync::Arc, sync::atomic::AtomicU32};

/// Words of state that slots name: a part that operations can name, and what lies beyond.
const NEAR: usize = 192;
const FAR: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Cpu {
    pub(crate) header: CpuHeader,
    pub(crate) near: [u64; NEAR],
    pub(crate) far: [u64; FAR],
}

// SAFETY: `repr(C)`, header first, integers only; slots end inside `far`.
unsafe impl CpuState for Cpu {
    fn header(&self) -> &CpuHeader {
        &self.header
    }
    fn header_mut(&mut self) -> &mut CpuHeader {
        &mut self.header
    }
}

impl Default for Cpu {
    fn default() -> Self {
        Self { header: CpuHeader::default(), near: [0; NEAR], far: [0; FAR] }
    }
}

impl Cpu {
    /// Everything a guest could see: the temporaries are nobody's business.
    pub(crate) fn visible(&self) -> Self {
        let mut cpu = self.clone();
        cpu.header.temps = CpuHeader::default().temps;
        cpu
    }
}

const fn slot(name: &'static str, unit: usize, byte: u32, ty: Type) -> SlotDesc {
    SlotDesc { name, offset: 512 + unit as u32 * 8 + byte, ty }
}

/// `x0` to `x7`, then slots that overlap some of them and each other, then distant ones.
pub(crate) static SLOTS: &[SlotDesc] = &[
    slot("x0", 0, 0, Type::I64),
    slot("x1", 1, 0, Type::I64),
    slot("x2", 2, 0, Type::I64),
    slot("x3", 3, 0, Type::I64),
    slot("x4", 4, 0, Type::I64),
    slot("x5", 5, 0, Type::I64),
    slot("x6", 6, 0, Type::I64),
    slot("x7", 7, 0, Type::I64),
    slot("v6", 6, 0, Type::V128),
    slot("v7", 7, 0, Type::V128),
    slot("v9", 9, 0, Type::V128),
    slot("x5.b0", 5, 0, Type::I8),
    slot("x5.h2", 5, 2, Type::I16),
    slot("x5.s4", 5, 4, Type::I32),
    slot("v9.b9", 10, 1, Type::I8),
    slot("v9.d1", 10, 0, Type::I64),
    slot("last", NEAR - 1, 0, Type::I64),
    slot("across", NEAR - 1, 0, Type::V128),
    slot("far", NEAR + 1, 0, Type::I64),
    slot("far.v", NEAR + 1, 0, Type::V128),
    slot("far.b", NEAR + 1, 3, Type::I8),
    slot("far.s", NEAR + 2, 4, Type::I32),
    SlotDesc { name: "rounding and flags", offset: 12, ty: Type::I16 },
];

/// The plain registers among [`SLOTS`].
pub(crate) const REGISTERS: u16 = 8;

pub(crate) const MODEL: FpModel =
    FpModel { nan: NanRule::Canonical, tininess: Tininess::After, flush_inputs: false, flush_outputs: false };

/// Plain RAM, found by `read_hit`.
pub(crate) const FAST: u64 = 0x1000;
/// RAM behind the slow path; beyond it accesses fault.
pub(crate) const END: u64 = 0x2000;

#[repr(C, align(4096))]
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Ram(pub(crate) [u8; END as usize]);

/// An environment that writes down what it was asked to do.
pub(crate) struct Machine {
    pub(crate) ram: Box<Ram>,
    pub(crate) log: Vec<String>,
    pub(crate) attention: Arc<AtomicU32>,
    pub(crate) blocks: HashMap<(u64, u32), Code>,
    pub(crate) lookups: u32,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let mut ram = Box::new(Ram([0; END as usize]));
        ram.0.iter_mut().enumerate().for_each(|(i, byte)| *byte = ((i * 37) >> 3) as u8);
        Self { ram, log: Vec::new(), attention: Arc::default(), blocks: HashMap::new(), lookups: 0 }
    }

    fn host(&self, va: u64) -> NonNull<u8> {
        let ram: *const u8 = self.ram.0.as_ptr();
        NonNull::new(ram.wrapping_add(va as usize).cast_mut()).unwrap()
    }

    fn hit(&self, va: u64, size: u64, mmu: MmuIndex) -> Option<NonNull<u8>> {
        (va.is_multiple_of(size) && va < FAST && mmu.0 < 2).then(|| self.host(va))
    }

    fn bytes(&mut self, va: u64, size: u32) -> Result<&mut [u8], Fault> {
        let end = va.checked_add(u64::from(size)).filter(|&end| end <= END).ok_or(Fault)?;
        Ok(&mut self.ram.0[va as usize..end as usize])
    }
}

// SAFETY: hits are inside `ram`, which is page-aligned and never moves; blocks stay in `blocks`.
unsafe impl Env for Machine {
    type Cpu = Cpu;

    fn attention(&self) -> &AtomicU32 {
        &self.attention
    }
    fn read_hit(&self, va: u64, size: u64, mmu: MmuIndex) -> Option<NonNull<u8>> {
        self.hit(va, size, mmu)
    }
    fn write_hit(&self, va: u64, size: u64, mmu: MmuIndex) -> Option<NonNull<u8>> {
        self.hit(va, size, mmu)
    }
    fn load(&mut self, _: &mut Cpu, va: u64, size: u32, _: MemFlags) -> Result<u64, Fault> {
        let bytes = self.bytes(va, size)?;
        Ok(bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }
    fn store(&mut self, _: &mut Cpu, va: u64, size: u32, value: u64, _: MemFlags) -> Result<(), Fault> {
        let bytes = self.bytes(va, size)?;
        bytes.copy_from_slice(&value.to_le_bytes()[..size as usize]);
        Ok(())
    }
    fn probe_store(&mut self, _: &mut Cpu, va: u64, size: u32, _: MemFlags) -> Result<(), Fault> {
        self.bytes(va, size).map(|_| ())
    }
    fn resolve(
        &mut self,
        _: &mut Cpu,
        va: u64,
        size: u32,
        _: Access,
        _: MemFlags,
    ) -> Result<HostPlace, Fault> {
        self.bytes(va, size)?;
        Ok(HostPlace { host: self.host(va) })
    }
    fn misaligned(&mut self, _: &mut Cpu, va: u64, access: Access) -> Fault {
        self.log.push(format!("misaligned {access:?} {va:#x}"));
        Fault
    }
    fn call(&mut self, cpu: &mut Cpu, helper: HelperId, args: [u64; 4]) -> Result<u64, Fault> {
        self.log.push(format!("call {} {args:x?} {:x?}", helper.0, &cpu.near[..11]));
        match helper.0 {
            // Changes registers behind the block's back.
            0 => {
                cpu.near[2] ^= 0x55;
                cpu.near[6] = cpu.near[6].wrapping_mul(3).wrapping_add(args[0]);
                cpu.near[9] = !cpu.near[9];
            }
            1 if args[0] % 3 == 1 => return Err(Fault),
            2 => cpu.header.mode ^= 1,
            4 => return Ok(cpu.header.insns),
            _ => {}
        }
        Ok(args.iter().fold(7, |sum: u64, arg| sum.rotate_left(9) ^ arg))
    }
    fn lookup_hit(&self, _: u64, _: u32) -> Option<Entry> {
        None
    }
    fn lookup(&mut self, cpu: &mut Cpu) -> Option<Entry> {
        self.lookups += 1;
        Some(self.blocks.get(&(cpu.header.pc, cpu.header.mode))?.entry())
    }
}

/// The operation's slot names for failure reports.
pub(crate) fn describe(op: &Op) -> String {
    match op {
        Op::Get { slot: Slot(s) } => format!("Get {}", SLOTS[usize::from(*s)].name),
        Op::Set { slot: Slot(s), value } => format!("Set {} {value:?}", SLOTS[usize::from(*s)].name),
        op => format!("{op:?}"),
    }
}
