//! The compilers as all vCPUs of a machine share them: what was asked for, what is being compiled, what is ready.
//!
//! Compiled code belongs to a granule of guest memory in one generation of its contents. A vCPU asks for code only
//! while every vCPU is known to notice stores to that granule ([`crate::env`]), so the copy of the page that is compiled is
//! what the guest executes as long as the generation lasts; a vCPU attaches code only in that generation.

use crate::{native::RARE, vcpu::EngineKind};
use isomer_core::{Gpa, PAGE_SIZE};
use isomer_ir::{Block, Guest, guest::lift_block, passes, types::HelperId};
use isomer_jit::{
    CompileError, Compiled, HostFeatures,
    abi::hot_index,
    clif::{Facts, RegionCompiler},
    code_memory::{CodeMemory, CodeSpan},
    region::{Region, RegionBlock, RegionLimits, Source},
    stubs::Stubs,
    template,
};
use rustc_hash::FxHashMap;
use std::{
    collections::VecDeque,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Instant,
};

/// How compiled code is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct JitPolicy {
    /// Entries of an interpreted block before it is compiled by itself; `None`: never.
    pub template_after: Option<u64>,
    /// Entries of an interpreted block before a region that starts there is compiled, where blocks are not compiled by
    /// themselves; `None`: regions are never compiled.
    pub region_after: Option<u64>,
    /// Entries of a compiled block before a region that starts there is compiled.
    pub hot_after: u32,
    /// Compile on threads of their own, else while the vCPU waits: for tests that want compiled code at once.
    pub background: bool,
    /// Room for code, in bytes.
    pub code_bytes: usize,
}

impl Default for JitPolicy {
    fn default() -> Self {
        Self {
            template_after: Some(16),
            region_after: Some(1000),
            hot_after: 32_768,
            background: true,
            code_bytes: 64 << 20,
        }
    }
}

impl JitPolicy {
    /// Everything is compiled as a region before its first execution.
    pub const EAGER: Self = Self {
        template_after: None,
        region_after: Some(0),
        hot_after: u32::MAX,
        background: false,
        code_bytes: 64 << 20,
    };
    /// Everything is compiled block by block before its first execution.
    pub const TEMPLATE: Self = Self { template_after: Some(0), region_after: None, ..Self::EAGER };
}

/// Waiting requests; more are refused and asked for again later.
const QUEUE: usize = 512;

/// Where compiled code starts: a guest-physical address and a mode word.
pub(crate) type Key = (Gpa, u32);

/// Compiled code in its place.
#[derive(Debug)]
pub(crate) struct NativeCode {
    span: CodeSpan,
    /// Of the granule it was made from.
    pub(crate) generation: u32,
    /// The block compiler made it: there may be better code one day.
    pub(crate) is_template: bool,
}

impl NativeCode {
    pub(crate) fn entry(&self) -> *const u8 {
        self.span.address()
    }
}

/// What is known about a key.
#[derive(Clone)]
pub(crate) enum State {
    /// Asked for, in this generation.
    Pending(u32),
    Ready(Arc<NativeCode>),
    /// Not to be asked for again in this generation.
    Failed(u32),
    /// Part of another region of this generation. If it is hot again nevertheless, it is worth one of its own.
    Covered(u32),
}

/// A page to compile from.
struct Request {
    key: Key,
    generation: u32,
    page: Box<[u8; PAGE_SIZE as usize]>,
    /// Even if it is part of another region.
    insist: bool,
}

/// Counters of the compilers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JitStats {
    /// Regions compiled.
    pub regions: u64,
    /// Guest instructions in them.
    pub insns: u64,
    /// Bytes of host code.
    pub code_bytes: u64,
    /// Time spent compiling, in nanoseconds.
    pub compile_ns: u64,
    /// Of those, lifting and forming regions.
    pub lift_ns: u64,
    /// Regions that were refused.
    pub refused: u64,
    /// Blocks compiled by themselves.
    pub blocks: u64,
    /// Guest instructions in them.
    pub block_insns: u64,
    /// Bytes of host code.
    pub block_code_bytes: u64,
    /// Time spent emitting their code, in nanoseconds.
    pub block_ns: u64,
}

#[derive(Default)]
struct Counters {
    regions: AtomicU64,
    insns: AtomicU64,
    code_bytes: AtomicU64,
    compile_ns: AtomicU64,
    lift_ns: AtomicU64,
    refused: AtomicU64,
    blocks: AtomicU64,
    block_insns: AtomicU64,
    block_code_bytes: AtomicU64,
    block_ns: AtomicU64,
}

struct Shared<G: Guest> {
    guest: Arc<G>,
    memory: Arc<CodeMemory>,
    features: HostFeatures,
    known: Mutex<FxHashMap<Key, State>>,
    /// Blocks inside compiled regions, with the generation.
    covered: Mutex<FxHashMap<Key, u32>>,
    queue: Mutex<Queue>,
    wake: Condvar,
    /// Raised when all code was given up to make room.
    epoch: AtomicU64,
    counters: Counters,
}

