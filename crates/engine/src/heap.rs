//! The C library's heap: what is kept small beyond the guest's memory.
#![allow(unsafe_code)]

/// Has all threads share one heap. By default each gets its own, and what is free in one is of no use to the others: with
/// translated code made on one thread and written on another that is half of all memory. To be called before threads start.
pub fn share_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call has no preconditions.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Gives freed memory back to the host.
pub(crate) fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call has no preconditions.
    unsafe {
        libc::malloc_trim(0);
    }
}
