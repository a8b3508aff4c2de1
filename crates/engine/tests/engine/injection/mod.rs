//! Every access of compiled code, one after another, faults, goes to a device, and is interrupted; the complete state must be
//! what the interpreter has, instruction by instruction. Here is what guests share; each has a file with its program.
//!
//! A program runs all kinds of accesses, each on pages of its own, in a loop. At some time it changes the page table
//! entry of one page. Its handler notes all registers, repairs the entry and goes on.

mod aarch64;
mod riscv64;

use isomer_core::{Bus, Clock, Device, Gpa, GuestMemory, StateError};
use isomer_engine::{Control, EngineKind, Exit, Group, Jit, JitStats, Request, SoftVcpu, Trace, VcpuConfig};
use isomer_ir::{CpuState, Guest, guest::TlbFlush, state::NO_RESERVATION};
use std::{
    collections::HashMap,
    fmt::Debug,
    sync::{Arc, Mutex},
};

const RAM: u64 = 0x8000_0000;
const RAM_BYTES: u64 = 16 << 20;
/// The program, and its exception handler.
const CODE: u64 = RAM + 0x1_0000;
const HANDLER: u64 = CODE + 0x8000;
/// What program and handler share, in the form of [`word`].
const SHARED: u64 = RAM + 0x10_0000;
/// RAM behind the accesses, two pages for each; and page tables.
const FRAMES: u64 = RAM + 0x40_0000;
const TABLES: u64 = RAM + 0x80_0000;
/// Where accesses go: two pages for each, and two free ones, from V + STRIDE on.
const V: u64 = 0x10_0000_0000;
const STRIDE: u64 = 0x4000;
/// Where in its pages an access starts from.
const MIDDLE: u64 = 0x800;
/// Two pages of a device, and its registers: a store to the first lowers its interrupt, one to the second ends the run.
const PROBE: u64 = 0x3000_0000;
const ACK: u64 = PROBE + 0x2000;
const END: u64 = PROBE + 0x2008;
/// Rounds of the program. The page table changes before the last but one: the CPU's attention is asked for in that, and
/// compiled code looks at the end of a round at the latest.
const ROUNDS: u64 = 4;
const CHANGED: u64 = 2;

/// Byte offsets in [`SHARED`].
mod word {
    /// The handler's own.
    pub(super) const SAVED: u64 = 0;
    /// The page table entry that the program changes, and its new value.
    pub(super) const CHANGE: u64 = 16;
    /// The entry that the handler repairs, and its value.
    pub(super) const REPAIR: u64 = 32;
    /// How many exceptions and interrupts were taken.
    pub(super) const EXCEPTIONS: u64 = 48;
    pub(super) const INTERRUPTS: u64 = 56;
    /// The syndrome of the last exception, and all registers there.
    pub(super) const SEEN: u64 = 64;
    pub(super) const REGISTERS: u64 = 128;
}

/// Where an access goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Place {
    /// Continues what the access before did, on the same pages.
    same_page: bool,
    /// Reaches into the second page.
    crosses: bool,
}

/// What is done to the page of an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Injection {
    /// Nothing is changed.
    None,
    /// The translation is gone.
    Unmapped,
    /// Stores may not.
    ReadOnly,
    /// There is no RAM, but a device that notes all there is to see.
    Device,
}

/// A guest with its program.
trait Subject {
    type G: Guest<Cpu: PartialEq + Debug>;
    /// The interrupt input the device drives.
    const LINE: u32;

    fn guest() -> Arc<Self::G>;
    /// The accesses, in the program's order.
    fn accesses(&self) -> Vec<Place>;
    /// The program at [`CODE`] and the handler at [`HANDLER`].
    fn code(&self) -> [Vec<u8>; 2];
    /// The page table entry for a table.
    fn table(at: u64) -> u64;
    /// One for memory, `level` 0 (4 KiB) or 1 (2 MiB).
    fn leaf(gpa: u64, level: u32, writable: bool) -> u64;
    /// The address in an entry.
    fn address(entry: u64) -> u64;
    /// The CPU at the program's start, with translation by the tables at [`TABLES`], and numbers in all its registers.
    fn start(guest: &Self::G) -> <Self::G as Guest>::Cpu;
    /// Clears what is not part of the state, but tells when an engine last looked at something.
    fn forget_engine(_: &mut <Self::G as Guest>::Cpu) {}
    /// Clears what a guest could tell the time of an interrupt from.
    fn forget_time(cpu: &mut <Self::G as Guest>::Cpu);
}

