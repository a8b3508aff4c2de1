//! What translated code reaches besides guest registers: memory through the TLB, helpers, the next block.
#![allow(unsafe_code)]

use crate::{
    blocks::{BlockRef, Blocks, generation_of},
    group::{Group, Request},
    jump_cache::JumpCache,
    phys::Phys,
    tlb::Tlb,
    trace::{self, Trace},
};
use isomer_core::{Clock, Gpa, Gva, PAGE_SIZE, VcpuSignal};
use isomer_ir::{
    Access, CpuState, Guest, HelperCx, Page,
    guest::{HelperEnv, TlbFlush, lift_block},
    interp::{Code, CompileError},
    passes,
    types::{HelperId, MmuIndex},
};
use std::sync::Arc;

/// The most instructions a block is lifted for.
const MAX_BLOCK_INSNS: u32 = 48;

/// Where to go on.
pub(crate) enum Lookup<G: Guest> {
    /// Translated code.
    Block(BlockRef),
    /// The fetch traps.
    Trap(G::Trap),
}

/// One vCPU's surroundings.
pub(crate) struct Env<G: Guest> {
    pub(crate) guest: Arc<G>,
    pub(crate) group: Arc<Group<G>>,
    pub(crate) index: usize,
    pub(crate) phys: Phys,
    pub(crate) clock: Arc<Clock>,
    pub(crate) trace: Trace,
    pub(crate) tlb: Tlb,
    pub(crate) blocks: Blocks,
    pub(crate) jump_cache: JumpCache,
    pub(crate) signal: Arc<VcpuSignal>,
    fault: Option<G::Trap>,
    wait: bool,
    /// Look at everything before the next slice although nobody kicked us.
    attention: bool,
    code_epoch: u64,
    /// Protection requests not yet confirmed by their receivers: `(vCPU, ticket)`.
    unconfirmed: Vec<(usize, u64)>,
}

impl<G: Guest> Env<G> {
    pub(crate) fn new(
        guest: Arc<G>,
        group: Arc<Group<G>>,
        index: usize,
        phys: Phys,
        clock: Arc<Clock>,
        trace: Trace,
        code_limit_bytes: usize,
    ) -> Self {
        let signal = group.peers()[index].signal().clone();
        Self {
            guest,
            group,
            index,
            phys,
            clock,
            trace,
            tlb: Tlb::new(G::MMU_INDEXES),
            blocks: Blocks::new(code_limit_bytes),
            jump_cache: JumpCache::new(),
            signal,
            fault: None,
            wait: false,
            attention: true,
            code_epoch: 0,
            unconfirmed: Vec::new(),
        }
    }

    pub(crate) fn now(&self) -> u64 {
        self.clock.now_ns()
    }

    pub(crate) fn take_fault(&mut self) -> Option<G::Trap> {
        self.fault.take()
    }

    pub(crate) fn take_wait(&mut self) -> bool {
        std::mem::take(&mut self.wait)
    }

    pub(crate) fn request_attention(&mut self) {
        self.attention = true;
    }

    pub(crate) fn attention_due(&mut self) -> bool {
        std::mem::take(&mut self.attention)
    }

    // --- translated code

    /// Forgets blocks whose guest code was overwritten since the last call.
    pub(crate) fn drop_stale_code(&mut self) {
        let epoch = self.phys.memory.code_epoch();
        if epoch != self.code_epoch {
            self.code_epoch = epoch;
            if self.blocks.drop_stale(&self.phys.memory) {
                self.jump_cache.clear();
            }
        }
    }

    /// `fence.i` and its kin: stores that slipped in before a protection was confirmed become visible.
    pub(crate) fn sync_provisional(&mut self) {
        let peers = self.group.peers();
        self.unconfirmed.retain(|&(peer, ticket)| !peers[peer].is_done(ticket));
        // An unconfirmed peer may still be storing past us, so blocks made meanwhile stay provisional; those made
        // before are translated anew from what is in memory now.
        if self.blocks.drop_provisional() {
            self.jump_cache.clear();
        }
    }

