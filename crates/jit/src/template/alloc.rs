//! Where the values of a block are: registers of two classes, a place in the CPU, or nowhere because they can be made
//! again. One pass, no look-ahead but each value's last use. Knows no host: it decides, the host's emitter moves.
//!
//! Guest registers are written through, so most values have a *home*: the slot they were read from or written to, as long
//! as nobody else writes there. A value with a home leaves its register for free; the others are spilled to
//! `CpuHeader::temps`, which compiled code has for itself.

use isomer_ir::{
    Block, Op, Type, Value,
    state::{DIRECT_UNITS, TEMP_UNITS},
};

/// No register.
pub(super) const NONE: u8 = u8::MAX;
/// No place in the CPU.
pub(super) const NO_HOME: u32 = u32::MAX;
/// Byte offset of the spill area.
const TEMPS: u32 = std::mem::offset_of!(isomer_ir::CpuHeader, temps) as u32;
const TEMPS_END: u32 = TEMPS + 8 * TEMP_UNITS as u32;
const _: () = assert!(TEMP_UNITS <= 64 && DIRECT_UNITS * 8 > TEMPS_END as usize);

/// The two kinds of registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Class {
    Int = 0,
    Vec = 1,
}

/// How to make a value without having kept it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Remat {
    /// Not possible.
    No,
    /// An integer constant.
    Const(u64),
    /// Entry pc plus this.
    PcRel(i64),
    /// The vector constant of the operation with this index.
    ConstVec(u32),
}

/// A value's whereabouts: any of these at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Register of each class, or [`NONE`].
    pub(super) regs: [u8; 2],
    pub(super) ty: Type,
    /// Uses not counted beyond 255.
    pub(super) uses: u8,
    /// Byte offset in the CPU where its `ty.bytes()` bytes (8 or 16 in the spill area) are, or [`NO_HOME`].
    pub(super) home: u32,
    /// Index of the operation that uses it last; the terminal's is the number of operations.
    pub(super) last: u32,
    pub(super) remat: Remat,
}

/// Registers of one class as bit sets.
#[derive(Debug, Default)]
struct File {
    /// Usable and holding nothing.
    free: u32,
    /// Not to be taken while the present operation is emitted.
    pinned: u32,
    /// Pinned without an owner: free after the operation.
    temps: u32,
    owner: [u32; 16],
}

/// What [`Alloc::pick`] asks the emitter to do before it uses the register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Picked {
    pub(super) reg: u8,
    /// Store the register there: bytes, offset in the CPU.
    pub(super) spill: Option<(u32, u32)>,
}

/// More values live at once than there is room for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Full;

/// The state of one block.
#[derive(Debug)]
pub(super) struct Alloc {
    pub(super) places: Vec<Place>,
    files: [File; 2],
    /// Values with a home among the slots; may hold dead ones.
    homes: Vec<u32>,
    /// Results in registers that nobody uses.
    unused: Vec<Value>,
    /// Free units of the spill area.
    spill: u64,
    /// Index of the operation being emitted.
    pub(super) now: u32,
}

/// Bytes a spilled value takes.
const fn spill_bytes(ty: Type) -> u32 {
    if ty.is_int() { 8 } else { 16 }
}

const fn is_spill(home: u32) -> bool {
    home >= TEMPS && home < TEMPS_END
}

impl Alloc {
    /// For a block, on a host with these registers (bit sets).
    pub(super) fn new(block: &Block, int: u32, vec: u32) -> Self {
        let place =
            |ty: &Type| Place { regs: [NONE; 2], ty: *ty, uses: 0, home: NO_HOME, last: 0, remat: Remat::No };
        let mut places: Vec<Place> = block.value_types.iter().map(place).collect();
        let mut used = |v: Value, at: usize| {
            let place = &mut places[v.0 as usize];
            (place.last, place.uses) = (at as u32, place.uses.saturating_add(1));
        };
        for (at, inst) in block.insts.iter().enumerate() {
            inst.op.for_each_operand(|v| used(v, at));
        }
        if let Some(v) = block.terminal.operand() {
            used(v, block.insts.len());
        }
        let file = |free| File { free, owner: [u32::MAX; 16], ..File::default() };
        Self {
            places,
            files: [file(int), file(vec)],
            homes: Vec::with_capacity(32),
            unused: Vec::new(),
            spill: u64::MAX >> (64 - TEMP_UNITS),
            now: 0,
        }
    }

    pub(super) fn place(&self, v: Value) -> &Place {
        &self.places[v.0 as usize]
    }

    pub(super) fn place_mut(&mut self, v: Value) -> &mut Place {
        &mut self.places[v.0 as usize]
    }

