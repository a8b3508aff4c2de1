//! The compilers as all vCPUs of a machine share them: what was asked for, what is being compiled, what is ready.
//!
//! Compiled code belongs to a granule of guest memory in one generation of its contents. A vCPU asks for code only
//! while every vCPU is known to notice stores to that granule ([`crate::env`]), so the copy of the page that is compiled is
//! what the guest executes as long as the generation lasts; a vCPU attaches code only in that generation.

use crate::{
    EngineKind,
    heap::trim_heap,
    kept::{self, Asked, CacheSettings, Kept, LoadedPage},
    native::RARE,
    profile::{self, PerfMap},
};
use isomer_core::{Gpa, PAGE_SIZE};
use isomer_ir::{Block, Guest, guest::lift_block, passes, types::HelperId};
use isomer_jit::{
    CompileError, Compiled, HostFeatures,
    cache::{CacheError, CacheStats, CodeCache, PageId, Tier},
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
        Arc, Condvar, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// How compiled code is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct JitPolicy {
    /// Entries of an interpreted block before it is compiled by itself; 0: it is never interpreted; `None`: never. Writing
    /// the compact form for the interpreter takes almost as long as template code, so nothing is won by waiting.
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
            template_after: Some(0),
            region_after: Some(1000),
            hot_after: 131_072,
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
    /// Every tier after a few executions, so that short programs go through all of them.
    pub const MIXED: Self =
        Self { template_after: Some(2), region_after: Some(4), hot_after: 6, ..Self::EAGER };
}

/// Waiting requests; more are refused and asked for again later.
const QUEUE: usize = 512;

/// Where compiled code starts: a guest-physical address and a mode word.
pub(crate) type Key = (Gpa, u32);

/// Compiled code in its place.
#[derive(Debug)]
pub(crate) struct NativeCode {
    place: Place,
    /// Of the granule it was made from.
    pub(crate) generation: u32,
    /// The counter it counts down, if the block compiler made it: there may be better code one day.
    pub(crate) hot: Option<u16>,
}

/// Where compiled code is.
#[derive(Debug)]
enum Place {
    Own(CodeSpan),
    /// A block of a page that came from the cache.
    Page(Arc<LoadedPage>, usize),
}

impl NativeCode {
    pub(crate) fn entry(&self) -> *const u8 {
        match &self.place {
            Place::Own(span) => span.address(),
            Place::Page(page, block) => page.entry(*block),
        }
    }

    /// Bytes that go when this goes.
    pub(crate) fn own_bytes(&self) -> usize {
        match &self.place {
            Place::Own(span) => span.len(),
            Place::Page(..) => 0,
        }
    }

    /// A block of a page from the cache.
    pub(crate) fn of_page(page: Arc<LoadedPage>, block: usize, generation: u32) -> Self {
        let hot = Some(page.hot(block));
        Self { place: Place::Page(page, block), generation, hot }
    }

