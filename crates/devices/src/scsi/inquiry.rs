//! What a unit tells about itself: INQUIRY and its pages (SPC-4, 6.6 and 7.8), MODE SENSE (SPC-4, 6.13).

use super::{CDB_BYTES, Failure, MAX_SAME_BLOCKS, MAX_UNMAP_RANGES, Sense, Unit, UnitKind};

/// Blocks that are best unmapped together: 4 KiB.
const UNMAP_GRANULARITY: u32 = 8;

impl Unit {
    fn peripheral(&self) -> u8 {
        match self.kind {
            UnitKind::Disk => 0x00,
            UnitKind::Cdrom => 0x05,
        }
    }

    pub(super) fn inquiry(&self, cdb: &[u8; CDB_BYTES]) -> Result<Vec<u8>, Failure> {
        if cdb[1] & 1 != 0 {
            return self.page(cdb[2]);
        }
        if cdb[2] != 0 {
            return Err(Sense::INVALID_FIELD.into());
        }
        let (removable, product) = match self.kind {
            UnitKind::Disk => (0, b"DISK            "),
            UnitKind::Cdrom => (0x80, b"CD-ROM          "),
        };
        // SPC-4, answers in format 2, commands are queued.
        let head = [self.peripheral(), removable, 6, 2, 31, 0, 0, 2];
        Ok([&head[..], b"ISOMER  ", product, b"1   "].concat())
    }

    fn page(&self, page: u8) -> Result<Vec<u8>, Failure> {
        let body = match (page, self.kind) {
            (0x00, UnitKind::Disk) => vec![0x00, 0x80, 0x83, 0xb0, 0xb1, 0xb2],
            (0x00, UnitKind::Cdrom) => vec![0x00, 0x80, 0x83],
            (0x80, _) => self.serial.as_bytes().to_vec(),
            (0x83, _) => {
                // In ASCII, of the vendor's making, about the unit.
                let name = [b"ISOMER  ", self.serial.as_bytes()].concat();
                [&[2, 1, 0, name.len() as u8][..], &name].concat()
            }
            (0xb0, UnitKind::Disk) => self.block_limits(),
            // A medium that does not turn.
            (0xb1, UnitKind::Disk) => [&[0, 1][..], &[0; 58]].concat(),
            // UNMAP, WRITE SAME of both kinds unmap; the disk is thin.
            (0xb2, UnitKind::Disk) if !self.read_only() => vec![0, 0xe0, 2, 0],
            (0xb2, UnitKind::Disk) => vec![0; 4],
            _ => return Err(Sense::INVALID_FIELD.into()),
        };
        let len = (body.len() as u16).to_be_bytes();
        Ok([&[self.peripheral(), page][..], &len, &body].concat())
    }

    fn block_limits(&self) -> Vec<u8> {
        let mut body = vec![0; 60];
        let mut put = |at: usize, bytes: &[u8]| body[at - 4..at - 4 + bytes.len()].copy_from_slice(bytes);
        put(6, &(UNMAP_GRANULARITY as u16).to_be_bytes());
        if !self.read_only() {
            put(20, &u32::MAX.to_be_bytes());
            put(24, &(MAX_UNMAP_RANGES as u32).to_be_bytes());
            put(28, &UNMAP_GRANULARITY.to_be_bytes());
            put(36, &MAX_SAME_BLOCKS.to_be_bytes());
        }
        body
    }

    pub(super) fn mode_sense(&self, cdb: &[u8; CDB_BYTES], long: bool) -> Result<Vec<u8>, Failure> {
        let (control, page) = (cdb[2] >> 6, cdb[2] & 0x3f);
        // There are no saved values.
        if control == 3 {
            return Err(Sense::INVALID_FIELD.into());
        }
        let mut pages: Vec<u8> = match (page, self.kind) {
            // Caching: there is a write cache.
            (0x08 | 0x3f, UnitKind::Disk) => [&[0x08, 18, 4][..], &[0; 17]].concat(),
            // Capabilities: reads discs; a tray that is never opened.
            (0x2a | 0x3f, UnitKind::Cdrom) => [&[0x2a, 18, 0x03, 0, 0, 0, 0x20][..], &[0; 13]].concat(),
            _ => return Err(Sense::INVALID_FIELD.into()),
        };
        if control == 1 {
            // Nothing can be changed.
            pages[2..].fill(0);
        }
        let specific = match self.kind {
            // Write protected; DPO and FUA are known.
            UnitKind::Disk => {
                if self.read_only() {
                    0x90
                } else {
                    0x10
                }
            }
            UnitKind::Cdrom => 0,
        };
        let head = match long {
            false => vec![pages.len() as u8 + 3, 0, specific, 0],
            true => {
                let len = (pages.len() as u16 + 6).to_be_bytes();
                vec![len[0], len[1], 0, specific, 0, 0, 0, 0]
            }
        };
        Ok([head, pages].concat())
    }
}
