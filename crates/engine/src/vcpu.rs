//! A vCPU in software: the run loop around lookup, interpretation, traps, interrupts, requests and sleep.
#![allow(unsafe_code)]

use crate::{
    blocks::{BlockRef, Form, Translated},
    engines::EngineKind,
    env::{Lookup, MAX_BLOCK_INSNS, VcpuEnv},
    fpenv,
    group::{Control, Group, Peer, Request},
    heap::trim_heap,
    jit::Jit,
    mixed::Mixer,
    native::{self, NativeEnd},
    phys::Phys,
    profile::{Samples, Tier},
    trace::{self, Trace},
};
use isomer_core::{Bus, Clock, GuestMemory};
use isomer_ir::{
    CpuState, Guest,
    guest::TlbFlush,
    interp::{self, End},
    reference,
};
use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

/// Instructions between looks at the clock: about 0.1 ms, the resolution of a CPU's own timer.
const SLICE_INSNS: u64 = 16_384;
/// A guest that sleeps this long is idle, and idle guests should cost little: what was translated for it goes, down
/// to this many bytes.
const IDLE: Duration = Duration::from_millis(400);
const IDLE_CODE_BYTES: usize = 1 << 20;
/// The same where blocks are little more than names of compiled code, which is bounded by itself.
const IDLE_NATIVE_BYTES: usize = 8 << 20;
/// The longest sleep without a deadline, so that a lost wake-up costs a moment, not the machine.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// What a vCPU is made from.
pub struct VcpuConfig<G: Guest> {
    /// The CPU model.
    pub guest: Arc<G>,
    /// Its state at power-on.
    pub cpu: G::Cpu,
    /// Its number in the group.
    pub index: usize,
    /// All vCPUs of the machine.
    pub group: Arc<Group<G>>,
    /// RAM.
    pub memory: GuestMemory,
    /// Devices.
    pub mmio: Arc<Bus>,
    /// Guest time.
    pub clock: Arc<Clock>,
    /// Answers firmware calls, where the machine is its own firmware.
    pub firmware: Option<Box<dyn Firmware<G>>>,
    /// What to trace.
    pub trace: Trace,
    /// Which engine.
    pub engine: EngineKind,
    /// The machine's compilers, as [`Jit::for_engine`] gives them; without them a compiling engine interprets.
    pub jit: Option<Arc<Jit<G>>>,
    /// Room for translated blocks, in bytes.
    pub code_limit_bytes: usize,
}

/// Why [`SoftVcpu::run`] returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// [`Control::Pause`]: call `run` again to go on.
    Paused,
    /// [`Control::Stop`].
    Stopped,
    /// The instruction limit given to `run` was reached.
    Limit,
    /// The guest cannot continue: it faults in its own fault handler at this pc, for ever.
    Wedged {
        /// Where.
        pc: u64,
        /// The registers, for people.
        registers: String,
        /// The trap that repeats.
        trap: String,
    },
}

/// What firmware makes of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FirmwareResult {
    /// Go on at the CPU's pc (the firmware moved it past the call).
    Continue,
    /// The same, once these requests to other vCPUs are done: `(vCPU, ticket of Peer::post)`.
    ContinueAfter(Vec<(usize, u64)>),
    /// This vCPU is off until somebody powers it on.
    PowerOff,
    /// Sleep until an interrupt, then go on.
    Wait,
    /// The machine is stopping, the request is with the machine already: this vCPU runs no more.
    Stop,
    /// Not mine: take the trap as the architecture says.
    Decline,
}

/// Firmware the machine provides itself (SBI, PSCI, hcalls).
pub trait Firmware<G: Guest>: Send {
    /// Answers the call the CPU has just made; pc is the calling instruction.
    fn call(&mut self, cx: FirmwareCx<'_, G>) -> FirmwareResult;
}

/// What firmware works with.
pub struct FirmwareCx<'a, G: Guest> {
    /// The model.
    pub guest: &'a G,
    /// The calling CPU.
    pub cpu: &'a mut G::Cpu,
    /// Translation, memory, time: as helpers see them.
    pub env: &'a mut dyn isomer_ir::guest::HelperEnv<G>,
    /// All vCPUs.
    pub group: &'a Group<G>,
    /// The caller's number.
    pub index: usize,
}

