//! What only a CD-ROM drive answers (MMC-6): one data track on one disc, always there.

use super::{CDB_BYTES, Failure, Sense};

/// Frames before the first block, in addresses of minutes, seconds and frames.
const LEAD_IN_FRAMES: u64 = 150;
/// The track number of what follows the last track.
const LEAD_OUT: u8 = 0xaa;
/// A data track, recorded uninterrupted.
const DATA_TRACK: u8 = 0x14;

fn address(block: u64, minutes: bool) -> [u8; 4] {
    if minutes {
        let frames = block + LEAD_IN_FRAMES;
        return [0, (frames / 4500).min(255) as u8, (frames / 75 % 60) as u8, (frames % 75) as u8];
    }
    u32::try_from(block).unwrap_or(u32::MAX).to_be_bytes()
}

/// READ TOC (6.25): tracks, or sessions.
pub(super) fn toc(blocks: u64, cdb: &[u8; CDB_BYTES]) -> Result<Vec<u8>, Failure> {
    let minutes = cdb[1] & 2 != 0;
    let track = |number, block| [&[0, DATA_TRACK, number, 0][..], &address(block, minutes)].concat();
    // Older drivers put the format into the control byte.
    let format = if cdb[2] & 0xf != 0 { cdb[2] & 0xf } else { cdb[9] >> 6 };
    let tracks = match (format, cdb[6]) {
        (0, 0 | 1) => [track(1, 0), track(LEAD_OUT, blocks)].concat(),
        (0, LEAD_OUT) => track(LEAD_OUT, blocks),
        (1, _) => track(1, 0),
        _ => return Err(Sense::INVALID_FIELD.into()),
    };
    let len = (tracks.len() as u16 + 2).to_be_bytes();
    Ok([&[len[0], len[1], 1, 1][..], &tracks].concat())
}

/// GET CONFIGURATION (6.6): a CD-ROM is in.
pub(super) fn configuration() -> Vec<u8> {
    // The profile list with one that is current; the core feature: SCSI.
    let features = [&[0, 0, 3, 4, 0, 8, 1, 0][..], &[0, 1, 3, 8, 0, 0, 0, 1, 0, 0, 0, 0]].concat();
    let len = (features.len() as u32 + 4).to_be_bytes();
    [&len[..], &[0, 0, 0, 8], &features].concat()
}

/// GET EVENT STATUS NOTIFICATION (6.7): nothing has happened to the disc.
pub(super) fn event_status(cdb: &[u8; CDB_BYTES]) -> Result<Vec<u8>, Failure> {
    const MEDIA: u8 = 1 << 4;
    // Only polling is offered.
    if cdb[1] & 1 == 0 {
        return Err(Sense::INVALID_FIELD.into());
    }
    Ok(match cdb[4] & MEDIA != 0 {
        // Class 4; no event, the disc is there.
        true => vec![0, 6, 4, MEDIA, 0, 2, 0, 0],
        false => vec![0, 2, 0x80, MEDIA],
    })
}

/// READ DISC INFORMATION (6.21): complete, one session, one track.
pub(super) fn disc_information() -> Vec<u8> {
    [&[0, 32, 0x0e, 1, 1, 1, 1][..], &[0; 27]].concat()
}
