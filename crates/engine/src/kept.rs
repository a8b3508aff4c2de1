//! What compiled code has to do with the cache on disk: what is found there comes into code memory a page at a time, and
//! what is compiled is gathered, a page at a time, until somebody has time to write it.
//!
//! Of the template compiler's code everything is kept, also of blocks that were only interpreted: what runs a few times in
//! this run does so in the next one, and lifting it costs more than reading its code. It is compiled when the guest is idle, or
//! at the end.

use crate::jit::{Key, Page};
use isomer_core::{Gpa, PAGE_SIZE};
use isomer_ir::Guest;
use isomer_jit::{
    HostFeatures,
    abi::{ABI_VERSION, hot_index},
    cache::{
        BuildId, CacheConfig, CacheError, CacheMode, CacheStats, CodeCache, DEFAULT_LIMIT_BYTES, NewBlock,
        PageCode, PageId, Places,
    },
    code_memory::{CodeMemory, CodeSpan},
    region::{RegionBlock, RegionLimits, Source},
    template,
};
use rustc_hash::{FxHashMap, FxHashSet, FxHasher};
use std::{
    hash::Hasher,
    path::PathBuf,
    sync::{
        Arc, Mutex, OnceLock, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Gathered bytes before the oldest pages are written in any case.
const MAX_GATHERED: usize = 6 << 20;
/// A page that got no new block for so long is written.
const SETTLED: Duration = Duration::from_secs(2);
/// What compiling at the end may take.
const LAST_CHORES: Duration = Duration::from_millis(400);

/// Whether, where and how much compiled code is kept on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheSettings {
    /// How the cache is used.
    pub mode: CacheMode,
    /// A directory for it and its key; `None`: the user's own ([`Places::of_user`]).
    pub dir: Option<PathBuf>,
    /// Bytes on disk at most.
    pub limit_bytes: u64,
}

impl CacheSettings {
    /// No cache.
    pub const OFF: Self = Self { mode: CacheMode::Off, dir: None, limit_bytes: DEFAULT_LIMIT_BYTES };
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self::OFF
    }
}

/// Opens the cache for what `guest` makes of code on this host. `variant` is everything else the compilers were told.
pub(crate) fn open<G: Guest>(
    guest: &G,
    settings: &CacheSettings,
    features: HostFeatures,
    variant: u64,
) -> Result<CodeCache, CacheError> {
    static BUILD: OnceLock<Option<BuildId>> = OnceLock::new();
    if settings.mode == CacheMode::Off {
        return Ok(CodeCache::off());
    }
    let places = match &settings.dir {
        Some(dir) => Places::under(dir),
        None => Places::of_user()?,
    };
    let Some(translator) = BUILD.get_or_init(|| BuildId::of_this_program().ok()) else {
        return Err(CacheError::UnknownProgram);
    };
    let mut hasher = FxHasher::default();
    hasher.write(guest.model_id().as_bytes());
    hasher.write_u64(variant);
    CodeCache::open(CacheConfig {
        places,
        mode: settings.mode,
        limit_bytes: settings.limit_bytes,
        namespace: isomer_jit::cache::Namespace {
            guest: G::NAME,
            translator: *translator,
            host_features: features.bits(),
            abi_version: ABI_VERSION,
            variant: hasher.finish(),
        },
    })
}

/// Template code of blocks of a page, in its place.
#[derive(Debug)]
pub(crate) struct LoadedPage {
    /// Without the code.
    blocks: PageCode,
    span: CodeSpan,
}

impl LoadedPage {
    pub(crate) fn blocks(&self) -> &PageCode {
        &self.blocks
    }

    /// What it takes, in bytes, code included.
    pub(crate) fn bytes(&self) -> usize {
        self.span.len() + size_of_val(&self.blocks.blocks[..])
    }