    pub(crate) fn is_template(&self) -> bool {
        self.hot.is_some()
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
    /// CPU time spent compiling, in nanoseconds.
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
    /// Regions that came from the cache and were not compiled.
    pub kept_regions: u64,
    /// Pages of blocks' code that came from the cache, for each vCPU that uses them.
    pub kept_pages: u64,
    /// Blocks in them that are for the bytes that are there.
    pub kept_blocks: u64,
}

impl JitStats {
    /// Both together.
    #[must_use]
    pub const fn plus(self, other: &Self) -> Self {
        Self {
            regions: self.regions + other.regions,
            insns: self.insns + other.insns,
            code_bytes: self.code_bytes + other.code_bytes,
            compile_ns: self.compile_ns + other.compile_ns,
            lift_ns: self.lift_ns + other.lift_ns,
            refused: self.refused + other.refused,
            blocks: self.blocks + other.blocks,
            block_insns: self.block_insns + other.block_insns,
            block_code_bytes: self.block_code_bytes + other.block_code_bytes,
            block_ns: self.block_ns + other.block_ns,
            kept_regions: self.kept_regions + other.kept_regions,
            kept_pages: self.kept_pages + other.kept_pages,
            kept_blocks: self.kept_blocks + other.kept_blocks,
        }
    }
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
    kept_regions: AtomicU64,
    kept_pages: AtomicU64,
    kept_blocks: AtomicU64,
}

struct Shared<G: Guest> {
    guest: Arc<G>,
    memory: Arc<CodeMemory>,
    features: HostFeatures,
    known: Mutex<FxHashMap<Key, State>>,
    /// Blocks inside compiled regions, with the generation.
    covered: Mutex<FxHashMap<Key, u32>>,
    /// The same of regions from the cache, as far as it is known: by page and mode, generation and ranges in the page.
    covered_ranges: Mutex<FxHashMap<(u64, u32), Vec<(u32, u16, u16)>>>,
    queue: Mutex<Queue>,
    wake: Condvar,
    /// Raised when all code was given up to make room.
    epoch: AtomicU64,
    counters: Counters,
    kept: Kept,
    perf_map: OnceLock<Arc<PerfMap>>,
}

#[derive(Default)]
struct Queue {
    requests: VecDeque<Request>,
    /// The guest is idle: time for what can wait.
    idle: bool,
    /// The machine ends: what is still asked for by then is compiled for the next run.
    stop: Option<Instant>,
}

/// What compiling regions at the end may take.
const LAST_REGIONS: Duration = Duration::from_millis(300);

/// What a compiler thread does next.
enum Chore {
    Compile(Request),
    /// See whether there is something to write.
    Look,
    Stop,
}

/// How often what was compiled is looked through for what can be written.
const WRITE_INTERVAL: Duration = Duration::from_secs(5);

/// The compilers of one machine.
pub struct Jit<G: Guest> {
    shared: Arc<Shared<G>>,
    policy: JitPolicy,
    stubs: Stubs,
    /// For compiling while a vCPU waits, where no thread has it.
    compiler: Option<Mutex<RegionCompiler>>,
    threads: Vec<JoinHandle<()>>,
    cache_error: Option<CacheError>,
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
    /// Compilers for `guest`, which keep nothing.
    pub fn new(guest: Arc<G>, policy: JitPolicy) -> Result<Arc<Self>, JitError> {
        Self::with_cache(guest, policy, &CacheSettings::OFF)
    }

    /// Compilers for `guest` with the cache that `settings` tell of. If it cannot be opened they do without:
    /// [`Self::cache_error`].
    pub fn with_cache(
        guest: Arc<G>,
        policy: JitPolicy,
        settings: &CacheSettings,
    ) -> Result<Arc<Self>, JitError> {
        let features = HostFeatures::detect();
        // Whether blocks count is the policy's; where their counters start is not in the code.
        let variant = u64::from(policy.region_after.is_some());
        let (cache, cache_error) = match kept::open(&*guest, settings, features, variant) {
            Ok(cache) => (cache, None),
            Err(error) => (CodeCache::off(), Some(error)),
        };
        let memory = CodeMemory::new(policy.code_bytes)?;
        let stubs = Stubs::new(&memory, features, RARE::<G>())?;
        let mut compiler = RegionCompiler::new(features)?;
        let shared = Arc::new(Shared {
            guest,
            memory,
            features,
            known: Mutex::default(),
            covered: Mutex::default(),
            covered_ranges: Mutex::default(),
            queue: Mutex::default(),
            wake: Condvar::new(),
            epoch: AtomicU64::new(0),
            counters: Counters::default(),
            kept: Kept::new(cache),
            perf_map: OnceLock::new(),
        });
        let (compiler, threads) = if policy.background {
            let worker = shared.clone();
            let thread = std::thread::Builder::new().name("isomer-jit".to_owned());
            (None, vec![thread.spawn(move || worker.work(&mut compiler))?])
        } else {
            (Some(Mutex::new(compiler)), Vec::new())
        };
        Ok(Arc::new(Self { shared, policy, stubs, compiler, threads, cache_error }))
    }

    /// The compilers that engine `kind` needs, if any, without a cache.
    pub fn for_engine(kind: EngineKind, guest: &Arc<G>) -> Result<Option<Arc<Self>>, JitError> {
        Self::for_engine_with(kind, guest, &CacheSettings::OFF)
    }

    /// The compilers that engine `kind` needs, if any. Those for tests have no cache.
    pub fn for_engine_with(
        kind: EngineKind,
        guest: &Arc<G>,
        settings: &CacheSettings,
    ) -> Result<Option<Arc<Self>>, JitError> {
        match kind {
            EngineKind::Interpreter | EngineKind::Reference => Ok(None),
            EngineKind::Jit => Self::with_cache(guest.clone(), JitPolicy::default(), settings).map(Some),
            EngineKind::Eager => Self::new(guest.clone(), JitPolicy::EAGER).map(Some),
            EngineKind::Template => Self::new(guest.clone(), JitPolicy::TEMPLATE).map(Some),
            EngineKind::Mixed => Self::new(guest.clone(), JitPolicy::MIXED).map(Some),
        }
    }

