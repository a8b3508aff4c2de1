//! What translated code reaches besides guest registers: memory through the TLB, helpers, the next block.
#![allow(unsafe_code)]

use crate::{
    blocks::{BlockRef, Blocks, Dropped, Form, Held, KeptPage, Translated, generation_of},
    engines::EngineKind,
    group::{Group, Request},
    heap::trim_heap,
    jit::{Jit, NativeCode, State},
    jump_cache::JumpCache,
    kept::Asked,
    mixed::Phase,
    native::Native,
    phys::Phys,
    profile::Tier,
    tlb::{Tlb, few_pages},
    trace::{self, Trace},
};
use isomer_core::{Clock, Gpa, Gva, PAGE_SIZE, VcpuSignal};
use isomer_ir::{
    Access, CpuState, Guest, HelperCx, Page,
    guest::{HelperEnv, PhysMemory, TlbFlush, lift_block},
    interp::{self, Code, CompileError, Entry, Fault, HostPlace},
    passes,
    types::{HelperId, MemFlags, MmuIndex},
};
use rustc_hash::FxHashMap;
use std::{
    cell::OnceCell,
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering},
    },
};

/// The most instructions a block is lifted for.
pub(crate) const MAX_BLOCK_INSNS: u32 = 48;

/// The phase of an engine that is not mixed.
const UNMIXED: Phase = Phase { kind: EngineKind::Jit, block_insns: MAX_BLOCK_INSNS };

/// Where to go on.
pub(crate) enum Lookup<G: Guest> {
    /// Translated code.
    Block(BlockRef),
    /// The fetch traps.
    Trap(G::Trap),
}

/// How far the other vCPUs are with noticing stores to a granule.
struct Protection {
    generation: u32,
    /// Who has not confirmed yet: `(vCPU, ticket)`.
    unconfirmed: Vec<(usize, u64)>,
}

/// One vCPU's surroundings.
pub(crate) struct VcpuEnv<G: Guest> {
    pub(crate) guest: Arc<G>,
    pub(crate) group: Arc<Group<G>>,
    pub(crate) index: usize,
    pub(crate) phys: Phys,
    pub(crate) clock: Arc<Clock>,
    pub(crate) trace: Trace,
    engine: EngineKind,
    pub(crate) tlb: Tlb,
    pub(crate) blocks: Blocks,
    pub(crate) jump_cache: JumpCache,
    pub(crate) signal: Arc<VcpuSignal>,
    fault: Option<G::Trap>,
    wait: bool,
    /// See [`HelperEnv::interrupts_waiting`].
    pub(crate) interrupts_waiting: bool,
    /// Look at everything before the next slice although nobody kicked us.
    attention: bool,
    code_epoch: u64,
    /// Of [`isomer_core::code_pages::CodeWatch::overwritten_since`].
    code_position: u64,
    /// By granule, for this vCPU's own translations.
    protections: FxHashMap<u64, Protection>,
    /// A code fence was executed: carry it out before the next slice.
    sync: bool,
    /// Flushes asked of other vCPUs that are not known to be done: the last ticket of each.
    flushes: Vec<(usize, u64)>,
    /// For compiled code, where there is any.
    pub(crate) native: Option<Native<G>>,
    /// Of a mixed engine: what runs now.
    phase: Phase,
    /// Accesses and fetches that missed the TLB.
    pub(crate) tlb_misses: u64,
    /// Those of them that walked.
    pub(crate) walks: u64,
}