    /// Does nobody need `v` after the present operation?
    pub(super) fn dies(&self, v: Value) -> bool {
        self.place(v).last <= self.now
    }

    /// Can `v` leave its register of `class` for nothing?
    fn is_elsewhere(&self, v: u32, class: Class) -> bool {
        let place = &self.places[v as usize];
        place.home != NO_HOME || place.remat != Remat::No || place.regs[1 - class as usize] != NONE
    }

    pub(super) fn pin(&mut self, class: Class, reg: u8) {
        self.files[class as usize].pinned |= 1 << reg;
    }

    /// The register may be taken within the present operation.
    pub(super) fn unpin(&mut self, class: Class, reg: u8) {
        self.files[class as usize].pinned &= !(1 << reg);
    }

    /// A register to use, pinned and without an owner. `wanted` names one that must be it.
    pub(super) fn pick(&mut self, class: Class, wanted: Option<u8>) -> Result<Picked, Full> {
        let file = &self.files[class as usize];
        let reg = match wanted {
            Some(reg) if file.pinned >> reg & 1 != 0 => return Err(Full),
            Some(reg) => reg,
            None if file.free != 0 => file.free.trailing_zeros() as u8,
            None => self.victim(class)?,
        };
        let file = &mut self.files[class as usize];
        let owner = std::mem::replace(&mut file.owner[usize::from(reg)], u32::MAX);
        file.free &= !(1 << reg);
        file.pinned |= 1 << reg;
        file.temps |= 1 << reg;
        let mut spill = None;
        if owner != u32::MAX {
            if !self.is_elsewhere(owner, class) {
                let ty = self.places[owner as usize].ty;
                let home = self.spill_unit(ty)?;
                self.places[owner as usize].home = home;
                spill = Some((spill_bytes(ty), home));
            }
            self.places[owner as usize].regs[class as usize] = NONE;
        }
        Ok(Picked { reg, spill })
    }

    /// The register whose value is cheapest to do without: kept elsewhere, and used last.
    fn victim(&self, class: Class) -> Result<u8, Full> {
        let file = &self.files[class as usize];
        (0..16u8)
            .filter(|reg| file.pinned >> reg & 1 == 0 && file.owner[usize::from(*reg)] != u32::MAX)
            .max_by_key(|reg| {
                let owner = file.owner[usize::from(*reg)];
                (self.is_elsewhere(owner, class), self.places[owner as usize].last)
            })
            .ok_or(Full)
    }

    /// Room in the spill area.
    fn spill_unit(&mut self, ty: Type) -> Result<u32, Full> {
        let (fits, mask) = if ty.is_int() { (self.spill, 1) } else { (self.spill & self.spill >> 1, 3) };
        if fits == 0 {
            return Err(Full);
        }
        let unit = fits.trailing_zeros();
        self.spill &= !(mask << unit);
        Ok(TEMPS + 8 * unit)
    }

    /// Makes `v` the owner of a register that [`Self::pick`] gave.
    pub(super) fn own(&mut self, class: Class, reg: u8, v: Value) {
        let file = &mut self.files[class as usize];
        file.temps &= !(1 << reg);
        file.owner[usize::from(reg)] = v.0;
        let place = &mut self.places[v.0 as usize];
        place.regs[class as usize] = reg;
        if place.uses == 0 {
            self.unused.push(v);
        }
    }

    /// `to` takes over the register of the dying `from`.
    pub(super) fn take_over(&mut self, class: Class, from: Value, to: Value) -> u8 {
        let reg = std::mem::replace(&mut self.place_mut(from).regs[class as usize], NONE);
        self.pin(class, reg);
        self.own(class, reg, to);
        reg
    }

    /// A pinned register without an owner may be used again within the operation.
    pub(super) fn give_back(&mut self, class: Class, reg: u8) {
        let file = &mut self.files[class as usize];
        file.temps &= !(1 << reg);
        file.pinned &= !(1 << reg);
        file.free |= 1 << reg;
    }

    /// `v` is also at `offset` in the CPU, in a slot.
    pub(super) fn set_home(&mut self, v: Value, offset: u32) {
        self.drop_spill(v);
        self.place_mut(v).home = offset;
        self.homes.push(v.0);
    }

    /// Gives back `v`'s spill unit, if it has one.
    fn drop_spill(&mut self, v: Value) {
        let place = &mut self.places[v.0 as usize];
        if is_spill(place.home) {
            let mask = if place.ty.is_int() { 1 } else { 3 };
            self.spill |= mask << ((place.home - TEMPS) / 8);
            place.home = NO_HOME;
        }
    }