type Cpu<S> = <<S as Subject>::G as Guest>::Cpu;

/// Numbers of the page pairs that accesses use.
fn pairs(places: &[Place]) -> Vec<u64> {
    let mut pair = 0;
    let number = |(i, place): (usize, &Place)| {
        pair += u64::from(i > 0 && !place.same_page);
        pair
    };
    places.iter().enumerate().map(number).collect()
}

/// What a device saw: offset, size, and the value of a store.
type Seen = (u64, usize, Option<u64>);

#[derive(Default)]
struct ProbeState {
    log: Vec<Seen>,
    /// Interrupts and pauses the CPU at its next access.
    armed: bool,
}

/// A device behind a page: notes accesses, and gets the CPU's attention in the middle of one.
struct Probe<G: Guest> {
    group: Arc<Group<G>>,
    line: u32,
    state: Arc<Mutex<ProbeState>>,
}

impl<G: Guest> Probe<G> {
    fn see(&self, seen: Seen) -> u64 {
        let mut state = self.state.lock().unwrap();
        state.log.push(seen);
        if std::mem::take(&mut state.armed) {
            let peer = &self.group.peers()[0];
            peer.signal().set_line(self.line, true);
            peer.set_control(Control::Pause);
        }
        0x0101_0101_0101_0101 * ((seen.0 + state.log.len() as u64) % 251)
    }
}

impl<G: Guest> Device for Probe<G> {
    const NAME: &'static str = "probe";
    const VERSION: u32 = 1;
    type State = ();
    fn read(&mut self, _region: usize, offset: u64, size: usize) -> u64 {
        self.see((offset, size, None))
    }
    fn write(&mut self, _region: usize, offset: u64, size: usize, value: u64) {
        let peer = &self.group.peers()[0];
        match PROBE + offset {
            ACK => peer.signal().set_line(self.line, false),
            END => peer.set_control(Control::Stop),
            _ => {
                self.see((offset, size, Some(value)));
            }
        }
    }
    fn reset(&mut self) {}
    fn save(&self) {}
    fn restore(&mut self, (): ()) -> Result<(), StateError> {
        Ok(())
    }
}

/// Everything a guest can see in the end, and what the device saw of it.
struct Final<S: Subject> {
    cpu: Cpu<S>,
    memory: Vec<u8>,
    shared: Vec<u8>,
    log: Vec<Seen>,
}

impl<S: Subject> Final<S> {
    fn word(&self, at: u64) -> u64 {
        let at = at as usize;
        u64::from_le_bytes(self.shared[at..at + 8].try_into().unwrap())
    }

    /// Without what tells when an interrupt was taken.
    fn timeless(&self) -> Self {
        let (mut cpu, mut shared) = (self.cpu.clone(), self.shared.clone());
        S::forget_time(&mut cpu);
        for at in [word::SAVED, word::SAVED + 8, word::INTERRUPTS] {
            shared[at as usize..at as usize + 8].fill(0);
        }
        Self { cpu, memory: self.memory.clone(), shared, log: self.log.clone() }
    }

    /// Fails with the difference from another.
    #[track_caller]
    fn must_be(&self, expected: &Self, what: &str) {
        assert_eq!(expected.log, self.log, "{what}: what the device saw");
        assert_eq!(expected.cpu, self.cpu, "{what}");
        let differs = |a: &[u8], b: &[u8]| a.iter().zip(b).position(|(a, b)| a != b);
        assert_eq!(differs(&expected.shared, &self.shared), None, "{what}: where the handler's notes differ");
        assert_eq!(differs(&expected.memory, &self.memory), None, "{what}: where memory differs");
    }
}