impl<G: Guest> std::fmt::Debug for FirmwareCx<'_, G> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FirmwareCx(cpu {})", self.index)
    }
}

/// What a vCPU did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Guest instructions retired.
    pub insns: u64,
    /// Of those, in compiled code: between entering it and coming back from it.
    pub compiled_insns: u64,
    /// Times compiled code was entered.
    pub compiled_entries: u64,
    /// Accesses and fetches that missed the TLB, and of those, the ones that walked the guest's page tables; the others
    /// were in a large page already known.
    pub tlb_misses: u64,
    /// See [`Self::tlb_misses`].
    pub walks: u64,
    /// Blocks translated, again where code changed.
    pub blocks: u64,
    /// Bytes of translated code held now.
    pub code_bytes: u64,
    /// Traps and interrupts taken.
    pub traps: u64,
    /// Times it slept.
    pub sleeps: u64,
    /// Times the run loop looked for code, because no code led there.
    pub lookups: u64,
}

/// A vCPU of any guest on any engine, as a machine's thread runs it.
pub trait Vcpu: Send {
    /// Runs until asked to pause or stop, or about `limit` more instructions are retired.
    fn run(&mut self, limit: Option<u64>) -> Exit;
    /// Counters.
    fn stats(&self) -> Stats;
    /// Where it was when [`crate::Peer::ask_for_sample`] asked.
    fn samples(&self) -> &Samples;
    /// Registers for people.
    fn describe(&self) -> String;
}

impl<G: Guest> Vcpu for SoftVcpu<G> {
    fn run(&mut self, limit: Option<u64>) -> Exit {
        Self::run(self, limit)
    }
    fn stats(&self) -> Stats {
        Self::stats(self)
    }
    fn samples(&self) -> &Samples {
        &self.samples
    }
    fn describe(&self) -> String {
        self.guest.describe(&self.cpu)
    }
}

/// One vCPU, interpreted.
pub struct SoftVcpu<G: Guest> {
    guest: Arc<G>,
    cpu: Box<G::Cpu>,
    env: VcpuEnv<G>,
    peer: Arc<Peer<G>>,
    firmware: Option<Box<dyn Firmware<G>>>,
    wait: bool,
    /// Requests to other vCPUs that must be done before this one runs on.
    awaited: Vec<(usize, u64)>,
    stats: Stats,
    repeated: Repeat,
    time: Time,
    /// Of [`EngineKind::Mixed`].
    mixer: Option<Mixer>,
    samples: Samples,
    /// The last thing that ran was compiled code.
    was_native: bool,
}

/// When the time was read last.
struct Time {
    ns: u64,
    at_insns: u64,
    looks: u32,
}

impl Time {
    /// The next look reads it.
    const OUTDATED: Self = Self { ns: 0, at_insns: 0, looks: u32::MAX - 1 };
}

/// How a slice goes on.
enum Next<G: Guest> {
    /// With the code at the CPU's pc.
    Lookup,
    /// It is over.
    Leave,
    /// With a trap at the CPU's pc.
    Trap(G::Trap),
}

/// Recognises a guest that traps at its trap handler's first instruction for ever.
#[derive(Default)]
struct Repeat {
    at_insns: u64,
    pc: u64,
    count: u32,
}

/// Traps in a row without an instruction retired, at one pc, before the guest counts as wedged.
const WEDGED_TRAPS: u32 = 10_000;