    /// How it was set up.
    pub fn policy(&self) -> JitPolicy {
        self.policy
    }

    /// Tells the host's `perf` of all code from now on.
    pub fn tell(&self, map: Arc<PerfMap>) {
        // Whoever told first is being told everything already.
        let _ = self.shared.perf_map.set(map);
    }

    pub(crate) fn perf_map(&self) -> Option<&PerfMap> {
        self.shared.perf_map.get().map(|map| &**map)
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
        let source = page.get(usize::from(offset)..usize::from(offset) + block.len as usize)?;
        self.compile_lifted((gpa, mode), generation, block, source)
    }

    /// The same with the block, which was made from the bytes `source`, lifted and optimised.
    pub(crate) fn compile_lifted(
        &self,
        (gpa, mode): Key,
        generation: u32,
        block: Block,
        source: &[u8],
    ) -> Option<NativeCode> {
        let counter = kept::counter(gpa);
        let hot = self.policy.region_after.map(|_| counter);
        let compiled = self.emit(gpa, block, hot)?;
        self.shared.kept.gather((gpa, mode), source, Some((&compiled.code, compiled.insns, counter)));
        self.install(&compiled, generation, Some(counter))
    }

    /// The same for an instruction that crosses into another page. It is in no region and not kept.
    pub(crate) fn compile_crossing(
        &self,
        (gpa, _): Key,
        generation: u32,
        block: Block,
    ) -> Option<NativeCode> {
        let compiled = self.emit(gpa, block, None)?;
        self.install(&compiled, generation, None)
    }

    fn emit(&self, gpa: Gpa, block: Block, hot: Option<u16>) -> Option<Compiled> {
        let start = Instant::now();
        let block = RegionBlock { offset: gpa.page_offset() as u16, block };
        let compiled = template::compile(&block, self.shared.features, hot).ok()?;
        let c = &self.shared.counters;
        c.blocks.fetch_add(1, Ordering::Relaxed);
        c.block_insns.fetch_add(compiled.insns.into(), Ordering::Relaxed);
        c.block_ns.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
        c.block_code_bytes.fetch_add(compiled.code.len() as u64, Ordering::Relaxed);
        Some(compiled)
    }

    fn install(&self, compiled: &Compiled, generation: u32, hot: Option<u16>) -> Option<NativeCode> {
        match self.shared.install(compiled, profile::Tier::Template) {
            Some(span) => Some(NativeCode { place: Place::Own(span), generation, hot }),
            None => {
                self.shared.make_room();
                None
            }
        }
    }

    /// A vCPU has just given up most of its code.
    pub(crate) fn code_given_up(&self) {
        self.shared.memory.restart();
    }

    /// Bytes of code memory in use.
    pub(crate) fn code_bytes(&self) -> usize {
        self.shared.memory.used_bytes()
    }

    // --- the cache

    /// Why there is no cache although one was asked for.
    pub fn cache_error(&self) -> Option<&CacheError> {
        self.cache_error.as_ref()
    }

    /// What the cache did.
    pub fn cache_stats(&self) -> CacheStats {
        self.shared.kept.stats()
    }

    /// Is there a cache at all?
    pub(crate) fn has_cache(&self) -> bool {
        self.shared.kept.cache.is_on()
    }

    /// The cache's entry with template code for the block at `key`, whose bytes `code` begins with.
    pub(crate) fn kept_page(&self, (gpa, mode): Key, code: &[u8]) -> Option<PageId> {
        self.shared.kept.cache.page_of(mode, gpa.page_offset() as u16, code)
    }

    /// That entry in code memory.
    pub(crate) fn load_page(&self, id: PageId) -> Asked {
        let asked = self.shared.kept.load(id, &self.shared.memory);
        if matches!(asked, Asked::NoRoom) {
            self.shared.make_room();
        }
        if let (Asked::Loaded(page), Some(map)) = (&asked, self.perf_map()) {
            page.pieces().for_each(|(start, len)| map.installed(start, len, profile::Tier::Template));
        }
        asked
    }

    /// Counts a page that came from the cache, and its blocks that are of use, by a bit each.
    pub(crate) fn count_kept(&self, current: &[u64]) {
        let counters = &self.shared.counters;
        let blocks: u64 = current.iter().map(|bits| u64::from(bits.count_ones())).sum();
        counters.kept_pages.fetch_add(1, Ordering::Relaxed);
        counters.kept_blocks.fetch_add(blocks, Ordering::Relaxed);
    }