    /// Where block number `block` is entered.
    pub(crate) fn entry(&self, block: usize) -> *const u8 {
        let at = self.blocks.blocks.get(block).map_or(0, |block| block.code_at);
        self.span.address().wrapping_add(at as usize)
    }

    /// Where its blocks' code is, and how long each piece is.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = (*const u8, usize)> {
        let mut starts: Vec<_> = self.blocks.blocks.iter().map(|block| block.code_at as usize).collect();
        starts.sort_unstable();
        let ends: Vec<_> = starts.iter().skip(1).copied().chain([self.span.len()]).collect();
        let base = self.span.address();
        starts
            .into_iter()
            .zip(ends)
            .map(move |(start, end)| (base.wrapping_add(start), end.saturating_sub(start)))
    }

    /// The counter of block number `block`.
    pub(crate) fn hot(&self, block: usize) -> u16 {
        self.blocks.blocks.get(block).map_or(0, |block| block.hot)
    }
}

/// A page of the cache, asked for.
pub(crate) enum Asked {
    Loaded(Arc<LoadedPage>),
    /// There is no room for its code.
    NoRoom,
    /// It is not what it should be.
    Refused,
}

/// The cache, and what is on its way from and to it.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) cache: CodeCache,
    loaded: Mutex<FxHashMap<PageId, Weak<LoadedPage>>>,
    gathered: Mutex<Gathered>,
    /// Pages that another vCPU, or another granule, had loaded already.
    memory_hits: AtomicU64,
}

#[derive(Debug, Default)]
struct Gathered {
    pages: FxHashMap<u64, GatheredPage>,
    bytes: usize,
}

/// Blocks of a guest page, in all generations of it.
#[derive(Debug)]
struct GatheredPage {
    blocks: Vec<GatheredBlock>,
    source: Vec<u8>,
    code: Vec<u8>,
    touched: Instant,
}

#[derive(Clone, Copy, Debug)]
struct GatheredBlock {
    mode: u32,
    entry: u16,
    len: u16,
    insns: u16,
    hot: u16,
    source_at: u32,
    /// Empty: it was not compiled yet.
    code: (u32, u32),
}

impl GatheredPage {
    fn source(&self, block: &GatheredBlock) -> &[u8] {
        let at = block.source_at as usize;
        self.source.get(at..at + usize::from(block.len)).unwrap_or_default()
    }

    /// Leaves only what is not compiled.
    fn take_compiled(&mut self) -> Self {
        let touched = self.touched;
        let empty = Self { blocks: Vec::new(), source: Vec::new(), code: Vec::new(), touched };
        let all = std::mem::replace(self, empty);
        for block in all.blocks.iter().filter(|block| block.code.1 == 0) {
            let source_at = self.source.len() as u32;
            self.source.extend_from_slice(all.source(block));
            self.blocks.push(GatheredBlock { source_at, code: (0, 0), ..*block });
        }
        Self { blocks: all.blocks.into_iter().filter(|block| block.code.1 > 0).collect(), ..all }
    }

    fn bytes(&self) -> usize {
        self.blocks.len() * size_of::<GatheredBlock>() + self.source.len() + self.code.len()
    }
}

impl Kept {
    pub(crate) fn new(cache: CodeCache) -> Self {
        Self { cache, loaded: Mutex::default(), gathered: Mutex::default(), memory_hits: AtomicU64::new(0) }
    }

    /// A page of the cache by its name, in code memory.
    pub(crate) fn load(&self, id: PageId, memory: &Arc<CodeMemory>) -> Asked {
        if let Some(page) = lock(&self.loaded).get(&id).and_then(Weak::upgrade) {
            self.memory_hits.fetch_add(1, Ordering::Relaxed);
            return Asked::Loaded(page);
        }
        let Some(mut blocks) = self.cache.page(id) else { return Asked::Refused };
        let Some(span) = memory.install(&blocks.take_code()) else { return Asked::NoRoom };
        let page = Arc::new(LoadedPage { blocks, span });
        lock(&self.loaded).insert(id, Arc::downgrade(&page));
        Asked::Loaded(page)
    }