impl<G: Guest> SoftVcpu<G> {
    /// A vCPU; it runs once powered on ([`Peer::claim_power_on`] and [`Request::PowerOn`], or
    /// [`Self::power_on`] for the boot CPU).
    pub fn new(config: VcpuConfig<G>) -> Self {
        let peer = config.group.peers()[config.index].clone();
        config.memory.code_watch().add_listener(peer.signal().clone());
        let phys = Phys { memory: config.memory, mmio: config.mmio };
        let mut env = VcpuEnv::new(
            config.guest.clone(),
            config.group,
            config.index,
            phys,
            config.clock,
            config.trace,
            config.engine,
            config.code_limit_bytes,
        );
        env.set_engine(config.engine, config.jit);
        Self {
            mixer: (config.engine == EngineKind::Mixed).then(|| Mixer::new(config.index as u64)),
            guest: config.guest,
            cpu: Box::new(config.cpu),
            env,
            peer,
            firmware: config.firmware,
            wait: false,
            awaited: Vec::new(),
            stats: Stats::default(),
            repeated: Repeat::default(),
            time: Time::OUTDATED,
            samples: Samples::default(),
            was_native: false,
        }
    }

    /// Lets it run from its present state.
    pub fn power_on(&self) {
        self.peer.set_powered(true);
    }

    /// The CPU, between calls of [`Self::run`].
    pub fn cpu(&self) -> &G::Cpu {
        &self.cpu
    }

    /// The CPU, between calls of [`Self::run`].
    pub fn cpu_mut(&mut self) -> &mut G::Cpu {
        &mut self.cpu
    }

    /// Goes on with another engine, between calls of [`Self::run`]; [`crate::SwitchEngine`] does it while the guest runs.
    /// `jit` is what [`Jit::for_engine`] gives for `kind`; without it a compiling engine interprets.
    pub fn switch_engine(&mut self, kind: EngineKind, jit: Option<Arc<Jit<G>>>) {
        self.env.set_engine(kind, jit);
        let seed = self.env.index as u64;
        self.mixer = (kind == EngineKind::Mixed).then(|| Mixer::new(seed));
    }

    /// Translates at most `insns` instructions at once from now on, for whoever looks at the state between them: with 1,
    /// a limit of 1 for [`Self::run`] is one instruction.
    pub fn limit_blocks(&mut self, insns: u32) {
        self.env.limit_blocks(insns);
    }

    /// Chooses what [`EngineKind::Mixed`] does when.
    pub fn mix(&mut self, seed: u64) {
        if let Some(mixer) = &mut self.mixer {
            *mixer = Mixer::new(seed);
        }
    }

    /// Counters.
    pub fn stats(&self) -> Stats {
        Stats {
            insns: self.cpu.header().insns,
            blocks: self.env.blocks.translated,
            code_bytes: self.env.blocks.bytes() as u64,
            tlb_misses: self.env.tlb_misses,
            walks: self.env.walks,
            ..self.stats
        }
    }

    /// Runs until asked to pause or stop, or about `limit` more instructions are retired.
    pub fn run(&mut self, limit: Option<u64>) -> Exit {
        let end = limit.map(|n| self.cpu.header().insns.saturating_add(n));
        self.peer.set_quiet(false);
        self.env.request_attention();
        let exit = loop {
            if let Some(exit) = self.attend() {
                break exit;
            }
            if !self.peer.is_on() {
                self.sleep(None);
                continue;
            }
            if !self.others_are_done() {
                continue;
            }
            let mut due = self.guest.slice_done(&mut self.cpu);
            let now = self.recent_time();
            let lines = self.peer.signal().lines();
            self.env.interrupts_waiting = self.guest.wakes(&self.cpu, lines, now);
            if self.wait {
                if !self.env.interrupts_waiting {
                    let deadline = self.guest.deadline_ns(&self.cpu);
                    self.sleep(deadline.map(|at| Duration::from_nanos(at.saturating_sub(now))));
                    continue;
                }
                self.wait = false;
            }
            if let Some(interrupt) = self.guest.pending(&self.cpu, lines, now) {
                self.take(interrupt);
                due = self.guest.slice_done(&mut self.cpu);
            }
            let insns = self.cpu.header().insns;
            let slice = due.clamp(1, SLICE_INSNS).min(self.mixed_slice(insns));
            let budget = end.map_or(slice, |end| end.saturating_sub(insns).min(slice));
            if budget == 0 {
                break Exit::Limit;
            }
            if let Some(exit) = self.run_slice(budget) {
                break exit;
            }
        };
        self.peer.set_quiet(true);
        exit
    }