impl<G: Guest> VcpuEnv<G> {
    pub(crate) fn new(
        guest: Arc<G>,
        group: Arc<Group<G>>,
        index: usize,
        phys: Phys,
        clock: Arc<Clock>,
        trace: Trace,
        engine: EngineKind,
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
            engine,
            tlb: Tlb::new(G::MMU_INDEXES, G::SHARED_MMUS),
            blocks: Blocks::new(code_limit_bytes),
            jump_cache: JumpCache::new(),
            signal,
            fault: None,
            wait: false,
            interrupts_waiting: true,
            attention: true,
            code_epoch: 0,
            code_position: 0,
            protections: FxHashMap::default(),
            sync: false,
            flushes: Vec::new(),
            native: None,
            phase: UNMIXED,
            tlb_misses: 0,
            walks: 0,
        }
    }

    /// Runs code with this engine from now on. Between slices only.
    pub(crate) fn set_engine(&mut self, kind: EngineKind, jit: Option<Arc<Jit<G>>>) {
        self.forget_code();
        self.engine = kind;
        self.phase = UNMIXED;
        self.native = jit.map(Native::new);
        if self.native.is_some() {
            self.tlb.use_jumps();
        }
    }

    /// The next phase of a mixed engine. Between slices only.
    pub(crate) fn enter_phase(&mut self, phase: Phase) {
        if (phase.kind == EngineKind::Reference) != (self.phase.kind == EngineKind::Reference) {
            // Its blocks have another form.
            self.forget_code();
        }
        self.phase = phase;
    }

    /// Translates at most `insns` instructions at once. Between slices only.
    pub(crate) fn limit_blocks(&mut self, insns: u32) {
        self.forget_code();
        self.phase.block_insns = insns.clamp(1, MAX_BLOCK_INSNS);
    }

    /// May compiled code be entered where there is some?
    pub(crate) fn enters_native(&self) -> bool {
        self.phase.kind == EngineKind::Jit
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

    // --- cached translations

    /// Drops cached translations.
    pub(crate) fn flush_tlb(&mut self, what: TlbFlush) {
        self.tlb.flush(what);
        if let Some((gva, pages)) = few_pages(what) {
            (0..pages).for_each(|page| self.jump_cache.forget_page(gva.wrapping_add(page * PAGE_SIZE)));
        }
        self.check_generations();
    }

    /// Asks all other vCPUs that run to drop cached translations too.
    fn flush_others(&mut self, what: TlbFlush) {
        for (index, peer) in self.group.peers().iter().enumerate() {
            if index != self.index && peer.is_powered() {
                let ticket = peer.post(Request::FlushTlb(what));
                self.flushes.retain(|&(other, _)| other != index);
                self.flushes.push((index, ticket));
            }
        }
    }

    /// What is left of the flushes that others were asked for.
    pub(crate) fn take_flushes(&mut self) -> Vec<(usize, u64)> {
        std::mem::take(&mut self.flushes)
    }

    fn set_address_space(&mut self, id: u64) {
        self.tlb.set_address_space(id);
        self.check_generations();
    }

    /// The jump cache is tagged with the TLB's generations, which may have started over.
    fn check_generations(&mut self) {
        if self.tlb.take_started_over() {
            self.jump_cache.clear();
        }
    }

    // --- translated code

    /// Forgets where code is, by virtual address.
    fn clear_jumps(&mut self) {
        self.jump_cache.clear();
        self.tlb.clear_jumps();
    }

    /// Forgets blocks whose guest code was overwritten since the last call, or that a code fence puts in doubt.
    pub(crate) fn drop_stale_code(&mut self) {
        if std::mem::take(&mut self.sync) {
            self.sync_provisional();
        }
        let watch = self.phys.memory.code_watch();
        if !watch.changed_since(self.code_epoch) {
            return;
        }
        self.code_epoch = watch.epoch();
        let memory = &self.phys.memory;
        let is_current = |page: u64, known: &Protection| {
            generation_of(memory, Gpa(page << isomer_core::PAGE_SHIFT)) == Some(known.generation)
        };
        // What was overwritten is marked anew, in a new generation, if it is translated again.
        if let Some(pages) = watch.overwritten_since(&mut self.code_position) {
            for &page in &pages {
                if self.protections.get(&page).is_some_and(|known| !is_current(page, known)) {
                    self.protections.remove(&page);
                }
            }
            let dropped = self.blocks.drop_overwritten(&pages, memory);
            self.forget_dropped(&dropped);
            pages.iter().for_each(|&page| self.tlb.forget_crossing_jumps(page));
        } else {
            self.protections.retain(|&page, known| is_current(page, known));
            if self.blocks.drop_stale(memory) {
                self.clear_jumps();
            }
        }
    }

    /// Forgets where blocks were that are gone.
    fn forget_dropped(&mut self, dropped: &Dropped) {
        if dropped.anywhere {
            self.clear_jumps();
        }
        for &(granule, page) in &dropped.at {
            self.jump_cache.forget_page(page << isomer_core::PAGE_SHIFT);
            self.tlb.forget_jumps(granule, page);
        }
    }

    /// Forgets all translated code. Between slices only.
    pub(crate) fn forget_code(&mut self) {
        self.blocks.clear();
        self.clear_jumps();
        // As many as granules with blocks; asked for again as these are.
        self.protections.clear();
    }

    /// `fence.i` and its kin: stores that slipped in before a protection was confirmed become visible.
    pub(crate) fn sync_provisional(&mut self) {
        // Their granules are still marked; by now all vCPUs that run were asked to notice stores there.
        if self.blocks.drop_provisional() {
            self.clear_jumps();
        }
    }

    /// Translated code for the CPU's pc and mode. Call it between slices only: it may drop blocks.
    pub(crate) fn lookup(&mut self, cpu: &mut G::Cpu) -> Lookup<G> {
        let (pc, mode) = (cpu.header().pc, cpu.header().mode);
        if let Some(block) = self.jump_cache.get(pc, mode, self.tlb.generation()) {
            return Lookup::Block(block);
        }
        // Blocks of several generations must not meet in a granule.
        self.drop_stale_code();
        self.follow_jit();
        if self.blocks.is_full() {
            self.forget_code();
            trim_heap();
            if let Some(native) = &self.native {
                native.jit.code_given_up();
            }
        }
        match self.find_or_translate(cpu, pc, mode, false) {
            Ok(Some(block)) => {
                self.remember(pc, mode, block);
                Lookup::Block(block)
            }
            Ok(None) => Lookup::Trap(self.guest.bus_error(Gva(pc), Access::Fetch)),
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
        if self.blocks.is_full() || self.phys.memory.code_watch().changed_since(self.code_epoch) {
            return None;
        }
        // A fetch fault is taken by the run loop, which looks up again.
        let block = self.find_or_translate(cpu, pc, mode, true).ok()??;
        self.remember(pc, mode, block).then_some(block)
    }

    /// Puts a block into the jump cache, from where others link to it; false for blocks that must be looked up
    /// every time.
    fn remember(&mut self, pc: u64, mode: u32, block: BlockRef) -> bool {
        // SAFETY: the block was obtained just now.
        let translated = unsafe { block.get() };
        let stays = translated.is_linkable();
        if stays {
            translated.seen_at(pc);
            self.jump_cache.insert(pc, mode, self.tlb.generation(), block);
        }
        stays
    }

    /// Finds the block at `pc` or makes it. While a slice is `running`, only blocks that others may link to are given.
    fn find_or_translate(
        &mut self,
        cpu: &mut G::Cpu,
        pc: u64,
        mode: u32,
        running: bool,
    ) -> Result<Option<BlockRef>, G::Trap> {
        let guest = self.guest.clone();
        let (gpa, whole_page) = self.translate_fetch(cpu, Gva(pc))?;
        let transient = self.trace.insn || !whole_page;
        if running && transient {
            return Ok(None);
        }
        if !transient && let Some(block) = self.blocks.get(gpa, mode, &self.phys.memory) {
            // SAFETY: the block was obtained just now.
            match unsafe { block.get() }.second {
                None => return Ok(Some(block)),
                Some(_) if running => return Ok(None),
                Some((second, _)) => {
                    let next = Gva(pc).page_base().wrapping_add(PAGE_SIZE);
                    if self.translate_fetch(cpu, next)?.0 == second {
                        return Ok(Some(block));
                    }
                }
            }
        }
        let Some((code, generation, mut provisional)) = self.mark_code(gpa) else {
            return Err(guest.bus_error(Gva(pc), Access::Fetch));
        };
        if !self.blocks.accepts(gpa, generation) {
            // Overwritten just now, before anybody was told.
            if running {
                return Ok(None);
            }
            self.blocks.drop_granule(gpa);
            self.clear_jumps();
        }
        let insns = cpu.header().insns;
        if !transient
            && let Some(native) = &mut self.native
            && !native.is_volatile(gpa.page_number(), generation, insns)
        {
            let jit = native.jit.clone();
            let block = self
                .find_kept(&jit, (gpa, mode), &code, generation, provisional)
                .or_else(|| self.compile_at_once(&jit, (gpa, mode), &code, generation, provisional));
            if block.is_some() {
                return Ok(block);
            }
        }
        let max_insns = if transient { 1 } else { self.phase.block_insns };
        let mut second = None;
        let (form, len) = match self.compile((gpa, mode), &code, max_insns) {
            Some(compiled) => compiled,
            None if running => return Ok(None),
            None => {
                // The first instruction continues on the next page.
                let next = Gva(pc).page_base().wrapping_add(PAGE_SIZE);
                let (next_gpa, _) = self.translate_fetch(cpu, next)?;
                let Some((tail, next_generation, next_provisional)) = self.mark_code(next_gpa) else {
                    return Err(guest.bus_error(next, Access::Fetch));
                };
                second = Some((next_gpa, next_generation));
                provisional |= next_provisional;
                let whole = [&code[..], &tail[..tail.len().min(G::INSN_MAX as usize)]].concat();
                let dropped = self.blocks.drop_crossing(gpa, mode);
                self.forget_dropped(&dropped);
                if !transient
                    && let Some(block) =
                        self.compile_crossing((gpa, mode), &whole, generation, provisional, second)
                {
                    return Ok(Some(block));
                }
                self.compile((gpa, mode), &whole, 1).ok_or_else(|| guest.bus_error(Gva(pc), Access::Fetch))?
            }
        };
        if self.trace.insn {
            let text = guest.disassemble(&code, pc).0;
            trace::line(self.index, format_args!("{pc:#018x} {text}"));
        }
        if transient {
            // Permissions may end within the instruction: ask for each of its parcels.
            for offset in (G::INSN_ALIGN..len).step_by(G::INSN_ALIGN as usize) {
                self.translate_fetch(cpu, Gva(pc.wrapping_add(u64::from(offset))))?;
            }
            return Ok(Some(self.blocks.set_transient(form)));
        }
        let block = self.blocks.insert((gpa, mode), generation, provisional, form, second);
        self.expect_native(block, cpu.header().insns);
        if let (Some(native), None, Some(source)) = (&self.native, second, code.get(..len as usize)) {
            native.jit.note_lifted((gpa, mode), source);
        }
        Ok(Some(block))
    }

    /// The block at `gpa` as an earlier run compiled it, if the cache has it for these bytes: it is not even lifted then.
    fn find_kept(
        &mut self,
        jit: &Jit<G>,
        (gpa, mode): (Gpa, u32),
        code: &[u8],
        generation: u32,
        provisional: bool,
    ) -> Option<BlockRef> {
        if !jit.has_cache() {
            return None;
        }
        if self.blocks.find_kept(gpa, mode).is_none() {
            let (id, page) = loop {
                let id = jit.kept_page((gpa, mode), code).filter(|&id| self.blocks.lacks_kept(gpa, id))?;
                match jit.load_page(id) {
                    Asked::Loaded(page) => break (id, page),
                    // It is not found again; another may have the block.
                    Asked::Refused => {}
                    Asked::NoRoom => return None,
                }
            };
            let bytes = self.phys.page(gpa)?;
            // The copy is of this generation only if that has not changed since.
            if generation_of(&self.phys.memory, gpa) != Some(generation) {
                return None;
            }
            let (current, better) = (page.blocks().current(&bytes), jit.with_regions(&page, &bytes));
            jit.count_kept(&current);
            self.blocks.keep(gpa, generation, provisional, KeptPage { id, page, current, better });
            if let Some(native) = &mut self.native {
                native.fresh = Some(gpa.page_number());
            }
        }
        let (page, number) = self.blocks.find_kept(gpa, mode)?;
        let native = NativeCode::of_page(page, number, generation);
        let block = self.insert_native((gpa, mode), generation, provisional, native, None);
        // SAFETY: the block was made just now.
        self.seek_region(jit, unsafe { block.get() }, code);
        Some(block)
    }

    /// The block at `gpa`, which `code` begins with, as compiled code alone; `None` if it is to be interpreted.
    fn compile_at_once(
        &mut self,
        jit: &Jit<G>,
        (gpa, mode): (Gpa, u32),
        code: &[u8],
        generation: u32,
        provisional: bool,
    ) -> Option<BlockRef> {
        if jit.policy().template_after != Some(0) {
            return None;
        }
        let mut block = lift_block(&*self.guest, mode, code, MAX_BLOCK_INSNS)?;
        passes::optimize_for::<G>(&mut block);
        let source = code.get(..block.len as usize)?;
        let native = jit.compile_lifted((gpa, mode), generation, block, source)?;
        let block = self.insert_native((gpa, mode), generation, provisional, native, None);
        // SAFETY: the block was made just now.
        self.find_region(jit, unsafe { block.get() });
        Some(block)
    }

    /// The same for the one instruction at `gpa` that crosses into granule `second`.
    fn compile_crossing(
        &mut self,
        key: (Gpa, u32),
        code: &[u8],
        generation: u32,
        provisional: bool,
        second: Option<(Gpa, u32)>,
    ) -> Option<BlockRef> {
        let jit = self.native.as_ref()?.jit.clone();
        if jit.policy().template_after != Some(0) {
            return None;
        }
        let mut block = lift_block(&*self.guest, key.1, code, 1)?;
        passes::optimize_for::<G>(&mut block);
        let native = jit.compile_crossing(key, generation, block)?;
        Some(self.insert_native(key, generation, provisional, native, second))
    }

    /// Keeps a block that is compiled code and nothing else.
    fn insert_native(
        &mut self,
        key: (Gpa, u32),
        generation: u32,
        provisional: bool,
        native: NativeCode,
        second: Option<(Gpa, u32)>,
    ) -> BlockRef {
        let form = Form::Native(OnceCell::new(), native.own_bytes());
        let block = self.blocks.insert(key, generation, provisional, form, second);
        // SAFETY: the block was made just now.
        unsafe { block.get() }.attach(Held::Own(native));
        block
    }

    /// Attaches the region that starts with the block, whose bytes `code` begins with, if it is there or in the cache.
    fn seek_region(&mut self, jit: &Jit<G>, block: &Translated, code: &[u8]) -> bool {
        if self.find_region(jit, block) {
            return true;
        }
        let (gpa, generation) = (block.key.0, block.generation);
        // As for compiling: what every vCPU sees.
        if !jit.may_have_region(block.key, code)
            || !self.blocks.is_settled(gpa)
            || !self.is_protected(gpa, generation)
        {
            return false;
        }
        let Some(page) = self.phys.page(gpa) else { return false };
        generation_of(&self.phys.memory, gpa) == Some(generation)
            && jit.load_region(block.key, generation, &page)
            && self.find_region(jit, block)
    }

    /// Makes sure that a block of compiled code alone can be interpreted, too. False if it has changed.
    pub(crate) fn lift_native(&self, block: BlockRef) -> bool {
        // SAFETY: callers have just looked it up.
        let block = unsafe { block.get() };
        let Form::Native(lifted, _) = &block.form else { return true };
        if lifted.get().is_some() {
            return true;
        }
        let (gpa, generation) = (block.key.0, block.generation);
        let most = (MAX_BLOCK_INSNS * G::INSN_MAX) as usize;
        let Some(mut code) = self.phys.code_bytes(gpa, most) else { return false };
        let mut insns = MAX_BLOCK_INSNS;
        if let Some((second, of)) = block.second {
            let Some(tail) = self.phys.code_bytes(second, G::INSN_MAX as usize) else { return false };
            if generation_of(&self.phys.memory, second) != Some(of) {
                return false;
            }
            code.extend_from_slice(&tail);
            insns = 1;
        }
        if generation_of(&self.phys.memory, gpa) != Some(generation) {
            return false;
        }
        let form = self.compile(block.key, &code, insns);
        form.is_some_and(|(form, _)| lifted.set(Box::new(form)).is_ok())
    }

    // --- compiled code

    /// The guest has slept for a while: what was compiled for it by the block goes if it is much more than what stayed the
    /// last time. Regions stay. Between slices only.
    pub(crate) fn idle(&mut self) {
        /// Code memory that an idle guest may keep beside that.
        const BYTES: usize = 8 << 20;
        let Some(native) = &self.native else { return };
        let jit = native.jit.clone();
        if jit.code_bytes() > native.idle_bytes + BYTES {
            self.forget_code();
            if let Some(native) = &mut self.native {
                native.idle_bytes = jit.code_bytes();
            }
        }
        jit.idle();
    }

    /// Arranges for a new block to be noticed when it is hot; attaches compiled code that is there already.
    fn expect_native(&mut self, block: BlockRef, insns: u64) {
        let Some(native) = &mut self.native else { return };
        // SAFETY: the block was made just now.
        let block = unsafe { block.get() };
        let Form::Compact(code) = &block.form else { return };
        if !block.is_linkable() || native.is_volatile(block.key.0.page_number(), block.generation, insns) {
            return;
        }
        let policy = native.jit.policy();
        match policy.template_after.or(policy.region_after) {
            Some(0) => self.consider(block),
            Some(after) => {
                code.set_countdown(after);
                if let Some(State::Ready(_)) = native.jit.state(block.key, block.generation) {
                    self.consider(block);
                }
            }
            None => {}
        }
    }

    /// An interpreted block is hot: gives it compiled code if there is some, asks for it if not.
    fn consider(&mut self, block: &Translated) {
        /// Executions until a block that has to wait is looked at again.
        const WAIT: u64 = 500;
        let Form::Compact(code) = &block.form else { return };
        let Some(native) = &self.native else { return };
        let jit = native.jit.clone();
        let policy = jit.policy();
        if block.native_entry().is_some() {
            return code.set_countdown(if self.enters_native() { 1 } else { u64::MAX });
        }
        let regions = policy.region_after.is_some();
        if policy.template_after.is_some() {
            let ready = regions && self.find_region(&jit, block);
            if ready || self.make_template(&jit, block) {
                return code.set_countdown(1);
            }
        }
        code.set_countdown(if regions { policy.region_after.unwrap_or(0).max(WAIT) } else { u64::MAX });
        if regions && self.want_region(&jit, block) {
            code.set_countdown(1);
        }
    }

    /// Attaches a region that starts with the block if there is one.
    fn find_region(&self, jit: &Jit<G>, block: &Translated) -> bool {
        let state = jit.state(block.key, block.generation);
        // A region is made from what every vCPU sees; this block may be from before that.
        let (Some(State::Ready(native)), true) = (state, self.blocks.is_settled(block.key.0)) else {
            return false;
        };
        block.attach(Held::Shared(native));
        true
    }

    /// Compiles the block by itself. Its code is as good as the block, no matter what other vCPUs know.
    fn make_template(&self, jit: &Jit<G>, block: &Translated) -> bool {
        let gpa = block.key.0;
        let Some(page) = self.phys.page(gpa) else { return false };
        // The copy is of this generation only if that has not changed since.
        if generation_of(&self.phys.memory, gpa) != Some(block.generation) {
            return false;
        }
        let Some(native) = jit.compile_block(block.key, block.generation, &page) else { return false };
        block.attach(Held::Own(native));
        true
    }

    /// Attaches a region that starts with the block if there is one, asks for it if not; true if it is there.
    fn want_region(&mut self, jit: &Arc<Jit<G>>, block: &Translated) -> bool {
        let gpa = block.key.0;
        // Code that some vCPU may still change unnoticed is not worth the work, and might be shared with it.
        if !self.blocks.is_settled(gpa) || !self.is_protected(gpa, block.generation) {
            return false;
        }
        for _ in 0..2 {
            match jit.state(block.key, block.generation) {
                Some(State::Ready(_)) => return self.find_region(jit, block),
                Some(State::Pending(_) | State::Failed(_)) => return false,
                Some(State::Covered(_)) | None => {
                    let Some(page) = self.phys.page(gpa) else { return false };
                    if generation_of(&self.phys.memory, gpa) != Some(block.generation)
                        || !jit.request(block.key, block.generation, page)
                    {
                        return false;
                    }
                }
            }
        }
        false
    }

    /// The compiled block at the CPU's pc has run often.
    pub(crate) fn consider_better(&mut self, block: BlockRef) {
        // SAFETY: callers have just looked it up.
        let block = unsafe { block.get() };
        let Some(native) = &mut self.native else { return };
        if let Some(counter) = block.counter() {
            native.cool(counter);
        }
        let jit = native.jit.clone();
        if block.native_entry().is_some() && !block.is_best() {
            self.want_region(&jit, block);
        }
    }

    /// The block at the CPU's pc is hot.
    pub(crate) fn consider_hot(&mut self, block: BlockRef) {
        // SAFETY: callers have just looked it up.
        self.consider(unsafe { block.get() });
    }

    /// Lets compiled code find `entry`, that of the block at `pc`, and with the first of a page all others there: after a
    /// context switch a program would ask for each of its blocks otherwise.
    pub(crate) fn offer_jumps(
        &mut self,
        gpa: Gpa,
        second: Option<(Gpa, u32)>,
        pc: u64,
        mode: u32,
        entry: *const u8,
    ) {
        let fresh = self.native.as_mut().and_then(|native| native.fresh.take());
        if fresh.is_none() && self.tlb.has_jump(pc, mode, entry) {
            return;
        }
        let perf_map = self.native.as_ref().and_then(|native| native.jit.perf_map());
        let known = !self.tlb.knows_no_jumps(pc) || self.tlb.resume_jumps(pc, gpa);
        if !known || fresh == Some(gpa.page_number()) {
            let page = Gva(pc).page_base().0;
            for (place, entry) in self.blocks.natives(gpa, mode) {
                let pc = page + u64::from(place);
                self.tlb.insert_jump(pc, gpa, mode, entry);
                if let Some(map) = perf_map {
                    map.reachable(entry, pc, gpa.page_base().wrapping_add(place.into()));
                }
            }
        }
        match second {
            None => self.tlb.insert_jump(pc, gpa, mode, entry),
            Some((second, _)) => self.tlb.insert_crossing_jump(pc, (gpa, second), mode, entry),
        }
        if let Some(map) = perf_map {
            map.reachable(entry, pc, gpa);
        }
    }

    /// What compiled the code that has brought the CPU to its pc: a region, unless what starts there is a template.
    pub(crate) fn compiled_tier(&self, cpu: &G::Cpu) -> Tier {
        let (pc, mode) = (cpu.header().pc, cpu.header().mode);
        let mmu = self.guest.fetch_mmu(cpu).0;
        if self.tlb.entry(pc, mmu).fetch != Gva(pc).page_base().0 {
            return Tier::Region;
        }
        let gpa = self.tlb.gpa(pc, mmu).wrapping_add(Gva(pc).page_offset());
        let block = self.blocks.get(gpa, mode, &self.phys.memory);
        // SAFETY: the block was obtained just now.
        let block = block.map(|block| unsafe { block.get() });
        match block.is_some_and(|block| block.native_entry().is_some() && !block.is_best()) {
            true => Tier::Template,
            false => Tier::Region,
        }
    }

    /// Gives up compiled code whose memory is wanted for other code. Between slices only.
    fn follow_jit(&mut self) {
        if let Some(native) = &mut self.native {
            let epoch = native.jit.epoch();
            if native.epoch != epoch {
                native.epoch = epoch;
                self.blocks.detach_all();
                // Blocks that were nothing but compiled code are gone.
                self.clear_jumps();
            }
        }
    }

    /// The guest-physical address of an instruction, and whether the rest of its granule may be fetched too.
    fn translate_fetch(&mut self, cpu: &mut G::Cpu, gva: Gva) -> Result<(Gpa, bool), G::Trap> {
        let mmu = self.guest.fetch_mmu(cpu);
        if self.tlb.allows(gva.0, mmu.0, Access::Fetch) {
            return Ok((self.tlb.gpa(gva.0, mmu.0).wrapping_add(gva.page_offset()), true));
        }
        let page = self.walk(cpu, (gva, G::INSN_ALIGN as usize), Access::Fetch, mmu)?;
        let whole_page = u32::from(page.shift) >= isomer_core::PAGE_SHIFT;
        Ok((page.gpa.page_base().wrapping_add(gva.page_offset()), whole_page))
    }

    /// Lifts and compiles the block at `gpa`, with fewer instructions where it is too complex for the interpreter; the
    /// form and the bytes of guest code in it. `None` if even the first instruction needs more bytes.
    fn compile(&self, (gpa, mode): (Gpa, u32), code: &[u8], max_insns: u32) -> Option<(Form, u32)> {
        let mut max_insns = max_insns;
        loop {
            let mut block = lift_block(&*self.guest, mode, code, max_insns)?;
            let len = block.len;
            if self.engine == EngineKind::Reference || self.phase.kind == EngineKind::Reference {
                return Some((Form::Lifted(Box::new(block)), len));
            }
            passes::optimize_for::<G>(&mut block);
            match Code::compile(&block) {
                Ok(code) => return Some((Form::Compact(code.at_home(gpa.page_number())), len)),
                Err(CompileError::TooComplex) if block.insn_count > 1 => max_insns = block.insn_count / 2,
                // One instruction that is too much for the interpreter is not for the other engine.
                Err(CompileError::TooComplex) => return Some((Form::Lifted(Box::new(block)), len)),
            }
        }
    }

    /// Marks the granule at `gpa` as holding translated code; its bytes from `gpa` on, enough for any block, its
    /// generation, and whether some vCPU may still store there unnoticed.
    fn mark_code(&mut self, gpa: Gpa) -> Option<(Vec<u8>, u32, bool)> {
        let (region, _) = self.phys.granule(gpa)?;
        let offset = gpa.0 - region.gpa.0;
        let generation = region.code.mark(offset);
        let provisional = !self.is_protected(gpa, generation);
        let most = (MAX_BLOCK_INSNS * G::INSN_MAX) as usize;
        Some((self.phys.code_bytes(gpa, most)?, generation, provisional))
    }

    /// Has every vCPU confirmed that it notices stores to the granule at `gpa`? Asks them to, once a generation.
    fn is_protected(&mut self, gpa: Gpa, generation: u32) -> bool {
        let peers = self.group.peers();
        let known =
            self.protections.get_mut(&gpa.page_number()).filter(|known| known.generation == generation);
        if let Some(known) = known {
            known.unconfirmed.retain(|&(peer, ticket)| !peers[peer].is_done(ticket));
            return known.unconfirmed.is_empty();
        }
        self.tlb.protect(gpa);
        let others =
            peers.iter().enumerate().filter(|&(peer, shared)| peer != self.index && shared.is_powered());
        let unconfirmed: Vec<_> =
            others.map(|(peer, shared)| (peer, shared.post(Request::Protect(gpa)))).collect();
        let alone = unconfirmed.is_empty();
        self.protections.insert(gpa.page_number(), Protection { generation, unconfirmed });
        alone
    }

    // --- translation

    /// The guest-physical address of `gva`, through the TLB or a walk, for an access to `len` bytes of one granule.
    pub(crate) fn translate_gva(
        &mut self,
        cpu: &mut G::Cpu,
        (gva, len): (Gva, usize),
        access: Access,
        mmu: MmuIndex,
    ) -> Result<Gpa, G::Trap> {
        let gpa = if self.tlb.allows(gva.0, mmu.0, access) {
            self.tlb.gpa(gva.0, mmu.0)
        } else {
            self.walk(cpu, (gva, len), access, mmu)?.gpa.page_base()
        };
        Ok(gpa.wrapping_add(gva.page_offset()))
    }

    /// Walks (or uses a large translation already known) and fills the TLB.
    fn walk(
        &mut self,
        cpu: &mut G::Cpu,
        (gva, len): (Gva, usize),
        access: Access,
        mmu: MmuIndex,
    ) -> Result<Page, G::Trap> {
        let allows = |page: &Page| match access {
            Access::Load => page.load,
            Access::Store => page.store,
            Access::Fetch => page.fetch,
        };
        self.tlb_misses += 1;
        let known = self.tlb.large(gva.0, mmu.0).filter(allows);
        let page = match known {
            Some(page) => page,
            None => {
                self.tlb.forget_large(gva.0, mmu.0);
                self.walks += 1;
                let walked = self.guest.walk(cpu, &self.phys, gva, len as u32, access, mmu);
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

/// Where a data access of one page ends up.
#[derive(Clone, Copy)]
enum Place {
    Ram(NonNull<u8>, Gpa),
    Mmio(Gpa),
}

impl<G: Guest> VcpuEnv<G> {
    fn place(
        &mut self,
        cpu: &mut G::Cpu,
        (gva, len): (Gva, usize),
        access: Access,
        mmu: MmuIndex,
    ) -> Result<Place, G::Trap> {
        let gpa = self.translate_gva(cpu, (gva, len), access, mmu)?;
        let host = self.phys.granule(gpa).map(|(_, host)| host + gpa.page_offset());
        Ok(match host.and_then(|host| NonNull::new(host as *mut u8)) {
            Some(host) => Place::Ram(host, gpa),
            None => Place::Mmio(gpa),
        })
    }

    /// The two halves of an access that crosses into another page, both checked: address, bytes, place.
    fn halves(
        &mut self,
        cpu: &mut G::Cpu,
        gva: Gva,
        size: usize,
        access: Access,
        mmu: MmuIndex,
    ) -> Result<[(Gva, usize, Place); 2], G::Trap> {
        let first = (PAGE_SIZE - gva.page_offset()) as usize;
        let next = gva.wrapping_add(first as u64);
        let low = self.place(cpu, (gva, first), access, mmu)?;
        let high = self.place(cpu, (next, size - first), access, mmu)?;
        Ok([(gva, first, low), (next, size - first, high)])
    }

    /// A load with all checks; little-endian, zero-extended. Across two pages, devices see nothing if either faults.
    fn load_checked(
        &mut self,
        cpu: &mut G::Cpu,
        gva: Gva,
        size: usize,
        mmu: MmuIndex,
    ) -> Result<u64, G::Trap> {
        if gva.page_offset() + size as u64 > PAGE_SIZE {
            let [low, high] = self.halves(cpu, gva, size, Access::Load, mmu)?;
            return Ok(self.load_bytes(low)? | self.load_bytes(high)? << (8 * low.1));
        }
        match self.place(cpu, (gva, size), Access::Load, mmu)? {
            // SAFETY: `place` gives host RAM for the whole granule, and the access stays inside it.
            Place::Ram(host, _) => Ok(unsafe { load_host(host, size) }),
            Place::Mmio(gpa) => {
                // Engines rely on zeros above, whatever the device gives.
                let value = self.phys.mmio.read(gpa, size).map(|value| value & low_bytes(size));
                value.ok_or_else(|| self.guest.bus_error(gva, Access::Load))
            }
        }
    }

    /// Loads `count` (1 to 7) bytes of one page, one at a time.
    fn load_bytes(&self, (gva, count, place): (Gva, usize, Place)) -> Result<u64, G::Trap> {
        let byte = |i: usize| match place {
            // SAFETY: `place` gives host RAM for the whole granule, and the access stays inside it.
            Place::Ram(host, _) => Ok(unsafe { load_host(host.add(i), 1) }),
            Place::Mmio(gpa) => {
                let value =
                    self.phys.mmio.read(gpa.wrapping_add(i as u64), 1).map(|value| value & low_bytes(1));
                value.ok_or_else(|| self.guest.bus_error(gva, Access::Load))
            }
        };
        (0..count).try_fold(0, |value, i| Ok(value | byte(i)? << (8 * i)))
    }

    /// A store with all checks. Across two pages, no RAM changes if either faults.
    fn store_checked(
        &mut self,
        cpu: &mut G::Cpu,
        gva: Gva,
        size: usize,
        mmu: MmuIndex,
        value: u64,
    ) -> Result<(), G::Trap> {
        if gva.page_offset() + size as u64 > PAGE_SIZE {
            let [low, high] = self.halves(cpu, gva, size, Access::Store, mmu)?;
            let rest = value >> (8 * low.1);
            // What can still be refused goes first.
            return match high.2 {
                Place::Ram(..) => self.store_bytes(low, value).and_then(|()| self.store_bytes(high, rest)),
                Place::Mmio(_) => self.store_bytes(high, rest).and_then(|()| self.store_bytes(low, value)),
            };
        }
        match self.place(cpu, (gva, size), Access::Store, mmu)? {
            Place::Ram(host, gpa) => {
                // SAFETY: `place` gives host RAM for the whole granule, and the access stays inside it.
                unsafe { store_host(host, size, value) };
                self.note_store(gpa, size);
                Ok(())
            }
            // Compiled code hands over whole registers.
            Place::Mmio(gpa) => match self.phys.mmio.write(gpa, size, value & low_bytes(size)) {
                true => Ok(()),
                false => Err(self.guest.bus_error(gva, Access::Store)),
            },
        }
    }

    /// Stores the low `count` (1 to 7) bytes to one page, one at a time.
    fn store_bytes(&self, (gva, count, place): (Gva, usize, Place), value: u64) -> Result<(), G::Trap> {
        let bytes = value.to_le_bytes();
        match place {
            Place::Ram(host, gpa) => {
                for (i, &byte) in bytes[..count].iter().enumerate() {
                    // SAFETY: `place` gives host RAM for the whole granule, and the access stays inside it.
                    unsafe { store_host(host.add(i), 1, byte.into()) };
                }
                self.note_store(gpa, count);
            }
            Place::Mmio(gpa) => {
                for (i, &byte) in bytes[..count].iter().enumerate() {
                    if !self.phys.mmio.write(gpa.wrapping_add(i as u64), 1, byte.into()) {
                        return Err(self.guest.bus_error(gva, Access::Store));
                    }
                }
            }
        }
        Ok(())
    }

    /// Tells of a store that did not take the fast path.
    fn note_store(&self, gpa: Gpa, size: usize) {
        if let Some((region, _)) = self.phys.granule(gpa) {
            region.code.written(gpa.0 - region.gpa.0, size);
        }
    }

    fn record<T>(&mut self, result: Result<T, G::Trap>) -> Result<T, Fault> {
        result.map_err(|trap| {
            self.fault = Some(trap);
            Fault
        })
    }
}

/// A mask of the low `size` (1 to 8) bytes.
fn low_bytes(size: usize) -> u64 {
    u64::MAX >> (64 - 8 * size)
}

/// # Safety
/// `host` must be mapped for `size` (1, 2, 4 or 8) bytes. Other threads may write them meanwhile.
unsafe fn load_host(host: NonNull<u8>, size: usize) -> u64 {
    let at = host.as_ptr();
    let aligned = (at as usize).is_multiple_of(size);
    // SAFETY: mapped as the caller says; aligned where the atomic needs it.
    unsafe {
        match size {
            1 => u64::from(AtomicU8::from_ptr(at).load(Ordering::Acquire)),
            2 if aligned => u64::from(u16::from_le(AtomicU16::from_ptr(at.cast()).load(Ordering::Acquire))),
            4 if aligned => u64::from(u32::from_le(AtomicU32::from_ptr(at.cast()).load(Ordering::Acquire))),
            8 if aligned => u64::from_le(AtomicU64::from_ptr(at.cast()).load(Ordering::Acquire)),
            _ => (0..size).rev().fold(0, |value, i| {
                value << 8 | u64::from(AtomicU8::from_ptr(at.add(i)).load(Ordering::Acquire))
            }),
        }
    }
}

/// # Safety
/// As [`load_host`].
unsafe fn store_host(host: NonNull<u8>, size: usize, value: u64) {
    let at = host.as_ptr();
    let aligned = (at as usize).is_multiple_of(size);
    // SAFETY: mapped as the caller says; aligned where the atomic needs it.
    unsafe {
        match size {
            1 => AtomicU8::from_ptr(at).store(value as u8, Ordering::Release),
            2 if aligned => AtomicU16::from_ptr(at.cast()).store((value as u16).to_le(), Ordering::Release),
            4 if aligned => AtomicU32::from_ptr(at.cast()).store((value as u32).to_le(), Ordering::Release),
            8 if aligned => AtomicU64::from_ptr(at.cast()).store(value.to_le(), Ordering::Release),
            _ => {
                for i in 0..size {
                    AtomicU8::from_ptr(at.add(i)).store((value >> (8 * i)) as u8, Ordering::Release);
                }
            }
        }
    }
}

// SAFETY: host addresses come from TLB entries, which only name RAM that `phys.memory` keeps mapped; a hit demands
// alignment by comparing the low bits with a tag that has none. Blocks are dropped only in `lookup`, `forget_code` and
// `drop_stale_code`, which run between slices, whole granules at a time, and a block's home is its granule. Those that
// are dropped alone (transient ones, and those whose instruction crosses into another granule) nobody links to.
unsafe impl<G: Guest> interp::Env for VcpuEnv<G> {
    type Cpu = G::Cpu;

    #[inline(always)]
    fn attention(&self) -> &AtomicU32 {
        self.signal.attention()
    }

    #[inline(always)]
    fn read_hit(&self, va: u64, size: u64, mmu: MmuIndex) -> Option<NonNull<u8>> {
        let entry = self.tlb.entry(va, mmu.0);
        let host = va.wrapping_add(entry.addend) as *mut u8;
        if va & (!(PAGE_SIZE - 1) | (size - 1)) == entry.load { NonNull::new(host) } else { None }
    }

    #[inline(always)]
    fn write_hit(&self, va: u64, size: u64, mmu: MmuIndex) -> Option<NonNull<u8>> {
        let entry = self.tlb.entry(va, mmu.0);
        let host = va.wrapping_add(entry.addend) as *mut u8;
        if va & (!(PAGE_SIZE - 1) | (size - 1)) == entry.store { NonNull::new(host) } else { None }
    }

    fn load(&mut self, cpu: &mut G::Cpu, va: u64, size: u32, flags: MemFlags) -> Result<u64, Fault> {
        let result = self.load_checked(cpu, Gva(va), size as usize, flags.mmu);
        self.record(result)
    }

    fn store(
        &mut self,
        cpu: &mut G::Cpu,
        va: u64,
        size: u32,
        value: u64,
        flags: MemFlags,
    ) -> Result<(), Fault> {
        let result = self.store_checked(cpu, Gva(va), size as usize, flags.mmu, value);
        self.record(result)
    }

    fn probe_store(&mut self, cpu: &mut G::Cpu, va: u64, size: u32, flags: MemFlags) -> Result<(), Fault> {
        let last = Gva(va.wrapping_add(u64::from(size) - 1));
        let first = self.translate_gva(cpu, (Gva(va), 1), Access::Store, flags.mmu);
        let result = first.and_then(|_| self.translate_gva(cpu, (last, 1), Access::Store, flags.mmu));
        self.record(result).map(|_| ())
    }

    fn resolve(
        &mut self,
        cpu: &mut G::Cpu,
        va: u64,
        size: u32,
        access: Access,
        flags: MemFlags,
    ) -> Result<HostPlace, Fault> {
        let place = self.place(cpu, (Gva(va), size as usize), access, flags.mmu);
        match self.record(place)? {
            Place::Ram(host, gpa) => {
                if access == Access::Store {
                    self.note_store(gpa, size as usize);
                }
                Ok(HostPlace { host })
            }
            Place::Mmio(_) => {
                self.fault = Some(self.guest.bus_error(Gva(va), access));
                Err(Fault)
            }
        }
    }

    fn misaligned(&mut self, _cpu: &mut G::Cpu, va: u64, access: Access) -> Fault {
        self.fault = Some(self.guest.misaligned(Gva(va), access));
        Fault
    }

    fn call(&mut self, cpu: &mut G::Cpu, helper: HelperId, args: [u64; 4]) -> Result<u64, Fault> {
        let guest: *const G = Arc::as_ptr(&self.guest);
        // SAFETY: `self.guest` keeps it alive and is never replaced.
        let guest = unsafe { &*guest };
        let run = G::HELPERS[usize::from(helper.0)].run;
        let result = run(&mut HelperCx { guest, cpu, env: self }, args);
        self.record(result)
    }

    #[inline(always)]
    fn lookup_hit(&self, pc: u64, mode: u32) -> Option<Entry> {
        self.jump_cache.entry(pc, mode, self.tlb.generation())
    }

    fn lookup(&mut self, cpu: &mut G::Cpu) -> Option<Entry> {
        // SAFETY: the block was obtained just now.
        self.lookup_running(cpu).and_then(|block| unsafe { block.get() }.form.entry())
    }
}

impl<G: Guest> HelperEnv<G> for VcpuEnv<G> {
    fn now_ns(&self) -> u64 {
        self.now()
    }
    fn lines(&self) -> u64 {
        self.signal.lines()
    }
    fn entropy(&mut self) -> u64 {
        let mut bytes = [0; 8];
        // The kernel's generator only fails before it is seeded at boot; guests see that as a constant.
        let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
        u64::from_le_bytes(bytes)
    }
    fn load(
        &mut self,
        _: &G,
        cpu: &mut G::Cpu,
        gva: Gva,
        size: usize,
        mmu: MmuIndex,
    ) -> Result<u64, G::Trap> {
        self.load_checked(cpu, gva, size, mmu)
    }
    fn store(
        &mut self,
        _: &G,
        cpu: &mut G::Cpu,
        gva: Gva,
        size: usize,
        mmu: MmuIndex,
        value: u64,
    ) -> Result<(), G::Trap> {
        self.store_checked(cpu, gva, size, mmu, value)
    }
    fn translate(
        &mut self,
        _: &G,
        cpu: &mut G::Cpu,
        gva: Gva,
        access: Access,
        mmu: MmuIndex,
    ) -> Result<Gpa, G::Trap> {
        self.translate_gva(cpu, (gva, 1), access, mmu)
    }
    fn flush_tlb(&mut self, what: TlbFlush) {
        Self::flush_tlb(self, what);
    }
    fn flush_tlb_everywhere(&mut self, what: TlbFlush) {
        Self::flush_tlb(self, what);
        self.flush_others(what);
    }
    fn await_flushes(&mut self) {
        let peers = self.group.peers();
        self.flushes.retain(|&(peer, ticket)| !peers[peer].is_done(ticket));
        if !self.flushes.is_empty() {
            self.reconsider();
        }
    }
    fn memory(&self) -> Option<&dyn PhysMemory> {
        Some(&self.phys)
    }
    fn set_address_space(&mut self, id: u64) {
        Self::set_address_space(self, id);
    }
    fn sync_code(&mut self) {
        self.sync = true;
        self.reconsider();
    }
    fn interrupts_waiting(&self) -> bool {
        self.interrupts_waiting
    }
    fn reconsider(&mut self) {
        self.signal.attention().store(1, Ordering::SeqCst);
    }
    fn wait_for_interrupt(&mut self) {
        self.wait = true;
        self.reconsider();
    }
}
