//! Numbers of NVM Express 1.4: opcodes, statuses, registers.

/// A status without its phase bit: code, type, and do-not-retry (1.4, 4.6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Status(pub(super) u16);

const DO_NOT_RETRY: u16 = 1 << 14;

impl Status {
    pub(super) const OK: Self = Self(0);
    pub(super) const INVALID_OPCODE: Self = Self::generic(0x01);
    pub(super) const INVALID_FIELD: Self = Self::generic(0x02);
    pub(super) const TRANSFER_ERROR: Self = Self::generic(0x04);
    pub(super) const INVALID_NAMESPACE: Self = Self::generic(0x0b);
    pub(super) const INVALID_PRP_OFFSET: Self = Self::generic(0x13);
    pub(super) const WRITE_PROTECTED: Self = Self::generic(0x20);
    pub(super) const LBA_OUT_OF_RANGE: Self = Self::generic(0x80);
    /// What the host answers may be another one next time.
    pub(super) const CAPACITY_EXCEEDED: Self = Self(0x81);
    pub(super) const INVALID_CQ: Self = Self::specific(0x00);
    pub(super) const INVALID_QUEUE: Self = Self::specific(0x01);
    pub(super) const INVALID_QUEUE_SIZE: Self = Self::specific(0x02);
    pub(super) const TOO_MANY_EVENT_REQUESTS: Self = Self::specific(0x05);
    pub(super) const INVALID_VECTOR: Self = Self::specific(0x08);
    pub(super) const INVALID_LOG_PAGE: Self = Self::specific(0x09);
    pub(super) const INVALID_QUEUE_DELETION: Self = Self::specific(0x0c);
    pub(super) const WRITE_FAULT: Self = Self(0x280);
    pub(super) const UNRECOVERED_READ: Self = Self(0x281);

    const fn generic(code: u16) -> Self {
        Self(code | DO_NOT_RETRY)
    }

    const fn specific(code: u16) -> Self {
        Self(1 << 8 | code | DO_NOT_RETRY)
    }
}

/// Admin commands (5).
pub(super) mod admin {
    pub(crate) const DELETE_SQ: u8 = 0x00;
    pub(crate) const CREATE_SQ: u8 = 0x01;
    pub(crate) const GET_LOG_PAGE: u8 = 0x02;
    pub(crate) const DELETE_CQ: u8 = 0x04;
    pub(crate) const CREATE_CQ: u8 = 0x05;
    pub(crate) const IDENTIFY: u8 = 0x06;
    pub(crate) const ABORT: u8 = 0x08;
    pub(crate) const SET_FEATURES: u8 = 0x09;
    pub(crate) const GET_FEATURES: u8 = 0x0a;
    pub(crate) const EVENT_REQUEST: u8 = 0x0c;
}

/// Commands of the NVM command set (6).
pub(super) mod nvm {
    pub(crate) const FLUSH: u8 = 0x00;
    pub(crate) const WRITE: u8 = 0x01;
    pub(crate) const READ: u8 = 0x02;
    pub(crate) const WRITE_ZEROES: u8 = 0x08;
    pub(crate) const DATASET_MANAGEMENT: u8 = 0x09;
}

/// A submission queue entry (4.2).
#[derive(Clone, Copy, Debug)]
pub(super) struct Command([u32; 16]);

/// Bytes of it.
pub(super) const COMMAND_BYTES: u64 = 64;
/// Bytes of a completion queue entry.
pub(super) const COMPLETION_BYTES: u64 = 16;

impl Command {
    pub(super) fn new(bytes: &[u8; COMMAND_BYTES as usize]) -> Self {
        Self(std::array::from_fn(|word| {
            u32::from_le_bytes(std::array::from_fn(|byte| bytes[4 * word + byte]))
        }))
    }

    /// Command dword `n`.
    pub(super) fn word(&self, n: usize) -> u32 {
        self.0[n]
    }

    fn long(&self, n: usize) -> u64 {
        u64::from(self.0[n]) | u64::from(self.0[n + 1]) << 32
    }

    pub(super) fn opcode(&self) -> u8 {
        self.0[0] as u8
    }

    pub(super) fn id(&self) -> u16 {
        (self.0[0] >> 16) as u16
    }

    /// Fused operations, or data described otherwise than by PRPs: neither is offered.
    pub(super) fn is_strange(&self) -> bool {
        self.0[0] & 0xc300 != 0
    }

    pub(super) fn namespace(&self) -> u32 {
        self.0[1]
    }

    pub(super) fn prp1(&self) -> u64 {
        self.long(6)
    }

    pub(super) fn prp2(&self) -> u64 {
        self.long(8)
    }

    pub(super) fn lba(&self) -> u64 {
        self.long(10)
    }
}