    /// Goes over to the next phase of a mixed engine if it is time; the most instructions to run now.
    fn mixed_slice(&mut self, insns: u64) -> u64 {
        let Some(mixer) = &mut self.mixer else { return u64::MAX };
        if mixer.left(insns) == 0 {
            self.env.enter_phase(mixer.draw(insns, MAX_BLOCK_INSNS));
        }
        mixer.left(insns)
    }

    /// Handles everything others asked for.
    fn attend(&mut self) -> Option<Exit> {
        if !self.peer.signal().take_attention() && !self.env.attention_due() {
            return None;
        }
        if self.peer.take_sample_request() {
            self.sample();
        }
        match self.peer.control() {
            Control::Run => {}
            Control::Pause => return Some(Exit::Paused),
            Control::Stop => return Some(Exit::Stopped),
        }
        let (requests, ticket) = self.peer.take();
        for request in requests {
            match request {
                Request::FlushTlb(what) => self.env.flush_tlb(what),
                Request::SyncCode => self.env.sync_provisional(),
                Request::Protect(gpa) => self.env.tlb.protect(gpa),
                Request::PowerOn(set_up) => {
                    self.peer.set_powered(true);
                    self.wait = false;
                    set_up(&self.guest, &mut self.cpu);
                }
                Request::Call(set_up) => set_up(&self.guest, &mut self.cpu),
                Request::SwitchEngine { kind, jit } => self.switch_engine(kind, jit),
            }
        }
        self.peer.acknowledge(ticket);
        self.env.drop_stale_code();
        None
    }

    /// Notes where it is, and what has run that.
    fn sample(&mut self) {
        let header = self.cpu.header();
        let tier = match self.was_native {
            true => self.env.compiled_tier(&self.cpu),
            false => Tier::Interpreter,
        };
        self.samples.add(header.pc, tier);
    }

    /// Gives the host to the vCPUs we wait for; no guest code of ours runs meanwhile, so they need not wait for us.
    fn others_are_done(&mut self) -> bool {
        self.awaited.append(&mut self.env.take_flushes());
        let peers = self.env.group.peers();
        self.awaited.retain(|&(peer, ticket)| !peers[peer].is_done(ticket));
        if self.awaited.is_empty() {
            return true;
        }
        self.peer.set_quiet(true);
        std::thread::yield_now();
        self.peer.set_quiet(false);
        self.env.request_attention();
        false
    }

    /// Sleeps until kicked; guest code is not running meanwhile, so requests need not wait for us.
    fn sleep(&mut self, timeout: Option<Duration>) {
        self.stats.sleeps += 1;
        let start = Instant::now();
        self.peer.set_quiet(true);
        self.peer.signal().sleep(Some(timeout.map_or(LONGEST_SLEEP, |t| t.min(LONGEST_SLEEP))));
        self.peer.set_quiet(false);
        self.time = Time::OUTDATED;
        if start.elapsed() >= IDLE {
            let most = if self.env.native.is_some() { IDLE_NATIVE_BYTES } else { IDLE_CODE_BYTES };
            if self.env.blocks.bytes() > most {
                self.env.forget_code();
                trim_heap();
            }
            self.env.idle();
        }
        // Requests posted while quiet count as done for their sender: carry them out before any guest code.
        self.env.request_attention();
    }

