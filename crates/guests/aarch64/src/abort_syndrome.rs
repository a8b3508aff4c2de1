//! What a data abort reports of its instruction (the manual, D24.2.40, "ISS encoding for an exception from a Data Abort"):
//! at stage 2 enough for a hypervisor to emulate it without reading it (ISV to AR), and WnR of atomic instructions.

use crate::{
    Aarch64, Cpu, Mode, Trap,
    mmu::{self, Walker},
    trap::{Kind, ec, iss, status},
};
use isomer_core::Gpa;
use isomer_ir::{Access, guest::PhysMemory};

/// `trap` as the instruction at the CPU's pc makes it: a data abort of stage 2 with the instruction's syndrome, where it has
/// one; a data abort of a read-modify-write as that of a read, where reading alone would fault.
pub(crate) fn complete(guest: &Aarch64, cpu: &Cpu, memory: &dyn PhysMemory, trap: Trap) -> Trap {
    let stage2 = trap.to_el2 && trap.syndrome & iss::S1PTW == 0;
    let write = trap.syndrome & iss::WNR != 0;
    if trap.kind != Kind::Synchronous || trap.class() != ec::DATA_ABORT || !(stage2 || write) {
        return trap;
    }
    let Some(insn) = insn_at_pc(guest, cpu, memory) else { return trap };
    if write && is_read_modify_write(insn) {
        return as_read(guest, cpu, memory, trap);
    }
    let reported = if stage2 { syndrome_of(insn) } else { None };
    Trap { syndrome: trap.syndrome | reported.unwrap_or(0), ..trap }
}

/// `swp`, `ldadd` and their kin, `cas`, `casp`.
fn is_read_modify_write(insn: u32) -> bool {
    insn & 0x3f20_0c00 == 0x3820_0000
        || insn & 0x3fa0_7c00 == 0x08a0_7c00
        || insn & 0xbfa0_7c00 == 0x0820_7c00
}

fn as_read(guest: &Aarch64, cpu: &Cpu, memory: &dyn PhysMemory, trap: Trap) -> Trap {
    let status = trap.syndrome & 0x3f;
    if status == status::ALIGNMENT || status == status::EXTERNAL {
        return Trap { syndrome: trap.syndrome & !iss::WNR, ..trap };
    }
    let mmu = Mode(cpu.header.mode).mmu();
    let address = mmu::untagged(cpu, trap.far, Access::Load, mmu);
    let read = Walker::new(guest, cpu, memory, Access::Load, mmu).translate(address);
    read.map_or_else(|fault| mmu::trap(fault, trap.far, Access::Load), |_| trap)
}

fn insn_at_pc(guest: &Aarch64, cpu: &Cpu, memory: &dyn PhysMemory) -> Option<u32> {
    let walker = Walker::new(guest, cpu, memory, Access::Fetch, Mode(cpu.header.mode).mmu());
    let translation = walker.translate(cpu.header.pc).ok()?;
    memory.load(Gpa(translation.address), 4).map(|insn| insn as u32)
}

/// ISV, SAS, SSE, SRT, SF and AR of a load or store of one general register without writeback; others have none.
fn syndrome_of(insn: u32) -> Option<u32> {
    let (size, opc) = (insn >> 30, insn >> 22 & 3);
    let unscaled = insn & 0x0020_0c00 == 0;
    let unprivileged = insn & 0x0020_0c00 == 0x800;
    let indexed = insn & 0x0020_0c00 == 0x0020_0800;
    let ordered = match insn & 0x3f00_0000 {
        0x3900_0000 => false,
        0x3800_0000 if unscaled || unprivileged || indexed => false,
        // `ldapr`, of which only the load exists.
        0x3800_0000 if insn & 0x3fff_fc00 == 0x38bf_c000 => return Some(fields(size, 1, insn, true)),
        // `ldapur`, `stlur`.
        0x1900_0000 if unscaled => true,
        0x1800_0000 => return literal(insn),
        // `ldar`, `stlr`, `ldlar`, `stllr`: bit 22 says which way.
        0x0800_0000 if insn & 0x00a0_0000 == 0x0080_0000 => {
            return Some(fields(size, opc & 1, insn, insn >> 15 & 1 != 0));
        }
        _ => return None,
    };
    // `prfm`, and what is not allocated.
    let exists = size < 2 || size == 2 && opc != 3 || opc < 2;
    exists.then(|| fields(size, opc, insn, ordered))
}