    /// Translated code for the CPU's pc and mode. Call it between slices only: it may drop blocks.
    pub(crate) fn lookup(&mut self, cpu: &mut G::Cpu) -> Lookup<G> {
        let (pc, mode) = (cpu.header().pc, cpu.header().mode);
        if let Some(block) = self.jump_cache.get(pc, mode, self.tlb.generation()) {
            return Lookup::Block(block);
        }
        if self.blocks.is_full() {
            self.blocks.clear();
            self.jump_cache.clear();
        }
        match self.find_or_translate(cpu, pc, mode) {
            Ok(block) => {
                if !self.trace.insn {
                    self.jump_cache.insert(pc, mode, self.tlb.generation(), block);
                }
                Lookup::Block(block)
            }
            Err(trap) => Lookup::Trap(trap),
        }
    }

    /// Translated code for `pc` while a slice runs: drops nothing, so it gives up where something had to go.
    pub(crate) fn lookup_running(&mut self, cpu: &mut G::Cpu) -> Option<BlockRef> {
        let (pc, mode) = (cpu.header().pc, cpu.header().mode);
        let generation = self.tlb.generation();
        if let Some(block) = self.jump_cache.get(pc, mode, generation) {
            return Some(block);
        }
        if self.blocks.is_full() || self.phys.memory.code_epoch() != self.code_epoch || self.trace.insn {
            return None;
        }
        // A fetch fault is taken by the run loop, which looks up again.
        let block = self.find_or_translate(cpu, pc, mode).ok()?;
        self.jump_cache.insert(pc, mode, self.tlb.generation(), block);
        Some(block)
    }

    fn find_or_translate(&mut self, cpu: &mut G::Cpu, pc: u64, mode: u32) -> Result<BlockRef, G::Trap> {
        let guest = self.guest.clone();
        let gpa = self.translate_gva(cpu, Gva(pc), Access::Fetch, guest.fetch_mmu(cpu))?;
        if !self.trace.insn
            && let Some(block) = self.blocks.get(gpa, mode, &self.phys.memory)
        {
            return Ok(block);
        }
        let Some((code, generation, provisional)) = self.mark_code(gpa) else {
            return Err(guest.bus_error(Gva(pc), Access::Fetch));
        };
        let max_insns = if self.trace.insn { 1 } else { MAX_BLOCK_INSNS };
        let mut second = None;
        let translated = match self.compile(mode, &code, max_insns) {
            Some(translated) => translated,
            None => {
                // The first instruction continues on the next page.
                let next = Gva(pc).page_base().wrapping_add(PAGE_SIZE);
                let next_gpa = self.translate_gva(cpu, next, Access::Fetch, guest.fetch_mmu(cpu))?;
                let Some((tail, next_generation, _)) = self.mark_code(next_gpa) else {
                    return Err(guest.bus_error(next, Access::Fetch));
                };
                second = Some((next_gpa, next_generation));
                let whole = [&code[..], &tail[..tail.len().min(G::INSN_MAX as usize)]].concat();
                self.compile(mode, &whole, 1).ok_or_else(|| guest.bus_error(Gva(pc), Access::Fetch))?
            }
        };
        if self.trace.insn {
            let text = guest.disassemble(&code, pc).0;
            trace::line(self.index, format_args!("{pc:#018x} {text}"));
        }
        Ok(self.blocks.insert((gpa, mode), generation, provisional, translated, second))
    }

    /// Lifts and compiles, with fewer instructions where a block is too complex for the interpreter.
    fn compile(&self, mode: u32, code: &[u8], max_insns: u32) -> Option<Code> {
        let mut max_insns = max_insns;
        loop {
            let mut block = lift_block(&*self.guest, mode, code, max_insns)?;
            passes::optimize(&mut block);
            match Code::compile(&block) {
                Ok(code) => return Some(code),
                Err(CompileError::TooComplex) if max_insns > 1 => max_insns = (block.insn_count / 2).max(1),
                Err(CompileError::TooComplex) => return None,
            }
        }
    }