    /// Is there code of the blocks of `page` that is better than the template compiler's? A bit each.
    pub(crate) fn with_regions(&self, page: &LoadedPage, bytes: &[u8; PAGE_SIZE as usize]) -> Vec<u64> {
        let blocks = &page.blocks.blocks;
        let mut bits = vec![0; blocks.len().div_ceil(64)];
        for (number, block) in blocks.iter().enumerate() {
            let code = bytes.get(usize::from(block.entry)..).unwrap_or_default();
            if self.cache.may_have(block.mode, block.entry, code) {
                bits[number / 64] |= 1 << (number % 64);
            }
        }
        bits
    }

    /// Notes a block that was lifted for the interpreter, or, with its code, compiled.
    pub(crate) fn gather(&self, (gpa, mode): Key, source: &[u8], compiled: Option<(&[u8], u32, u16)>) {
        if !self.cache.is_written() || source.len() > PAGE_SIZE as usize {
            return;
        }
        let mut gathered = lock(&self.gathered);
        let Gathered { pages, bytes } = &mut *gathered;
        // Nobody writes as fast as that.
        if *bytes >= 2 * MAX_GATHERED {
            return;
        }
        let page = pages.entry(gpa.page_number()).or_insert_with(|| GatheredPage {
            blocks: Vec::new(),
            source: Vec::new(),
            code: Vec::new(),
            touched: Instant::now(),
        });
        let before = page.bytes();
        let (code, insns, hot) = compiled.unwrap_or((&[], 0, 0));
        let block = GatheredBlock {
            mode,
            entry: gpa.page_offset() as u16,
            len: source.len() as u16,
            insns: insns as u16,
            hot,
            source_at: page.source.len() as u32,
            code: (page.code.len() as u32, code.len() as u32),
        };
        page.blocks.push(block);
        page.source.extend_from_slice(source);
        page.code.extend_from_slice(code);
        page.touched = Instant::now();
        *bytes += page.bytes() - before;
    }

    /// Is there more than should wait?
    pub(crate) fn is_full(&self) -> bool {
        lock(&self.gathered).bytes >= MAX_GATHERED
    }

    pub(crate) fn has_gathered(&self) -> bool {
        !lock(&self.gathered).pages.is_empty()
    }

    /// Writes what is compiled of pages that got nothing new of late, or of all if there is too much.
    pub(crate) fn write_settled<G: Guest>(&self, guest: &G, features: HostFeatures) {
        let full = self.is_full();
        let now = Instant::now();
        let is_settled = |page: &GatheredPage| full || now.duration_since(page.touched) >= SETTLED;
        let mut done = Vec::new();
        {
            let mut gathered = lock(&self.gathered);
            let Gathered { pages, bytes } = &mut *gathered;
            for page in pages.values_mut().filter(|page| !page.code.is_empty() && is_settled(page)) {
                *bytes -= page.bytes();
                done.push(page.take_compiled());
                *bytes += page.bytes();
            }
            pages.retain(|_, page| !page.blocks.is_empty());
        }
        done.iter().for_each(|page| self.write(guest, features, page, false));
        // It is not code that takes the room: compiling is the way to be rid of it.
        if self.is_full() {
            self.write_all(guest, features, None);
        }
    }

    /// Writes one page; false if there is none. What is not compiled is, or is left out.
    pub(crate) fn write_one<G: Guest>(&self, guest: &G, features: HostFeatures, compile: bool) -> bool {
        let page = {
            let mut gathered = lock(&self.gathered);
            let Some(number) = gathered.pages.keys().next().copied() else { return false };
            let Some(page) = gathered.pages.remove(&number) else { return false };
            gathered.bytes -= page.bytes();
            page
        };
        self.write(guest, features, &page, compile);
        true
    }

