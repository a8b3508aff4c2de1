//! Physical memory protection (volume II, 3.7).

use crate::{Cpu, Privilege, regs::PMP_ENTRIES};
use isomer_core::Gpa;

/// Bits of a `pmpcfg` byte.
pub(crate) mod cfg {
    /// Loads.
    pub(crate) const R: u8 = 1;
    /// Stores.
    pub(crate) const W: u8 = 2;
    /// Fetches.
    pub(crate) const X: u8 = 4;
    /// Address matching mode.
    pub(crate) const A: u8 = 3 << 3;
    /// Lowest bit of [`A`].
    pub(crate) const A_SHIFT: u32 = 3;
    /// Locked: binds M-mode too.
    pub(crate) const L: u8 = 1 << 7;
}

/// What may be done at an address, as the R, W, X bits of a configuration byte.
pub(crate) const ALL: u8 = cfg::R | cfg::W | cfg::X;

/// The bytes `start..=last` entry `n` matches; `None` if it is off or empty.
fn range(cpu: &Cpu, n: usize) -> Option<(u64, u64)> {
    let address = cpu.pmpaddr[n];
    match (cpu.pmpcfg[n] & cfg::A) >> cfg::A_SHIFT {
        1 => {
            let start = if n == 0 { 0 } else { cpu.pmpaddr[n - 1] << 2 };
            let end = address << 2;
            (start < end).then(|| (start, end - 1))
        }
        2 => Some((address << 2, (address << 2) + 3)),
        3 => {
            let ones = address.trailing_ones();
            let bytes_shift = ones + 3;
            let start = if bytes_shift >= 64 { 0 } else { (address << 2) & !((1 << bytes_shift) - 1) };
            let span = if bytes_shift >= 64 { u64::MAX } else { (1 << bytes_shift) - 1 };
            Some((start, start.saturating_add(span)))
        }
        _ => None,
    }
}

/// What the first entry that matches any of the bytes `first..=last` says of them: its permissions if it matches
/// all, `None` if it matches only some.
fn matching(cpu: &Cpu, entries: usize, (first, last): (u64, u64), privilege: Privilege) -> Option<u8> {
    for n in 0..entries.min(PMP_ENTRIES) {
        let Some((start, end)) = range(cpu, n) else { continue };
        if end < first || last < start {
            continue;
        }
        if first < start || end < last {
            return None;
        }
        let config = cpu.pmpcfg[n];
        let binds = privilege != Privilege::Machine || config & cfg::L != 0;
        return Some(if binds { config & ALL } else { ALL });
    }
    // No entry matches: M-mode may do everything, others nothing, unless no entry exists at all.
    Some(if privilege == Privilege::Machine || entries == 0 { ALL } else { 0 })
}

/// The permissions of an access to `len` bytes at `gpa`, and the largest of `shift` and smaller page shifts over which
/// they hold. A shift below 12 means that they change within the granule.
pub(crate) fn check(
    cpu: &Cpu,
    entries: usize,
    (gpa, len): (Gpa, u32),
    privilege: Privilege,
    shift: u8,
) -> (u8, u8) {
    for shift in [shift, 21, 12].into_iter().filter(|&s| s <= shift) {
        let span = (1u64 << shift) - 1;
        if let Some(permissions) = matching(cpu, entries, (gpa.0 & !span, gpa.0 | span), privilege) {
            return (permissions, shift);
        }
    }
    // An access that an entry matches in part fails, whatever the permissions (volume II, 3.7.1).
    let last = gpa.0 + u64::from(len.max(1)) - 1;
    (matching(cpu, entries, (gpa.0, last), privilege).unwrap_or(0), 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu(entries: &[(u8, u64)]) -> Cpu {
        let mut cpu = Cpu::default();
        for (n, &(config, address)) in entries.iter().enumerate() {
            (cpu.pmpcfg[n], cpu.pmpaddr[n]) = (config, address);
        }
        cpu
    }

    #[test]
    fn no_match_denies_all_but_machine_mode() {
        let cpu = cpu(&[]);
        assert_eq!(check(&cpu, 16, (Gpa(0x8000_0000), 1), Privilege::Supervisor, 12), (0, 12));
        assert_eq!(check(&cpu, 16, (Gpa(0x8000_0000), 1), Privilege::Machine, 30), (ALL, 30));
        assert_eq!(check(&cpu, 0, (Gpa(0x8000_0000), 1), Privilege::User, 12), (ALL, 12));
    }

    #[test]
    fn napot_covering_everything_opens_everything() {
        let cpu = cpu(&[(3 << 3 | ALL, u64::MAX >> 10)]);
        assert_eq!(check(&cpu, 16, (Gpa(0x8000_0000), 1), Privilege::User, 30), (ALL, 30));
    }

    #[test]
    fn first_match_wins_and_small_regions_shrink_the_page() {
        // 16 bytes read-only at 0x1000 inside a top-of-range region to 0x4000.
        let cpu = cpu(&[(3 << 3 | cfg::R, (0x1000 >> 2) | 1), (1 << 3 | ALL, 0x4000 >> 2)]);
        assert_eq!(check(&cpu, 16, (Gpa(0x1008), 1), Privilege::User, 12), (cfg::R, 0));
        assert_eq!(check(&cpu, 16, (Gpa(0x1010), 1), Privilege::User, 12), (ALL, 0));
        assert_eq!(check(&cpu, 16, (Gpa(0xff0), 1), Privilege::User, 12), (0, 12)); // TOR starts at pmpaddr0 << 2
        assert_eq!(check(&cpu, 16, (Gpa(0x2000), 1), Privilege::User, 21), (ALL, 12));
        assert_eq!(check(&cpu, 16, (Gpa(0x4000), 1), Privilege::User, 12), (0, 12));
    }

    #[test]
    fn an_access_across_an_entrys_end_fails() {
        let cpu = cpu(&[(2 << 3 | ALL, 0x1000 >> 2), (3 << 3 | ALL, u64::MAX >> 10)]);
        assert_eq!(check(&cpu, 16, (Gpa(0x1000), 4), Privilege::User, 12), (ALL, 0));
        assert_eq!(check(&cpu, 16, (Gpa(0x1000), 8), Privilege::User, 12), (0, 0));
        assert_eq!(check(&cpu, 16, (Gpa(0x1004), 8), Privilege::User, 12), (ALL, 0));
    }

    #[test]
    fn locked_entries_bind_machine_mode() {
        let cpu = cpu(&[(cfg::L | 3 << 3 | cfg::R, u64::MAX >> 10)]);
        assert_eq!(check(&cpu, 16, (Gpa(0), 1), Privilege::Machine, 12), (cfg::R, 12));
    }
}