    /// The bytes `offset .. offset + len` of the CPU are about to change: homes there are lost. Gives, one at a time, the
    /// live values that must first be brought into a register.
    pub(super) fn evict_home(&mut self, offset: u32, len: u32) -> Option<Value> {
        let mut i = 0;
        while i < self.homes.len() {
            let v = self.homes[i] as usize;
            let place = &mut self.places[v];
            let home = place.home;
            let gone = home == NO_HOME || is_spill(home) || place.last < self.now;
            let hit = || home < offset.saturating_add(len) && offset < home + place.ty.bytes();
            if !gone && !hit() {
                i += 1;
                continue;
            }
            if !gone {
                let needed = place.last >= self.now;
                if needed && place.remat == Remat::No && place.regs == [NONE; 2] {
                    return Some(Value(v as u32));
                }
                place.home = NO_HOME;
            }
            self.homes.swap_remove(i);
        }
        None
    }

    /// After the present operation: temporaries, dead operands and unused results give back what they have.
    pub(super) fn done(&mut self, op: &Op) {
        for file in &mut self.files {
            file.free |= file.temps;
            (file.temps, file.pinned) = (0, 0);
        }
        op.for_each_operand(|v| {
            if self.places[v.0 as usize].last <= self.now {
                self.release(v);
            }
        });
        while let Some(v) = self.unused.pop() {
            self.release(v);
        }
    }

    fn release(&mut self, v: Value) {
        self.drop_spill(v);
        let place = &mut self.places[v.0 as usize];
        let regs = std::mem::replace(&mut place.regs, [NONE; 2]);
        place.home = NO_HOME;
        for (file, reg) in self.files.iter_mut().zip(regs) {
            if reg != NONE {
                file.free |= 1 << reg;
                file.owner[usize::from(reg)] = u32::MAX;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isomer_ir::{Builder, SlotDesc, softfloat::NanRule, softfloat::Tininess, types::FpModel};

    static SLOTS: [SlotDesc; 2] = [
        SlotDesc { name: "x", offset: 512, ty: Type::I64 },
        SlotDesc { name: "x.low", offset: 512, ty: Type::I32 },
    ];

    fn three_values() -> (Block, [Value; 3]) {
        let fp = FpModel {
            nan: NanRule::Canonical,
            tininess: Tininess::After,
            flush_inputs: false,
            flush_outputs: false,
        };
        let mut b = Builder::new(&SLOTS, 0, fp);
        b.insn_start(0, 4);
        let x = b.get(isomer_ir::Slot(0));
        let y = b.add(x, x);
        let z = b.add(x, y);
        b.set(isomer_ir::Slot(0), z);
        (b.finish(), [x, y, z])
    }

    #[test]
    fn a_value_with_a_home_goes_first() {
        let (block, [x, y, _]) = three_values();
        let mut alloc = Alloc::new(&block, 0b11, 0);
        for v in [x, y] {
            let picked = alloc.pick(Class::Int, None).unwrap();
            assert_eq!(picked.spill, None);
            alloc.own(Class::Int, picked.reg, v);
        }
        assert_eq!(alloc.pick(Class::Int, None), Err(Full), "both are pinned");
        alloc.set_home(x, 512);
        alloc.done(&Op::PcRel { offset: 0 });
        assert_eq!(alloc.pick(Class::Int, None), Ok(Picked { reg: 0, spill: None }));
        assert_eq!(alloc.pick(Class::Int, None), Ok(Picked { reg: 1, spill: Some((8, TEMPS)) }));
        assert_eq!(alloc.place(y).home, TEMPS);
    }

    #[test]
    fn a_write_to_a_part_of_a_home_takes_it() {
        let (block, [x, y, _]) = three_values();
        let mut alloc = Alloc::new(&block, 0b11, 0);
        alloc.set_home(x, 512);
        assert_eq!(alloc.evict_home(520, 8), None);
        assert_eq!(alloc.evict_home(516, 4), Some(x), "still needed, and nowhere else");
        let picked = alloc.pick(Class::Int, None).unwrap();
        alloc.own(Class::Int, picked.reg, x);
        assert_eq!(alloc.evict_home(516, 4), None);
        assert_eq!((alloc.place(x).home, alloc.place(y).home), (NO_HOME, NO_HOME));
    }

    #[test]
    fn spill_room_runs_out_and_comes_back() {
        let (block, [x, ..]) = three_values();
        let mut alloc = Alloc::new(&block, 1, 0);
        let units: Vec<_> = (0..TEMP_UNITS / 2).map(|_| alloc.spill_unit(Type::V128)).collect();
        assert!(units.iter().all(Result::is_ok));
        assert_eq!(alloc.spill_unit(Type::I8), Err(Full));
        alloc.place_mut(x).home = TEMPS + 8;
        alloc.release(x);
        assert_eq!(alloc.spill_unit(Type::I8), Ok(TEMPS + 8));
    }
}