    /// Writes everything; `until` then compiling what is not.
    pub(crate) fn write_all<G: Guest>(&self, guest: &G, features: HostFeatures, until: Option<Instant>) {
        while self.write_one(guest, features, until.is_none_or(|until| Instant::now() < until)) {}
    }

    /// The same at the end.
    pub(crate) fn finish<G: Guest>(&self, guest: &G, features: HostFeatures) {
        self.write_all(guest, features, Some(Instant::now() + LAST_CHORES));
    }

    fn write<G: Guest>(&self, guest: &G, features: HostFeatures, page: &GatheredPage, compile: bool) {
        let mut made: Vec<u8> = Vec::new();
        let mut seen: FxHashSet<(u16, u32, &[u8])> = FxHashSet::default();
        // Those that are compiled come first: they need not be compiled again.
        let (done, other): (Vec<&GatheredBlock>, _) = page.blocks.iter().partition(|block| block.code.1 > 0);
        let mut kept: Vec<(GatheredBlock, bool)> = Vec::new();
        for block in done {
            if seen.insert((block.entry, block.mode, page.source(block))) {
                kept.push((*block, false));
            }
        }
        for block in other.into_iter().filter(|_| compile) {
            let source = page.source(block);
            if !seen.insert((block.entry, block.mode, source)) {
                continue;
            }
            let Some((code, insns, hot)) = compile_alone(guest, features, block, source) else { continue };
            let code_at = (made.len() as u32, code.len() as u32);
            made.extend_from_slice(&code);
            kept.push((GatheredBlock { code: code_at, insns: insns as u16, hot, ..*block }, true));
        }
        // A page that was overwritten has several blocks of one place: these go into entries of their own.
        while !kept.is_empty() {
            let mut places = FxHashSet::default();
            let (now, later): (Vec<_>, Vec<_>) =
                kept.into_iter().partition(|(block, _)| places.insert((block.entry, block.mode)));
            let blocks: Vec<NewBlock<'_>> = now
                .iter()
                .map(|(block, is_made)| {
                    let (at, len) = (block.code.0 as usize, block.code.1 as usize);
                    let code = if *is_made { &made } else { &page.code };
                    NewBlock {
                        mode: block.mode,
                        entry: block.entry,
                        insns: block.insns,
                        hot: block.hot,
                        source: page.source(block),
                        code: code.get(at..at + len).unwrap_or_default(),
                    }
                })
                .collect();
            self.cache.put_page(&blocks);
            kept = later;
        }
    }

    pub(crate) fn stats(&self) -> CacheStats {
        let stats = self.cache.stats();
        CacheStats { memory_hits: stats.memory_hits + self.memory_hits.load(Ordering::Relaxed), ..stats }
    }
}

/// Compiles a block that is only known by its own bytes.
fn compile_alone<G: Guest>(
    guest: &G,
    features: HostFeatures,
    block: &GatheredBlock,
    source: &[u8],
) -> Option<(Vec<u8>, u32, u16)> {
    let mut bytes = [0; PAGE_SIZE as usize];
    let entry = usize::from(block.entry);
    bytes.get_mut(entry..entry + source.len())?.copy_from_slice(source);
    let lifted = Page { guest, mode: block.mode, bytes: &bytes }
        .block(block.entry, RegionLimits::BLOCK.block_insns)?;
    // Where it goes on behind its bytes, these are not all that it depends on.
    if lifted.len as usize != source.len() {
        return None;
    }
    let hot = counter(Gpa(block.entry.into()));
    let block = RegionBlock { offset: block.entry, block: lifted };
    let compiled = template::compile(&block, features, Some(hot)).ok()?;
    Some((compiled.code, compiled.insns, hot))
}

/// The counter for the block at `gpa`.
pub(crate) fn counter(gpa: Gpa) -> u16 {
    hot_index(gpa.0 >> 1) as u16
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