/// A machine that runs the program again and again.
struct Rig<S: Subject> {
    guest: Arc<S::G>,
    memory: GuestMemory,
    group: Arc<Group<S::G>>,
    probe: Arc<Mutex<ProbeState>>,
    /// Addresses of the page table entries, two a pair.
    entries: Vec<u64>,
    pattern: Vec<u8>,
    vcpu: SoftVcpu<S::G>,
    jit: Option<Arc<Jit<S::G>>>,
}

impl<S: Subject> Rig<S> {
    fn new(subject: &S, engine: EngineKind) -> Self {
        let guest = S::guest();
        let memory = GuestMemory::new(&[(Gpa(RAM), RAM_BYTES)]).unwrap();
        let group = Group::new(1);
        let probe = Arc::<Mutex<ProbeState>>::default();
        let bus = Arc::new(Bus::default());
        let device = Probe { group: group.clone(), line: S::LINE, state: probe.clone() };
        bus.map(Gpa(PROBE), 0x3000, 0, Arc::new(Mutex::new(device))).unwrap();
        let [program, handler] = subject.code();
        assert!(program.len() < 0x1000, "regions end with their page");
        memory.write(Gpa(CODE), &program).unwrap();
        memory.write(Gpa(HANDLER), &handler).unwrap();
        let pages = 2 * (pairs(&subject.accesses()).last().unwrap() + 1);
        assert!(FRAMES + 0x1000 * pages <= TABLES);
        let mut tables = Tables { memory: &memory, next: TABLES + 0x1000 };
        for gpa in (RAM..RAM + RAM_BYTES).step_by(2 << 20).chain([PROBE]) {
            let at = tables.entry::<S>(gpa, 1);
            tables.set(at, S::leaf(gpa, 1, true));
        }
        let entry = |page| tables.entry::<S>(V + STRIDE * (1 + page / 2) + 0x1000 * (page % 2), 0);
        let entries = (0..pages).map(entry).collect();
        let jit = Jit::for_engine(engine, &guest).unwrap();
        let vcpu = SoftVcpu::new(VcpuConfig {
            guest: guest.clone(),
            cpu: S::start(&guest),
            index: 0,
            group: group.clone(),
            memory: memory.clone(),
            mmio: bus,
            clock: Arc::new(Clock::host()),
            firmware: None,
            trace: Trace::default(),
            engine,
            jit: jit.clone(),
            code_limit_bytes: 4 << 20,
        });
        vcpu.power_on();
        let pattern = (0..0x1000 * pages).map(|i| (i * 37 + i / 256) as u8).collect();
        Self { guest, memory, group, probe, entries, pattern, vcpu, jit }
    }

    fn set(&self, at: u64, value: u64) {
        self.memory.write(Gpa(at), &value.to_le_bytes()).unwrap();
    }

    /// Everything as at the start, with `injection` prepared for `page`.
    fn reset(&mut self, injection: Injection, page: u64, armed: bool) {
        let leaf = |page, writable| S::leaf(FRAMES + 0x1000 * page, 0, writable);
        for (page, &entry) in (0..).zip(&self.entries) {
            self.set(entry, leaf(page, true));
        }
        self.memory.write(Gpa(FRAMES), &self.pattern).unwrap();
        self.memory.write(Gpa(SHARED), &[0; 0x1000]).unwrap();
        let entry = self.entries[page as usize];
        let changed = match injection {
            Injection::None => leaf(page, true),
            Injection::Unmapped => 0,
            Injection::ReadOnly => leaf(page, false),
            Injection::Device => S::leaf(PROBE + 0x1000 * (page % 2), 0, true),
        };
        for (at, value) in [(word::CHANGE, changed), (word::REPAIR, leaf(page, true))] {
            self.set(SHARED + at, entry);
            self.set(SHARED + at + 8, value);
        }
        *self.probe.lock().unwrap() = ProbeState { armed, ..ProbeState::default() };
        *self.vcpu.cpu_mut() = S::start(&self.guest);
        let peer = &self.group.peers()[0];
        peer.signal().set_line(S::LINE, false);
        peer.set_control(Control::Run);
        peer.post(Request::FlushTlb(TlbFlush::default()));
        self.vcpu.mix(page);
    }

