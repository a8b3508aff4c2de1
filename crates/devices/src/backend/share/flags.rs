//! Flags of open(2) as guests give them: numbers differ between instruction sets (Linux, `asm/fcntl.h`).

use rustix::{fs::OFlags, io::Errno};

/// Where an instruction set's `O_DIRECT`, `O_DIRECTORY` and `O_NOFOLLOW` are; the other bits are the same on all
/// that Isomer runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OpenFlagLayout {
    /// `asm-generic/fcntl.h`: riscv64, x86-64. 9P2000.L uses the same numbers for every guest.
    #[default]
    Generic,
    /// `arch/arm64`.
    Arm,
    /// `arch/powerpc`.
    Power,
}

/// The bits that mean the same everywhere, and what they are on this host. Access mode aside, what is not listed
/// (`O_CREAT`, `O_NOCTTY`, `O_CLOEXEC`, `O_LARGEFILE`) has no meaning for a file that is opened on a guest's behalf.
const COMMON: &[(u32, OFlags)] = &[
    (0o1000, OFlags::TRUNC),
    (0o2000, OFlags::APPEND),
    (0o4000, OFlags::NONBLOCK),
    (0o1_0000, OFlags::DSYNC),
    (0o100_0000, OFlags::NOATIME),
    (0o400_0000, OFlags::SYNC),
];
/// `O_EXCL`.
const EXCLUSIVE: u32 = 0o200;

impl OpenFlagLayout {
    /// `(O_DIRECT, O_DIRECTORY, O_NOFOLLOW)`.
    const fn own_bits(self) -> (u32, u32, u32) {
        match self {
            Self::Generic => (0o4_0000, 0o20_0000, 0o40_0000),
            Self::Arm => (0o20_0000, 0o4_0000, 0o10_0000),
            Self::Power => (0o40_0000, 0o4_0000, 0o10_0000),
        }
    }

    /// The host's flags for a guest's. `O_DIRECT` is dropped on purpose: it bypasses the guest's cache, which the
    /// guest's kernel does by itself, while the host's alignment rules would be no rules of the guest's.
    pub fn to_host(self, raw: u32) -> Result<OFlags, Errno> {
        let access = match raw & 3 {
            0 => OFlags::RDONLY,
            1 => OFlags::WRONLY,
            2 => OFlags::RDWR,
            _ => return Err(Errno::INVAL),
        };
        let (_direct, directory, nofollow) = self.own_bits();
        let own = [(directory, OFlags::DIRECTORY), (nofollow, OFlags::NOFOLLOW)];
        let given = COMMON.iter().chain(&own).filter(|(bit, _)| raw & bit != 0);
        Ok(given.fold(access, |flags, &(_, flag)| flags | flag))
    }

    /// Is `O_EXCL` among a guest's flags?
    pub const fn is_exclusive(raw: u32) -> bool {
        raw & EXCLUSIVE != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_number_is_another_flag_elsewhere() {
        let directory =
            |layout: OpenFlagLayout, raw| layout.to_host(raw).unwrap().contains(OFlags::DIRECTORY);
        // O_DIRECTORY of one is O_DIRECT of the other.
        assert!(directory(OpenFlagLayout::Generic, 0o20_0000) && !directory(OpenFlagLayout::Arm, 0o20_0000));
        assert!(directory(OpenFlagLayout::Arm, 0o4_0000) && !directory(OpenFlagLayout::Generic, 0o4_0000));
        assert!(directory(OpenFlagLayout::Power, 0o4_0000) && !directory(OpenFlagLayout::Power, 0o40_0000));
        let flags = OpenFlagLayout::Arm.to_host(0o2 | 0o1000 | 0o2000 | 0o10_0000 | 0o40_0000).unwrap();
        assert_eq!(flags, OFlags::RDWR | OFlags::TRUNC | OFlags::APPEND | OFlags::NOFOLLOW);
        assert!(OpenFlagLayout::Generic.to_host(3).is_err());
    }

    #[test]
    fn direct_never_reaches_the_host() {
        for (layout, direct) in [
            (OpenFlagLayout::Generic, 0o4_0000),
            (OpenFlagLayout::Arm, 0o20_0000),
            (OpenFlagLayout::Power, 0o40_0000),
        ] {
            assert_eq!(layout.to_host(direct).unwrap(), OFlags::RDONLY);
        }
    }
}
