//! Memory for compiled code: one file mapped twice, once to write and once to execute, so that no address is ever both;
//! bounded, and recycled as soon as nobody holds what was in it.
#![allow(unsafe_code)]

use rustix::{
    fs::FallocateFlags,
    mm::{MapFlags, ProtFlags, mmap, munmap},
};
use std::{
    collections::BTreeMap,
    os::fd::OwnedFd,
    ptr::NonNull,
    sync::{Arc, Mutex, PoisonError},
};

/// Code begins at multiples of it: a cache line.
const ALIGN: usize = 64;

/// Why there is no memory for code.
#[derive(Debug, thiserror::Error)]
#[error("cannot reserve {bytes} bytes for compiled code: {cause}")]
pub struct CodeMemoryError {
    bytes: usize,
    cause: rustix::io::Errno,
}

/// Room for compiled code.
#[derive(Debug)]
pub struct CodeMemory {
    writable: NonNull<u8>,
    executable: NonNull<u8>,
    len: usize,
    free: Mutex<Free>,
    file: OwnedFd,
}

// SAFETY: the mappings stay until drop; what is free belongs to whoever holds the lock, what is not to its `CodeSpan`.
unsafe impl Send for CodeMemory {}
// SAFETY: as above.
unsafe impl Sync for CodeMemory {}

/// Free ranges by their start; none touch.
#[derive(Debug)]
struct Free {
    ranges: BTreeMap<usize, usize>,
    bytes: usize,
    /// Where the search for room begins.
    next: usize,
    /// What lies behind was never used since the host last got back what was free.
    top: usize,
}

impl Free {
    /// Next fit: what is in front of the last place is full of small gaps, mostly.
    fn take(&mut self, len: usize) -> Option<usize> {
        let fits = |&(_, room): &(&usize, &usize)| *room >= len;
        let behind = self.ranges.range(self.next..).find(fits);
        let (&start, &room) = behind.or_else(|| self.ranges.range(..self.next).find(fits))?;
        self.next = start + len;
        self.ranges.remove(&start);
        if room > len {
            self.ranges.insert(start + len, room - len);
        }
        self.bytes -= len;
        self.top = self.top.max(start + len);
        Some(start)
    }

    fn give(&mut self, start: usize, len: usize) {
        self.bytes += len;
        let (mut start, mut len) = (start, len);
        if let Some((&before, &room)) = self.ranges.range(..start).next_back()
            && before + room == start
        {
            self.ranges.remove(&before);
            (start, len) = (before, room + len);
        }
        if let Some(room) = self.ranges.remove(&(start + len)) {
            len += room;
        }
        self.ranges.insert(start, len);
    }
}

impl CodeMemory {
    /// Reserves room for `bytes` of code; pages are used as they are filled.
    pub fn new(bytes: usize) -> Result<Arc<Self>, CodeMemoryError> {
        // What a `CodeSpan` can tell, far beyond what anybody wants.
        let len = bytes.next_multiple_of(1 << 16).min(1 << 32);
        let failed = |cause| CodeMemoryError { bytes: len, cause };
        let file =
            rustix::fs::memfd_create("isomer-code", rustix::fs::MemfdFlags::CLOEXEC).map_err(failed)?;
        rustix::fs::ftruncate(&file, len as u64).map_err(failed)?;
        let map = |protection| {
            // SAFETY: a new mapping of our own file, at an address the kernel chooses.
            let at = unsafe { mmap(std::ptr::null_mut(), len, protection, MapFlags::SHARED, &file, 0) };
            at.map_err(failed).map(|at| NonNull::new(at.cast::<u8>()).unwrap_or(NonNull::dangling()))
        };
        let writable = map(ProtFlags::READ | ProtFlags::WRITE)?;
        let executable = match map(ProtFlags::READ | ProtFlags::EXEC) {
            Ok(executable) => executable,
            Err(error) => {
                // SAFETY: mapped above, and nobody else knows of it.
                let _ = unsafe { munmap(writable.as_ptr().cast(), len) };
                return Err(error);
            }
        };
        let free = Free { ranges: BTreeMap::from([(0, len)]), bytes: len, next: 0, top: 0 };
        Ok(Arc::new(Self { writable, executable, len, free: Mutex::new(free), file }))
    }

    fn free(&self) -> std::sync::MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes in use.
    pub fn used_bytes(&self) -> usize {
        self.len - self.free().bytes
    }

    /// Bytes there are.
    pub fn capacity_bytes(&self) -> usize {
        self.len
    }

    /// Most of what was in use is free again: what comes next goes where the host has given memory already.
    pub fn restart(&self) {
        self.free().next = 0;
    }

    /// Gives what is free back to the host, in whole pages. What is put there later costs a page fault.
    pub fn trim(&self) {
        const PAGE: usize = 4096;
        let mut free = self.free();
        for (&start, &room) in free.ranges.range(..free.top) {
            let (from, to) = (start.next_multiple_of(PAGE), (start + room).min(free.top) / PAGE * PAGE);
            if from < to {
                let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                // A host without holes keeps the memory; nothing depends on it.
                let _ = rustix::fs::fallocate(&self.file, how, from as u64, (to - from) as u64);
            }
        }
        free.top =
            free.ranges.last_key_value().map_or(self.len, |(&start, &room)| match start + room == self.len {
                true => start,
                false => self.len,
            });
    }