    /// Runs translated code from the present pc until something needs the run loop.
    fn run_slice(&mut self, budget: u64) -> Option<Exit> {
        /// Entries that one from compiled code counts for: what that leads to had better be compiled too.
        const FROM_NATIVE: u64 = 20;
        let until = self.cpu.header().insns.wrapping_add(budget);
        self.env.tlb.fetch_through(self.guest.fetch_mmu(&self.cpu).0);
        let mut entries = 1;
        loop {
            self.stats.lookups += 1;
            let block = match self.env.lookup(&mut self.cpu) {
                Lookup::Block(block) => block,
                Lookup::Trap(trap) => return self.trap(trap),
            };
            let left = until.wrapping_sub(self.cpu.header().insns);
            if left == 0 || left > budget {
                return None;
            }
            // SAFETY: the block was looked up just now.
            let translated = unsafe { block.get() };
            if translated.native_entry().is_none() && translated.count_down(entries) {
                self.env.consider_hot(block);
            }
            let next = match translated.native_entry() {
                Some(entry) if self.env.enters_native() && fpenv::has_rounding(self.cpu.header()) => {
                    entries = FROM_NATIVE;
                    self.was_native = true;
                    self.run_native(translated, entry, left)
                }
                // It changed just now: it is looked up again.
                _ if !self.env.lift_native(block) => return None,
                _ => {
                    entries = 1;
                    self.was_native = false;
                    self.run_interpreted(block, left)
                }
            };
            match next {
                // Compiled code looks at its entry; what is interpreted first would not.
                Next::Lookup if self.peer.signal().attention().load(Ordering::Relaxed) != 0 => return None,
                Next::Lookup => {}
                Next::Leave => return None,
                Next::Trap(trap) => return self.trap(trap),
            }
        }
    }

    fn run_native(&mut self, block: &Translated, entry: *const u8, budget: u64) -> Next<G> {
        let (pc, mode) = (self.cpu.header().pc, self.cpu.header().mode);
        if block.second.is_some() {
            block.seen_at(pc);
        }
        self.env.offer_jumps(block.key.0, block.second, pc, mode, entry);
        let insns = self.cpu.header().insns;
        // SAFETY: code is given up between slices only, after the jump caches are cleared.
        let end = unsafe { native::run(entry, &mut *self.cpu, &mut self.env, budget) };
        self.stats.compiled_entries += 1;
        self.stats.compiled_insns += self.cpu.header().insns.wrapping_sub(insns);
        match end {
            NativeEnd::Leave => Next::Leave,
            NativeEnd::Lookup => Next::Lookup,
            NativeEnd::Hot => {
                if let Lookup::Block(block) = self.env.lookup(&mut self.cpu) {
                    self.env.consider_better(block);
                }
                Next::Lookup
            }
            NativeEnd::Exit => self.exit(),
            NativeEnd::Trap { code, value } => Next::Trap(self.guest.trap(code, value)),
            NativeEnd::Fault => self.fault(),
        }
    }

    fn run_interpreted(&mut self, block: BlockRef, budget: u64) -> Next<G> {
        let end = self.interpret(block, budget);
        let header = self.cpu.header_mut();
        match end {
            End::Leave => Next::Leave,
            End::Hot => {
                if let Lookup::Block(block) = self.env.lookup(&mut self.cpu) {
                    self.env.consider_hot(block);
                }
                Next::Lookup
            }
            End::Exit => self.exit(),
            End::Trap { code, value, insn_offset } => {
                header.pc = header.pc.wrapping_add(u64::from(insn_offset));
                Next::Trap(self.guest.trap(code, value))
            }
            End::Fault { insn_offset } => {
                header.pc = header.pc.wrapping_add(u64::from(insn_offset));
                self.fault()
            }
        }
    }

    fn exit(&mut self) -> Next<G> {
        self.wait = self.env.take_wait();
        Next::Leave
    }