    /// The CPU without what differs between engines and machines.
    fn cpu(&self) -> Cpu<S> {
        let mut cpu = self.vcpu.cpu().clone();
        let header = cpu.header_mut();
        header.temps.fill(0);
        header.engine.fill(0);
        if header.reserve_host != NO_RESERVATION {
            header.reserve_host -= self.memory.regions()[0].host.as_ptr().addr() as u64;
        }
        S::forget_engine(&mut cpu);
        cpu
    }

    fn ended(&self) -> Final<S> {
        let (mut memory, mut shared) = (vec![0; self.pattern.len()], vec![0; 0x1000]);
        self.memory.read(Gpa(FRAMES), &mut memory).unwrap();
        self.memory.read(Gpa(SHARED), &mut shared).unwrap();
        let mut cpu = self.cpu();
        // Engines notice that they are to stop after different instructions.
        cpu.header_mut().insns = 0;
        Final { cpu, memory, shared, log: self.probe.lock().unwrap().log.clone() }
    }

    /// Runs to the end; gives `look` the state whenever the CPU was paused, and lets it run on.
    fn finish(&mut self, mut look: impl FnMut(Cpu<S>)) -> Final<S> {
        loop {
            // Often: loops of a region see that the engine wants something only when nothing is left.
            match self.vcpu.run(Some(50)) {
                Exit::Limit => {}
                Exit::Stopped => return self.ended(),
                Exit::Paused => {
                    look(self.cpu());
                    self.group.peers()[0].set_control(Control::Run);
                }
                other => panic!("{other:?}: {}", self.guest.describe(self.vcpu.cpu())),
            }
        }
    }

    /// The state after every instruction, by how many there were, and at the end.
    fn steps(&mut self) -> (HashMap<u64, Cpu<S>>, Final<S>) {
        let mut steps = HashMap::from([(0, self.cpu())]);
        loop {
            match self.vcpu.run(Some(1)) {
                Exit::Limit => {
                    let cpu = self.cpu();
                    let insns = cpu.header().insns;
                    assert!(steps.insert(insns, cpu).is_none() && insns < 100_000, "{insns} instructions");
                }
                Exit::Stopped => return (steps, self.ended()),
                other => panic!("{other:?}: {}", self.guest.describe(self.vcpu.cpu())),
            }
        }
    }

    fn compiled(&self) -> JitStats {
        self.jit.as_ref().map_or_else(JitStats::default, |jit| jit.stats())
    }
}

/// Page tables of three levels with 512 entries each, which both guests can have.
struct Tables<'a> {
    memory: &'a GuestMemory,
    next: u64,
}

impl Tables<'_> {
    fn set(&self, at: u64, value: u64) {
        self.memory.write(Gpa(at), &value.to_le_bytes()).unwrap();
    }

    /// The address of the entry for `gva` at `level`, in tables that are made as they are needed.
    fn entry<S: Subject>(&mut self, gva: u64, level: u32) -> u64 {
        let place = |table: u64, level: u32| table + (gva >> (12 + 9 * level) & 0x1ff) * 8;
        let mut table = TABLES;
        for l in (level + 1..3).rev() {
            let at = place(table, l);
            let mut bytes = [0; 8];
            self.memory.read(Gpa(at), &mut bytes).unwrap();
            table = match u64::from_le_bytes(bytes) {
                0 => {
                    let new = self.next;
                    self.next += 0x1000;
                    self.set(at, S::table(new));
                    new
                }
                entry => S::address(entry),
            };
        }
        place(table, level)
    }
}

/// The engines whose code is tried. The interpreter, one instruction at a time, is what they are held against.
const TRIED: [EngineKind; 4] =
    [EngineKind::Template, EngineKind::Eager, EngineKind::Mixed, EngineKind::Interpreter];