    /// Copies code to where it can run; `None` if there is no room.
    pub fn install(self: &Arc<Self>, code: &[u8]) -> Option<CodeSpan> {
        let len = code.len().max(1).next_multiple_of(ALIGN);
        let start = self.free().take(len)?;
        // SAFETY: the range was free, is inside the mapping, and is ours now.
        unsafe {
            let at = self.writable.as_ptr().add(start);
            at.copy_from_nonoverlapping(code.as_ptr(), code.len());
            at.add(code.len()).write_bytes(FILL, len - code.len());
        }
        let line = |bytes: usize| (bytes / ALIGN) as u32;
        let span = CodeSpan { memory: self.clone(), start: line(start), lines: line(len) };
        // SAFETY: the range is mapped executable.
        unsafe { make_visible(span.address(), len) };
        Some(span)
    }
}

/// What stands where no code is: a trap on x86-64 (`int3`).
const FILL: u8 = 0xcc;

/// Makes code that was just written visible to instruction fetches of this host.
///
/// # Safety
/// `at` is mapped for `len` bytes.
unsafe fn make_visible(at: *const u8, len: usize) {
    #[cfg(target_arch = "aarch64")]
    {
        unsafe extern "C" {
            fn __clear_cache(start: *mut libc::c_void, end: *mut libc::c_void);
        }
        // SAFETY: as the caller says.
        unsafe { __clear_cache(at.cast_mut().cast(), at.add(len).cast_mut().cast()) };
    }
    // x86-64 keeps instruction and data caches coherent; another CPU learns of the address only after this.
    #[cfg(not(target_arch = "aarch64"))]
    let _ = (at, len);
}

impl Drop for CodeMemory {
    fn drop(&mut self) {
        for at in [self.writable, self.executable] {
            // SAFETY: mapped by `new`; every `CodeSpan` holds an `Arc` of this, so none is left.
            let _ = unsafe { munmap(at.as_ptr().cast(), self.len) };
        }
    }
}

/// Code in its place; the room is free again when this is dropped.
#[derive(Debug)]
pub struct CodeSpan {
    memory: Arc<CodeMemory>,
    /// In multiples of [`ALIGN`], as there are very many of these.
    start: u32,
    lines: u32,
}

impl CodeSpan {
    /// Where it runs.
    pub fn address(&self) -> *const u8 {
        self.memory.executable.as_ptr().cast_const().wrapping_add(self.start as usize * ALIGN)
    }

    /// Bytes it takes.
    pub fn len(&self) -> usize {
        self.lines as usize * ALIGN
    }

    /// Never: the shortest code takes a line.
    pub fn is_empty(&self) -> bool {
        self.lines == 0
    }
}

impl Drop for CodeSpan {
    fn drop(&mut self) {
        self.memory.free().give(self.start as usize * ALIGN, self.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_recycled_and_bounded() {
        let memory = CodeMemory::new(1 << 16).unwrap();
        let mut spans: Vec<_> = (0..1024).map(|_| memory.install(&[0xc3]).unwrap()).collect();
        assert!(memory.install(&[0xc3]).is_none() && memory.used_bytes() == memory.capacity_bytes());
        spans.retain(|span| (span.address() as usize / ALIGN).is_multiple_of(2));
        assert!(memory.install(&[0; ALIGN + 1]).is_none());
        assert!(memory.install(&[0; ALIGN]).is_some());
        drop(spans);
        assert_eq!(memory.used_bytes(), 0);
        assert!(memory.install(&[0; 1 << 16]).is_some());
    }

    #[test]
    fn free_room_goes_back_to_the_host() {
        let memory = CodeMemory::new(1 << 20).unwrap();
        let blocks = || rustix::fs::fstat(&memory.file).unwrap().st_blocks * 512;
        let spans: Vec<_> = (0..16).map(|_| memory.install(&[0x90; 1 << 16]).unwrap()).collect();
        assert_eq!(blocks(), 1 << 20);
        let kept = spans.into_iter().nth(7).unwrap();
        memory.trim();
        assert_eq!(blocks(), 1 << 16);
        // SAFETY: the span is mapped readable, and nobody writes it.
        assert_eq!(unsafe { kept.address().add(0xffff).read() }, 0x90);
        let again = memory.install(&[0x91; 1 << 18]).unwrap();
        // SAFETY: as above.
        assert_eq!(unsafe { again.address().read() }, 0x91);
        drop((kept, again));
        memory.trim();
        assert_eq!((blocks(), memory.used_bytes()), (0, 0));
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn code_runs_where_it_is_installed() {
        let memory = CodeMemory::new(1 << 16).unwrap();
        // mov eax, 42; ret
        let span = memory.install(&[0xb8, 42, 0, 0, 0, 0xc3]).unwrap();
        // SAFETY: the bytes above are a function of this signature.
        let function: extern "C" fn() -> u32 = unsafe { std::mem::transmute(span.address()) };
        assert_eq!(function(), 42);
    }

    #[test]
    fn nothing_is_writable_and_executable() {
        let _memory = CodeMemory::new(1 << 16).unwrap();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let ours = maps.lines().filter(|line| line.contains("isomer-code"));
        assert!(ours.clone().count() >= 2);
        assert!(ours.clone().all(|line| !line.contains("rwx")), "{maps}");
    }
}