#[derive(Default)]
struct Queue {
    requests: VecDeque<Request>,
    stop: bool,
}

/// The compilers of one machine.
pub struct Jit<G: Guest> {
    shared: Arc<Shared<G>>,
    policy: JitPolicy,
    stubs: Stubs,
    /// For compiling while a vCPU waits, where no thread has it.
    compiler: Option<Mutex<RegionCompiler>>,
    threads: Vec<JoinHandle<()>>,
}

impl<G: Guest> std::fmt::Debug for Jit<G> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Jit({:?})", self.policy)
    }
}

/// Why there is no compiled code on this host.
#[derive(Debug, thiserror::Error)]
pub enum JitError {
    /// No memory for code.
    #[error(transparent)]
    Memory(#[from] isomer_jit::code_memory::CodeMemoryError),
    /// Cranelift does not know this host.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// No thread.
    #[error("cannot start a compiler thread: {0}")]
    Thread(#[from] std::io::Error),
}

impl<G: Guest> Jit<G> {
    /// Compilers for `guest`.
    pub fn new(guest: Arc<G>, policy: JitPolicy) -> Result<Arc<Self>, JitError> {
        let features = HostFeatures::detect();
        let memory = CodeMemory::new(policy.code_bytes)?;
        let stubs = Stubs::new(&memory, features, RARE::<G>())?;
        let mut compiler = RegionCompiler::new(features)?;
        let shared = Arc::new(Shared {
            guest,
            memory,
            features,
            known: Mutex::default(),
            covered: Mutex::default(),
            queue: Mutex::default(),
            wake: Condvar::new(),
            epoch: AtomicU64::new(0),
            counters: Counters::default(),
        });
        let (compiler, threads) = if policy.background {
            let worker = shared.clone();
            let thread = std::thread::Builder::new().name("isomer-jit".to_owned());
            (None, vec![thread.spawn(move || worker.work(&mut compiler))?])
        } else {
            (Some(Mutex::new(compiler)), Vec::new())
        };
        Ok(Arc::new(Self { shared, policy, stubs, compiler, threads }))
    }

    /// The compilers that engine `kind` needs, if any.
    pub fn for_engine(kind: EngineKind, guest: &Arc<G>) -> Result<Option<Arc<Self>>, JitError> {
        match kind {
            EngineKind::Interpreter | EngineKind::Reference => Ok(None),
            EngineKind::Jit => Self::new(guest.clone(), JitPolicy::default()).map(Some),
            EngineKind::Eager => Self::new(guest.clone(), JitPolicy::EAGER).map(Some),
            EngineKind::Template => Self::new(guest.clone(), JitPolicy::TEMPLATE).map(Some),
        }
    }

    /// How it was set up.
    pub fn policy(&self) -> JitPolicy {
        self.policy
    }

    pub(crate) fn stubs(&self) -> &Stubs {
        &self.stubs
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.shared.epoch.load(Ordering::Acquire)
    }

    /// Compiles one block by itself, now.
    pub(crate) fn compile_block(
        &self,
        (gpa, mode): Key,
        generation: u32,
        page: &[u8; PAGE_SIZE as usize],
    ) -> Option<NativeCode> {
        let source = Page { guest: &*self.shared.guest, mode, bytes: page };
        let offset = gpa.page_offset() as u16;
        let block = source.block(offset, RegionLimits::BLOCK.block_insns)?;
        let start = Instant::now();
        let hot = self.policy.region_after.map(|_| hot_index(gpa.0 >> 1) as u16);
        let compiled = template::compile(&RegionBlock { offset, block }, self.shared.features, hot).ok()?;
        let c = &self.shared.counters;
        c.blocks.fetch_add(1, Ordering::Relaxed);
        c.block_insns.fetch_add(compiled.insns.into(), Ordering::Relaxed);
        c.block_ns.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
        c.block_code_bytes.fetch_add(compiled.code.len() as u64, Ordering::Relaxed);
        match self.shared.install(&compiled) {
            Some(span) => Some(NativeCode { span, generation, is_template: true }),
            None => {
                self.shared.make_room();
                None
            }
        }
    }

    /// Counters.
    pub fn stats(&self) -> JitStats {
        let c = &self.shared.counters;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        JitStats {
            regions: get(&c.regions),
            insns: get(&c.insns),
            code_bytes: get(&c.code_bytes),
            compile_ns: get(&c.compile_ns),
            lift_ns: get(&c.lift_ns),
            refused: get(&c.refused),
            blocks: get(&c.blocks),
            block_insns: get(&c.block_insns),
            block_code_bytes: get(&c.block_code_bytes),
            block_ns: get(&c.block_ns),
        }
    }

    /// What is known of `key` in `generation`; forgets what was known of an older one.
    pub(crate) fn state(&self, key: Key, generation: u32) -> Option<State> {
        let mut known = lock(&self.shared.known);
        let state = known.get(&key)?;
        let of = match state {
            State::Pending(of) | State::Failed(of) | State::Covered(of) => *of,
            State::Ready(code) => code.generation,
        };
        if of == generation {
            return Some(state.clone());
        }
        known.remove(&key);
        None
    }

    /// Asks for code at `key`, made from `page`; with no threads it is there afterwards. False if it must be asked for
    /// again later.
    pub(crate) fn request(&self, key: Key, generation: u32, page: Box<[u8; PAGE_SIZE as usize]>) -> bool {
        let insist = matches!(lock(&self.shared.known).get(&key), Some(State::Covered(_)));
        let request = Request { key, generation, page, insist };
        if let Some(compiler) = &self.compiler {
            self.shared.carry_out(&mut lock(compiler), &request);
            return true;
        }
        let mut queue = lock(&self.shared.queue);
        if queue.requests.len() >= QUEUE {
            return false;
        }
        lock(&self.shared.known).insert(key, State::Pending(generation));
        queue.requests.push_back(request);
        drop(queue);
        self.shared.wake.notify_one();
        true
    }
}

impl<G: Guest> Drop for Jit<G> {
    fn drop(&mut self) {
        lock(&self.shared.queue).stop = true;
        self.shared.wake.notify_all();
        for thread in self.threads.drain(..) {
            // A compiler thread that panicked has said so already.
            let _ = thread.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<G: Guest> Shared<G> {
    fn work(&self, compiler: &mut RegionCompiler) {
        loop {
            let mut queue = lock(&self.queue);
            let request = loop {
                if queue.stop {
                    return;
                }
                // What became hot last is what runs now.
                match queue.requests.pop_back() {
                    Some(request) => break request,
                    None => queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner),
                }
            };
            drop(queue);
            self.carry_out(compiler, &request);
        }
    }

    fn carry_out(&self, compiler: &mut RegionCompiler, request: &Request) {
        if !request.insist && lock(&self.covered).get(&request.key) == Some(&request.generation) {
            lock(&self.known).insert(request.key, State::Covered(request.generation));
            return;
        }
        let state = match self.compile(compiler, request) {
            Ok(compiled) => match self.install(&compiled) {
                Some(span) => State::Ready(Arc::new(NativeCode {
                    span,
                    generation: request.generation,
                    is_template: false,
                })),
                None => return self.make_room(),
            },
            Err(error) => {
                tracing::debug!("{}: {error}", request.key.0);
                self.counters.refused.fetch_add(1, Ordering::Relaxed);
                State::Failed(request.generation)
            }
        };
        lock(&self.known).insert(request.key, state);
    }

    fn compile(&self, compiler: &mut RegionCompiler, request: &Request) -> Result<Compiled, CompileError> {
        let start = Instant::now();
        let (gpa, mode) = request.key;
        let source = Page { guest: &*self.guest, mode, bytes: &request.page };
        let region = Region::form(&source, gpa.page_offset() as u16, RegionLimits::REGION)
            .ok_or(CompileError::Nothing("no instructions"))?;
        let lifted = start.elapsed();
        let compiled = compiler.compile(&region, Facts { effects: effects::<G> })?;
        let covered = region
            .blocks
            .iter()
            .map(|block| ((gpa.page_base().wrapping_add(block.offset.into()), mode), request.generation));
        lock(&self.covered).extend(covered);
        let c = &self.counters;
        let add = |counter: &AtomicU64, n: u64| counter.fetch_add(n, Ordering::Relaxed);
        add(&c.regions, 1);
        add(&c.insns, compiled.insns.into());
        add(&c.code_bytes, compiled.code.len() as u64);
        add(&c.compile_ns, start.elapsed().as_nanos() as u64);
        add(&c.lift_ns, lifted.as_nanos() as u64);
        tracing::debug!(
            "{gpa} in mode {mode:#x}: {} blocks, {} instructions, {} bytes of code, {:?} of {:?} lifting",
            region.blocks.len(),
            compiled.insns,
            compiled.code.len(),
            lifted,
            start.elapsed()
        );
        Ok(compiled)
    }

    fn install(&self, compiled: &Compiled) -> Option<CodeSpan> {
        self.memory.install(&compiled.code)
    }

    /// Gives up all code: what is still hot will be compiled again.
    fn make_room(&self) {
        lock(&self.known).clear();
        lock(&self.covered).clear();
        self.epoch.fetch_add(1, Ordering::Release);
    }
}

fn effects<G: Guest>(helper: HelperId) -> isomer_ir::guest::Effects {
    G::HELPERS.get(usize::from(helper.0)).map_or(isomer_ir::guest::Effects::Any, |desc| desc.effects)
}

/// Guest code as regions are formed from it.
struct Page<'a, G: Guest> {
    guest: &'a G,
    mode: u32,
    bytes: &'a [u8; PAGE_SIZE as usize],
}

impl<G: Guest> Source for Page<'_, G> {
    fn block(&self, offset: u16, max_insns: u32) -> Option<Block> {
        let code = self.bytes.get(usize::from(offset)..)?;
        if code.len() < G::INSN_ALIGN as usize {
            return None;
        }
        let mut block = lift_block(self.guest, self.mode, code, max_insns)?;
        passes::optimize_for::<G>(&mut block);
        Some(block)
    }
}