fn oracle<S: Subject>(subject: &S) -> Rig<S> {
    let mut oracle = Rig::new(subject, EngineKind::Interpreter);
    oracle.vcpu.limit_blocks(1);
    oracle
}

/// How often each thing happened.
#[derive(Debug, Default)]
struct Tally {
    faults: u64,
    device_accesses: usize,
    interrupts: usize,
}

/// Does everything to the page, or the pages, of each access in turn.
fn inject_everywhere<S: Subject>(subject: &S) -> Tally {
    let places = subject.accesses();
    let mut oracle = oracle(subject);
    let mut rigs = TRIED.map(|engine| (engine, Rig::new(subject, engine)));
    let mut tally = Tally::default();
    for (place, pair) in places.iter().zip(pairs(&places)) {
        for page in 2 * pair..=2 * pair + u64::from(place.crosses) {
            for injection in [Injection::Unmapped, Injection::ReadOnly, Injection::Device] {
                oracle.reset(injection, page, false);
                let (steps, expected) = oracle.steps();
                tally.faults += expected.word(word::EXCEPTIONS);
                tally.device_accesses += expected.log.len();
                for (engine, rig) in &mut rigs {
                    let what = format!("{}: {injection:?} page {page}", engine.name());
                    rig.reset(injection, page, false);
                    rig.finish(|_| panic!("{what}: nobody paused it")).must_be(&expected, &what);
                    if expected.log.is_empty() {
                        continue;
                    }
                    // The same with the CPU's attention raised in the middle of the access.
                    rig.reset(injection, page, true);
                    let found = rig.finish(|cpu| {
                        let insns = cpu.header().insns;
                        assert_eq!(
                            steps.get(&insns),
                            Some(&cpu),
                            "{what}: paused after {insns} instructions"
                        );
                    });
                    assert_eq!(found.word(word::INTERRUPTS), 1, "{what}");
                    tally.interrupts += 1;
                    found.timeless().must_be(&expected.timeless(), &what);
                }
            }
        }
    }
    rigs.iter().for_each(|(engine, rig)| was_compiled(*engine, rig));
    tally
}

/// Was it compiled code that ran?
fn was_compiled<S: Subject>(engine: EngineKind, rig: &Rig<S>) {
    let (stats, compiled) = (rig.vcpu.stats(), rig.compiled());
    let least = match engine {
        EngineKind::Template => {
            assert!(compiled.blocks > 0 && compiled.regions == 0, "{compiled:?}");
            0.8
        }
        EngineKind::Eager => {
            assert!(compiled.regions > 0 && compiled.refused == 0, "{compiled:?}");
            0.8
        }
        EngineKind::Mixed => {
            assert!(compiled.regions > 0 && compiled.blocks > 0, "{compiled:?}");
            0.1
        }
        _ => return,
    };
    let share = stats.compiled_insns as f64 / stats.insns.max(1) as f64;
    assert!(share > least, "{}: {share} of the instructions ran in compiled code", engine.name());
}

/// Lets the budget end at every instruction in turn.
fn leave_everywhere<S: Subject>(subject: &S) {
    let mut oracle = oracle(subject);
    oracle.reset(Injection::None, 0, false);
    let (steps, expected) = oracle.steps();
    for engine in TRIED {
        let mut rig = Rig::new(subject, engine);
        let mut stops = 0;
        for insns in 1..steps.len() as u64 {
            rig.reset(Injection::None, 0, false);
            rig.vcpu.mix(insns);
            let what = format!("{} left after {insns}", engine.name());
            if rig.vcpu.run(Some(insns)) == Exit::Limit {
                let cpu = rig.cpu();
                assert!(cpu.header().insns >= insns, "{what}");
                assert_eq!(steps.get(&cpu.header().insns), Some(&cpu), "{what}");
                stops += 1;
            }
            rig.finish(|_| panic!("{what}: nobody paused it")).must_be(&expected, &what);
        }
        assert!(stops > steps.len() / 2, "{}: {stops} of {}", engine.name(), steps.len());
        was_compiled(engine, &rig);
    }
}
