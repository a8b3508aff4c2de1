//! Sense data in the fixed format (SPC-4, 4.5.3), and statuses.

/// Status codes (SAM-5, 5.3).
pub mod status {
    /// The command is done.
    pub const GOOD: u8 = 0x00;
    /// There is sense data.
    pub const CHECK_CONDITION: u8 = 0x02;
}

/// Bytes of fixed-format sense data.
pub(crate) const SENSE_BYTES: usize = 18;

/// Key, code and qualifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sense {
    key: u8,
    code: u8,
    qualifier: u8,
}

impl Sense {
    pub(super) const NONE: Self = Self::new(0, 0, 0);
    pub(super) const READ_ERROR: Self = Self::new(0x3, 0x11, 0);
    pub(super) const WRITE_ERROR: Self = Self::new(0x3, 0x0c, 0);
    pub(super) const TRANSFER_FAILED: Self = Self::new(0xb, 0x4b, 0);
    pub(super) const PARAMETER_LENGTH: Self = Self::new(0x5, 0x1a, 0);
    pub(super) const INVALID_OPCODE: Self = Self::new(0x5, 0x20, 0);
    pub(super) const OUT_OF_RANGE: Self = Self::new(0x5, 0x21, 0);
    pub(super) const INVALID_FIELD: Self = Self::new(0x5, 0x24, 0);
    /// There is no such logical unit.
    pub const NO_UNIT: Self = Self::new(0x5, 0x25, 0);
    pub(super) const INVALID_PARAMETER: Self = Self::new(0x5, 0x26, 0);
    pub(super) const WRITE_PROTECTED: Self = Self::new(0x7, 0x27, 0);
    /// Space allocation failed: what thin provisioning knows as a full pool.
    pub(super) const NO_SPACE: Self = Self::new(0x7, 0x27, 7);

    const fn new(key: u8, code: u8, qualifier: u8) -> Self {
        Self { key, code, qualifier }
    }

    /// The fixed format.
    pub fn fixed(self) -> [u8; SENSE_BYTES] {
        let mut bytes = [0; SENSE_BYTES];
        (bytes[0], bytes[2], bytes[7]) = (0x70, self.key, SENSE_BYTES as u8 - 8);
        (bytes[12], bytes[13]) = (self.code, self.qualifier);
        bytes
    }
}