    /// Which blocks of a page that came from the cache have better code there. A bit each.
    pub(crate) fn with_regions(&self, page: &LoadedPage, bytes: &[u8; PAGE_SIZE as usize]) -> Vec<u64> {
        self.shared.kept.with_regions(page, bytes)
    }

    /// May the cache have a region for the code at `key`, which begins with `code`?
    pub(crate) fn may_have_region(&self, (gpa, mode): Key, code: &[u8]) -> bool {
        self.policy.region_after.is_some()
            && self.shared.kept.cache.may_have(mode, gpa.page_offset() as u16, code)
    }

    /// Takes the region at `key` from the cache, if that has one for `page`.
    pub(crate) fn load_region(&self, key: Key, generation: u32, page: &[u8; PAGE_SIZE as usize]) -> bool {
        self.shared.load_region(key, generation, page)
    }

    /// Notes that the block at `key`, of these bytes, was lifted for the interpreter.
    pub(crate) fn note_lifted(&self, key: Key, source: &[u8]) {
        self.shared.kept.gather(key, source, None);
    }

    /// The guest sleeps: what can wait is done now, and memory that is free is given back.
    pub(crate) fn idle(&self) {
        self.shared.memory.trim();
        if self.shared.kept.has_gathered() {
            lock(&self.shared.queue).idle = true;
            self.shared.wake.notify_one();
        }
    }

