//! Who makes a bus access: the number of the vCPU that this thread runs.
//!
//! Buses carry the initiator of a transaction along (AMBA AXI's transaction identifiers, the local APIC's private
//! view of one address), and devices with a bank of registers for each CPU at one address need it: the GICv2, local
//! APICs. A thread that runs a vCPU says so once; all other threads count as vCPU 0.

use std::cell::Cell;

thread_local! {
    static VCPU: Cell<usize> = const { Cell::new(0) };
}

/// From now on this thread's bus accesses are vCPU `index`'s.
pub fn set_vcpu(index: usize) {
    VCPU.set(index);
}

/// The vCPU whose accesses this thread makes.
pub fn vcpu() -> usize {
    VCPU.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_told_apart() {
        set_vcpu(3);
        let other = std::thread::spawn(|| {
            let before = vcpu();
            set_vcpu(5);
            (before, vcpu())
        });
        assert_eq!((other.join().unwrap(), vcpu()), ((0, 5), 3));
    }
}
