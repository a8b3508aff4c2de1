//! The identification registers at the end of every PrimeCell's page (Arm PrimeCell technical reference manuals,
//! "Peripheral identification registers"), by which drivers find their device.

/// Bytes in the register window of a PrimeCell.
pub const WINDOW_LEN: u64 = 0x1000;

/// `PeriphID0`.
const FIRST: u64 = 0xfe0;
/// `PCellID0` to `PCellID3`.
const CELL_ID: u32 = 0xb105_f00d;

/// An identification register, a byte each: of the peripheral called `id` (part number, designer Arm, revision,
/// configuration), then of PrimeCells as such.
pub(crate) fn identification(offset: u64, id: u32) -> Option<u32> {
    let at = offset.checked_sub(FIRST).filter(|at| at.is_multiple_of(4))? / 4;
    let byte = |word: u32| word >> (8 * (at % 4)) & 0xff;
    match at {
        0..4 => Some(byte(id)),
        4..8 => Some(byte(CELL_ID)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identification_is_spread_over_bytes() {
        let bytes: Vec<_> = (0..8).map(|n| identification(FIRST + 4 * n, 0x0034_1011)).collect();
        let expected = [0x11, 0x10, 0x34, 0x00, 0x0d, 0xf0, 0x05, 0xb1].map(Some);
        assert_eq!(bytes, expected);
        assert_eq!([identification(0, 1), identification(0xfe2, 1), identification(0x1000, 1)], [None; 3]);
    }
}