    /// Writes what was gathered for the cache, now. Not for a vCPU's thread.
    pub fn write_cache(&self) {
        let shared = &self.shared;
        shared.kept.write_all(&*shared.guest, shared.features, None);
        shared.kept.cache.flush();
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
            kept_regions: get(&c.kept_regions),
            kept_pages: get(&c.kept_pages),
            kept_blocks: get(&c.kept_blocks),
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
        let chores = if self.shared.kept.cache.is_written() { LAST_REGIONS } else { Duration::ZERO };
        lock(&self.shared.queue).stop = Some(Instant::now() + chores);
        self.shared.wake.notify_all();
        for thread in self.threads.drain(..) {
            // A compiler thread that panicked has said so already.
            let _ = thread.join();
        }
        self.shared.kept.finish(&*self.shared.guest, self.shared.features);
    }
}

/// CPU time that this thread has taken: compilers wait for their turn where vCPUs keep the host busy.
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<G: Guest> Shared<G> {
    fn work(&self, compiler: &mut RegionCompiler) {
        let mut written = Instant::now();
        loop {
            if self.kept.cache.is_written() && (written.elapsed() >= WRITE_INTERVAL || self.kept.is_full()) {
                self.kept.write_settled(&*self.guest, self.features);
                written = Instant::now();
            }
            match self.next_chore() {
                Chore::Compile(request) => self.carry_out(compiler, &request),
                Chore::Look => {}
                Chore::Stop => return,
            }
        }
    }

    /// Waits for something to do.
    fn next_chore(&self) -> Chore {
        let mut queue = lock(&self.queue);
        loop {
            if let Some(until) = queue.stop {
                let last = queue.requests.pop_back().filter(|_| Instant::now() < until);
                return last.map_or(Chore::Stop, Chore::Compile);
            }
            // What became hot last is what runs now.
            if let Some(request) = queue.requests.pop_back() {
                return Chore::Compile(request);
            }
            if queue.idle {
                drop(queue);
                let more = self.kept.write_one(&*self.guest, self.features, true);
                if !more {
                    trim_heap();
                }
                queue = lock(&self.queue);
                queue.idle &= more;
            } else if self.kept.cache.is_written() {
                let waited = self.wake.wait_timeout(queue, WRITE_INTERVAL);
                let (back, result) = waited.unwrap_or_else(PoisonError::into_inner);
                if result.timed_out() {
                    return Chore::Look;
                }
                queue = back;
            } else {
                queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    fn carry_out(&self, compiler: &mut RegionCompiler, request: &Request) {
        if self.load_region(request.key, request.generation, &request.page) {
            return;
        }
        if !request.insist && self.is_covered(request.key, request.generation) {
            lock(&self.known).insert(request.key, State::Covered(request.generation));
            return;
        }
        let state = match self.compile(compiler, request) {
            Ok(compiled) => {
                let (gpa, mode) = request.key;
                self.kept.cache.put(mode, gpa.page_offset() as u16, Tier::Region, &request.page, &compiled);
                match self.region(&compiled, request.generation) {
                    Some(state) => state,
                    None => return self.make_room(),
                }
            }
            Err(error) => {
                tracing::debug!("{}: {error}", request.key.0);
                self.counters.refused.fetch_add(1, Ordering::Relaxed);
                State::Failed(request.generation)
            }
        };
        lock(&self.known).insert(request.key, state);
    }

    fn compile(&self, compiler: &mut RegionCompiler, request: &Request) -> Result<Compiled, CompileError> {
        let start = thread_time();
        let (gpa, mode) = request.key;
        let source = Page { guest: &*self.guest, mode, bytes: &request.page };
        let region = Region::form(&source, gpa.page_offset() as u16, RegionLimits::REGION)
            .ok_or(CompileError::Nothing("no instructions"))?;
        let lifted = thread_time().saturating_sub(start);
        let compiled = compiler.compile(&region, Facts { effects: effects::<G> })?;
        let covered = region
            .blocks
            .iter()
            .map(|block| ((gpa.page_base().wrapping_add(block.offset.into()), mode), request.generation));
        lock(&self.covered).extend(covered);
        let took = thread_time().saturating_sub(start);
        let c = &self.counters;
        let add = |counter: &AtomicU64, n: u64| counter.fetch_add(n, Ordering::Relaxed);
        add(&c.regions, 1);
        add(&c.insns, compiled.insns.into());
        add(&c.code_bytes, compiled.code.len() as u64);
        add(&c.compile_ns, took.as_nanos() as u64);
        add(&c.lift_ns, lifted.as_nanos() as u64);
        tracing::debug!(
            "{gpa} in mode {mode:#x}: {} blocks, {} instructions, {} bytes of code, {:?} of {:?} lifting",
            region.blocks.len(),
            compiled.insns,
            compiled.code.len(),
            lifted,
            took
        );
        Ok(compiled)
    }

    fn is_covered(&self, key: Key, generation: u32) -> bool {
        let (gpa, mode) = key;
        let place = gpa.page_offset() as u16;
        lock(&self.covered).get(&key) == Some(&generation)
            || lock(&self.covered_ranges).get(&(gpa.page_number(), mode)).is_some_and(|ranges| {
                ranges.iter().any(|&(of, start, end)| of == generation && (start..end).contains(&place))
            })
    }

    /// Takes a region from the cache, if there is one for these bytes. They are what the guest executes in this generation, as
    /// for compiling.
    fn load_region(&self, key: Key, generation: u32, page: &[u8; PAGE_SIZE as usize]) -> bool {
        let (gpa, mode) = key;
        let Some(found) = self.kept.cache.find(mode, gpa.page_offset() as u16, page) else { return false };
        match self.region(&found.compiled, generation) {
            Some(state) => {
                self.counters.kept_regions.fetch_add(1, Ordering::Relaxed);
                lock(&self.known).insert(key, state);
                let mut covered = lock(&self.covered_ranges);
                let ranges = covered.entry((gpa.page_number(), mode)).or_default();
                ranges.retain(|&(of, ..)| of == generation);
                ranges.extend(found.compiled.ranges.iter().map(|&(start, end)| (generation, start, end)));
                true
            }
            None => {
                self.make_room();
                false
            }
        }
    }

    fn region(&self, compiled: &Compiled, generation: u32) -> Option<State> {
        let place = Place::Own(self.install(compiled, profile::Tier::Region)?);
        Some(State::Ready(Arc::new(NativeCode { place, generation, hot: None })))
    }

    fn install(&self, compiled: &Compiled, tier: profile::Tier) -> Option<CodeSpan> {
        let span = self.memory.install(&compiled.code)?;
        if let Some(map) = self.perf_map.get() {
            map.installed(span.address(), compiled.code.len(), tier);
        }
        Some(span)
    }

    /// Gives up all code: what is still hot will be compiled again.
    fn make_room(&self) {
        lock(&self.known).clear();
        lock(&self.covered).clear();
        lock(&self.covered_ranges).clear();
        self.epoch.fetch_add(1, Ordering::Release);
    }
}

fn effects<G: Guest>(helper: HelperId) -> isomer_ir::guest::Effects {
    G::HELPERS.get(usize::from(helper.0)).map_or(isomer_ir::guest::Effects::Any, |desc| desc.effects)
}

/// Guest code as regions are formed from it.
pub(crate) struct Page<'a, G: Guest> {
    pub(crate) guest: &'a G,
    pub(crate) mode: u32,
    pub(crate) bytes: &'a [u8; PAGE_SIZE as usize],
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