fn literal(insn: u32) -> Option<u32> {
    match insn >> 30 {
        0 => Some(fields(2, 1, insn, false)),
        1 => Some(fields(3, 1, insn, false)),
        2 => Some(fields(2, 2, insn, false)),
        _ => None,
    }
}

/// `opc`: 0 stores, 1 loads, 2 loads and extends the sign to 64 bits, 3 to 32 bits.
fn fields(size: u32, opc: u32, insn: u32, ordered: bool) -> u32 {
    let is_signed = opc >= 2;
    let wide = if is_signed { opc == 2 } else { size == 3 };
    iss::ISV
        | size << 22
        | u32::from(is_signed) << 21
        | (insn & 31) << 16
        | u32::from(wide) << 15
        | u32::from(ordered) << 14
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ISV, SAS, SSE, SRT, SF, AR.
    fn parts(insn: u32) -> Option<(u32, u32, u32, u32, u32)> {
        let iss = syndrome_of(insn)?;
        assert_ne!(iss & iss::ISV, 0);
        Some((iss >> 22 & 3, iss >> 21 & 1, iss >> 16 & 31, iss >> 15 & 1, iss >> 14 & 1))
    }

    #[test]
    fn simple_loads_and_stores_are_described() {
        for (insn, expected, text) in [
            (0x3941_0002, (0, 0, 2, 0, 0), "ldrb w2, [x0, #64]"),
            (0xf940_2005, (3, 0, 5, 1, 0), "ldr x5, [x0, #64]"),
            (0x3981_0002, (0, 1, 2, 1, 0), "ldrsb x2, [x0, #64]"),
            (0x79c0_8002, (1, 1, 2, 0, 0), "ldrsh w2, [x0, #64]"),
            (0xb980_4002, (2, 1, 2, 1, 0), "ldrsw x2, [x0, #64]"),
            (0xb900_401f, (2, 0, 31, 0, 0), "str wzr, [x0, #64]"),
            (0xb844_3002, (2, 0, 2, 0, 0), "ldur w2, [x0, #67]"),
            (0xf840_0802, (3, 0, 2, 1, 0), "ldtr x2, [x0]"),
            (0xf861_6802, (3, 0, 2, 1, 0), "ldr x2, [x0, x1]"),
            (0x1800_0042, (2, 0, 2, 0, 0), "ldr w2, .+8"),
            (0x9800_0042, (2, 1, 2, 1, 0), "ldrsw x2, .+8"),
            (0xc8df_fc02, (3, 0, 2, 1, 1), "ldar x2, [x0]"),
            (0x889f_fc03, (2, 0, 3, 0, 1), "stlr w3, [x0]"),
            (0xb8bf_c002, (2, 0, 2, 0, 1), "ldapr w2, [x0]"),
            (0xd940_0002, (3, 0, 2, 1, 1), "ldapur x2, [x0]"),
        ] {
            assert_eq!(parts(insn), Some(expected), "{text}");
        }
    }

    #[test]
    fn read_modify_writes_are_told_from_others() {
        for (insn, expected, text) in [
            (0xb823_0002, true, "ldadd w3, w2, [x0]"),
            (0x3823_8002, true, "swpb w3, w2, [x0]"),
            (0x88a2_7c03, true, "cas w2, w3, [x0]"),
            (0xc8e2_fc03, true, "casal x2, x3, [x0]"),
            (0x4822_7c04, true, "casp x2, x3, x4, x5, [x0]"),
            (0xf900_2003, false, "str x3, [x0, #64]"),
            (0x8806_7c03, false, "stxr w6, w3, [x0]"),
            (0xc826_1403, false, "stxp w6, x3, x5, [x0]"),
            (0xc89f_fc03, false, "stlr x3, [x0]"),
            (0xf821_6802, false, "str x2, [x0, x1]"),
        ] {
            assert_eq!(is_read_modify_write(insn), expected, "{text}");
        }
    }

    #[test]
    fn others_are_not() {
        for (insn, text) in [
            (0xf840_8402, "ldr x2, [x0], #8"),
            (0xf85f_8c02, "ldr x2, [x0, #-8]!"),
            (0xa944_1002, "ldp x2, x4, [x0, #64]"),
            (0xfd40_2001, "ldr d1, [x0, #64]"),
            (0x885f_7c02, "ldxr w2, [x0]"),
            (0xb823_0002, "ldadd w3, w2, [x0]"),
            (0xf980_0000, "prfm pldl1keep, [x0]"),
            (0xd800_0040, "prfm pldl1keep, .+8"),
            (0xd50b_7420, "dc zva, x0"),
        ] {
            assert_eq!(syndrome_of(insn), None, "{text}");
        }
    }
}
