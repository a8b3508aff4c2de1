//! CPU models: which extensions a hart has.

use bitflags::bitflags;

bitflags! {
    /// Extensions of RV64I, by the manual's names.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
    pub struct Extensions: u128 {
        /// Base integer instructions.
        const I = 1;
        /// Multiplication and division.
        const M = 1 << 1;
        /// Atomics.
        const A = 1 << 2;
        /// Single precision.
        const F = 1 << 3;
        /// Double precision.
        const D = 1 << 4;
        /// Compressed instructions.
        const C = 1 << 5;
        /// Supervisor mode.
        const S = 1 << 6;
        /// User mode.
        const U = 1 << 7;
        /// CSR instructions.
        const ZICSR = 1 << 8;
        /// `fence.i`.
        const ZIFENCEI = 1 << 9;
        /// `cycle`, `time`, `instret`.
        const ZICNTR = 1 << 10;
        /// Performance counters.
        const ZIHPM = 1 << 11;
        /// Address generation.
        const ZBA = 1 << 12;
        /// Basic bit manipulation.
        const ZBB = 1 << 13;
        /// Carry-less multiplication.
        const ZBC = 1 << 14;
        /// Single-bit instructions.
        const ZBS = 1 << 15;
        /// Bit manipulation for cryptography.
        const ZBKB = 1 << 16;
        /// Carry-less multiplication for cryptography.
        const ZBKC = 1 << 17;
        /// Crossbar permutations.
        const ZBKX = 1 << 18;
        /// Integer conditional operations.
        const ZICOND = 1 << 19;
        /// Additional floating-point instructions.
        const ZFA = 1 << 20;
        /// Half precision.
        const ZFH = 1 << 21;
        /// Half precision conversions only; part of Zfh.
        const ZFHMIN = 1 << 22;
        /// Cache-block management.
        const ZICBOM = 1 << 23;
        /// Cache-block prefetch hints.
        const ZICBOP = 1 << 24;
        /// Cache-block zero.
        const ZICBOZ = 1 << 25;
        /// Wait on reservation set.
        const ZAWRS = 1 << 26;
        /// Compare-and-swap.
        const ZACAS = 1 << 27;
        /// Additional compressed instructions.
        const ZCB = 1 << 28;
        /// Compressed may-be-operations.
        const ZCMOP = 1 << 29;
        /// May-be-operations.
        const ZIMOP = 1 << 30;
        /// AES decryption.
        const ZKND = 1 << 31;
        /// AES encryption.
        const ZKNE = 1 << 32;
        /// SHA-2.
        const ZKNH = 1 << 33;
        /// SM4.
        const ZKSED = 1 << 34;
        /// SM3.
        const ZKSH = 1 << 35;
        /// Entropy source.
        const ZKR = 1 << 36;
        /// Pause hint.
        const ZIHINTPAUSE = 1 << 37;
        /// Non-temporal locality hints.
        const ZIHINTNTL = 1 << 38;
        /// Page-based 39-bit virtual memory.
        const SV39 = 1 << 39;
        /// 48-bit.
        const SV48 = 1 << 40;
        /// 57-bit.
        const SV57 = 1 << 41;
        /// Fine-grained TLB invalidation.
        const SVINVAL = 1 << 42;
        /// Naturally aligned power-of-two translations.
        const SVNAPOT = 1 << 43;
        /// Page-based memory types.
        const SVPBMT = 1 << 44;
        /// Page faults for clear A and D bits.
        const SVADE = 1 << 45;
        /// Hardware A and D updates, switchable.
        const SVADU = 1 << 46;
        /// Supervisor timer compare.
        const SSTC = 1 << 47;
        /// Counter overflow and mode filtering.
        const SSCOFPMF = 1 << 48;
        /// State enable.
        const SMSTATEEN = 1 << 49;
    }
}

/// The riscv64 guest: a CPU model.
#[derive(Clone, Debug)]
pub struct Riscv64 {
    /// What the model implements.
    pub ext: Extensions,
}