    /// Marks the granule at `gpa` as holding translated code; its bytes from `gpa` on, its generation, and
    /// whether some vCPU may still store there unnoticed.
    fn mark_code(&mut self, gpa: Gpa) -> Option<(Vec<u8>, u32, bool)> {
        let (region, _) = self.phys.granule(gpa)?;
        let offset = gpa.0 - region.gpa.0;
        let generation = region.code.mark(offset);
        let first_here = generation_of(&self.phys.memory, gpa) == Some(generation);
        debug_assert!(first_here || self.group.peers().len() > 1);
        self.tlb.protect(gpa);
        let peers = self.group.peers().iter().enumerate().filter(|&(peer, _)| peer != self.index);
        let mut provisional = false;
        for (peer, shared) in peers.filter(|(_, shared)| shared.is_powered()) {
            provisional = true;
            self.unconfirmed.push((peer, shared.post(Request::Protect(gpa))));
        }
        let mut bytes = vec![0; (PAGE_SIZE - gpa.page_offset()) as usize];
        self.phys.memory.read(gpa, &mut bytes).ok()?;
        Some((bytes, generation, provisional))
    }

    // --- translation

    /// The guest-physical address of `gva`, through the TLB or a walk.
    pub(crate) fn translate_gva(
        &mut self,
        cpu: &mut G::Cpu,
        gva: Gva,
        access: Access,
        mmu: MmuIndex,
    ) -> Result<Gpa, G::Trap> {
        let entry = self.tlb.entry(gva.0, mmu.0);
        let tag = match access {
            Access::Load => entry.load,
            Access::Store => entry.store,
            Access::Fetch => entry.fetch,
        };
        let gpa = if tag == gva.page_base().0 {
            self.tlb.gpa(gva.0, mmu.0)
        } else {
            self.walk(cpu, gva, access, mmu)?.gpa.page_base()
        };
        Ok(gpa.wrapping_add(gva.page_offset()))
    }

    /// Walks (or uses a large translation already known) and fills the TLB.
    fn walk(&mut self, cpu: &mut G::Cpu, gva: Gva, access: Access, mmu: MmuIndex) -> Result<Page, G::Trap> {
        let allows = |page: &Page| match access {
            Access::Load => page.load,
            Access::Store => page.store,
            Access::Fetch => page.fetch,
        };
        let known = self.tlb.large(gva.0, mmu.0).filter(allows);
        let page = match known {
            Some(page) => page,
            None => {
                self.tlb.forget_large(gva.0, mmu.0);
                let walked = self.guest.walk(cpu, &self.phys, gva, access, mmu);
                if self.trace.mmu {
                    self.trace_walk(gva, access, mmu, &walked);
                }
                walked?
            }
        };
        let granule = self.phys.granule(page.gpa);
        let host = granule.map(|(_, host)| host);
        let writable = granule.is_some_and(|(region, _)| !region.code.has_code(page.gpa.0 - region.gpa.0));
        self.tlb.fill(gva.0, mmu.0, &page, host, writable);
        Ok(page)
    }

    fn trace_walk(&self, gva: Gva, access: Access, mmu: MmuIndex, walked: &Result<Page, G::Trap>) {
        match walked {
            Ok(page) => trace::line(
                self.index,
                format_args!(
                    "mmu {access:?} {gva} regime {} -> {} ({} KiB)",
                    mmu.0,
                    page.gpa,
                    (1u64 << page.shift) >> 10
                ),
            ),
            Err(trap) => {
                trace::line(self.index, format_args!("mmu {access:?} {gva} regime {} -> {trap}", mmu.0))
            }
        }
    }
}
