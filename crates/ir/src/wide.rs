//! 16-byte compare-and-swap on the host, which stable Rust has no atomic type for.
#![allow(unsafe_code, reason = "host instructions on guest memory")]

use std::{
    ptr::NonNull,
    sync::{Mutex, PoisonError},
};

/// Replaces the 16 bytes at `at` by `new` if they are `expected`; gives what they were. Halves in memory order, each
/// as the host loads a u64. Without a host instruction, atomic only with respect to itself.
///
/// # Safety
/// `at` must be mapped, writable and 16-byte aligned.
pub(crate) unsafe fn compare_exchange_16(at: NonNull<u8>, expected: [u64; 2], new: [u64; 2]) -> [u64; 2] {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("cmpxchg16b") {
        // SAFETY: the instruction exists, and the caller vouches for the address.
        return unsafe { cmpxchg16b(at.as_ptr(), expected, new) };
    }
    static LOCK: Mutex<()> = Mutex::new(());
    let _guard = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    let at = at.as_ptr().cast::<[u64; 2]>();
    // SAFETY: the caller vouches for the address.
    let old = unsafe { at.read_volatile() };
    if old == expected {
        // SAFETY: as above.
        unsafe { at.write_volatile(new) };
    }
    old
}

/// `lock cmpxchg16b`. Written out because LLVM turns the intrinsic into a library call that nobody provides.
///
/// # Safety
/// The host has the instruction; `at` is mapped, writable and 16-byte aligned.
#[cfg(target_arch = "x86_64")]
unsafe fn cmpxchg16b(at: *mut u8, expected: [u64; 2], new: [u64; 2]) -> [u64; 2] {
    let [mut low, mut high] = expected;
    // SAFETY: the caller vouches for the address; rbx, which the compiler keeps for itself, is put back.
    unsafe {
        std::arch::asm!(
            "xchg {new_low}, rbx",
            "lock cmpxchg16b [{at}]",
            "mov rbx, {new_low}",
            new_low = inout(reg) new[0] => _,
            at = in(reg) at,
            inout("rax") low,
            inout("rdx") high,
            in("rcx") new[1],
            options(nostack),
        );
    }
    [low, high]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swaps_only_what_is_expected() {
        #[repr(align(16))]
        struct Cell([u64; 2]);
        let mut cell = Cell([1, 2]);
        let at = NonNull::from(&mut cell.0).cast();
        // SAFETY: `cell` is aligned and ours.
        unsafe {
            assert_eq!(compare_exchange_16(at, [1, 3], [9, 9]), [1, 2]);
            assert_eq!(compare_exchange_16(at, [1, 2], [8, 9]), [1, 2]);
        }
        assert_eq!(cell.0, [8, 9]);
    }
}