    /// The time, not older than a fraction of a slice: a guest leaves translated code far more often than that, with every
    /// system call and every page fault.
    fn recent_time(&mut self) -> u64 {
        /// Instructions, and looks without that many, after which the time is read anew.
        const INSNS: u64 = SLICE_INSNS / 8;
        const LOOKS: u32 = 16;
        let insns = self.cpu.header().insns;
        let time = &mut self.time;
        time.looks += 1;
        if self.wait || insns.wrapping_sub(time.at_insns) >= INSNS || time.looks >= LOOKS {
            *time = Time { ns: self.env.now(), at_insns: insns, looks: 0 };
        }
        self.time.ns
    }

    /// A fault without a recorded trap is the engine asking to look at the state again.
    fn fault(&mut self) -> Next<G> {
        self.env.take_fault().map_or(Next::Leave, Next::Trap)
    }

    fn interpret(&mut self, block: BlockRef, budget: u64) -> End {
        // SAFETY: blocks are dropped only between slices, so everything reachable from `block` is live while
        // it runs, and the CPU is `repr(C)` with its slots inside, as `CpuState` promises.
        unsafe {
            let mut form = &block.get().form;
            while let Form::Native(lifted, _) = form {
                let Some(lifted) = lifted.get() else { return End::Leave };
                form = lifted;
            }
            match form {
                Form::Compact(code) => interp::run(code, &mut *self.cpu, &mut self.env, budget),
                Form::Lifted(block) => reference::run_block(block, &mut *self.cpu, &mut self.env),
                Form::Native(..) => End::Leave,
            }
        }
    }

    /// A synchronous trap: firmware may have it first.
    fn trap(&mut self, trap: G::Trap) -> Option<Exit> {
        if self.guest.is_firmware_call(&self.cpu, trap)
            && let Some(firmware) = &mut self.firmware
        {
            let group = self.env.group.clone();
            let index = self.env.index;
            let cx = FirmwareCx {
                guest: &*self.guest,
                cpu: &mut *self.cpu,
                env: &mut self.env,
                group: &group,
                index,
            };
            match firmware.call(cx) {
                FirmwareResult::Continue => {}
                FirmwareResult::ContinueAfter(tickets) => self.awaited.extend(tickets),
                FirmwareResult::PowerOff | FirmwareResult::Stop => {
                    // While it is off nobody asks it to protect code: nothing may be left that stores past that.
                    self.env.flush_tlb(TlbFlush::default());
                    self.peer.set_powered(false);
                }
                FirmwareResult::Wait => self.wait = true,
                FirmwareResult::Decline => {
                    self.env.request_attention();
                    return self.take_exception(trap);
                }
            }
            self.env.request_attention();
            return None;
        }
        self.take_exception(trap)
    }

    fn take_exception(&mut self, trap: G::Trap) -> Option<Exit> {
        let trap = self.guest.complete(&self.cpu, &self.env.phys, trap);
        self.take(trap);
        self.check_wedged(trap)
    }

    fn take(&mut self, trap: G::Trap) {
        self.stats.traps += 1;
        if self.env.trace.irq {
            trace::line(self.env.index, format_args!("{:#x}: {trap}", self.cpu.header().pc));
        }
        self.guest.take(&mut self.cpu, trap);
    }

    fn check_wedged(&mut self, trap: G::Trap) -> Option<Exit> {
        let header = self.cpu.header();
        let repeat = &mut self.repeated;
        if (repeat.at_insns, repeat.pc) != (header.insns, header.pc) {
            *repeat = Repeat { at_insns: header.insns, pc: header.pc, count: 0 };
            return None;
        }
        repeat.count += 1;
        (repeat.count >= WEDGED_TRAPS).then(|| Exit::Wedged {
            pc: header.pc,
            registers: self.guest.describe(&self.cpu),
            trap: trap.to_string(),
        })
    }
}

impl<G: Guest> std::fmt::Debug for SoftVcpu<G> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SoftVcpu<{}>({})", G::NAME, self.env.index)
    }
}
