//! CRC32 and CRC32C (Arm ARM, C6.2.76 and J1.1 "Poly32Mod2"): the polynomials of IEEE 802.3 and of Castagnoli, bits
//! reflected.

/// 0x04c11db7, reflected.
const IEEE: [u32; 256] = table(0xedb8_8320);
/// 0x1edc6f41, reflected.
const CASTAGNOLI: [u32; 256] = table(0x82f6_3b78);

/// What each byte adds.
const fn table(polynomial: u32) -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut sum = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            sum = sum >> 1 ^ if sum & 1 != 0 { polynomial } else { 0 };
            bit += 1;
        }
        table[byte] = sum;
        byte += 1;
    }
    table
}

fn update(table: &[u32; 256], sum: u64, data: u64, bytes: u64) -> u64 {
    let bytes = data.to_le_bytes().into_iter().take(bytes as usize);
    u64::from(bytes.fold(sum as u32, |sum, byte| sum >> 8 ^ table[usize::from(sum as u8 ^ byte)]))
}

/// `crc32b` to `crc32x`: the low `bytes` of `data` added to `sum`.
pub(crate) fn crc32(sum: u64, data: u64, bytes: u64) -> u64 {
    update(&IEEE, sum, data, bytes)
}

/// `crc32cb` to `crc32cx`.
pub(crate) fn crc32c(sum: u64, data: u64, bytes: u64) -> u64 {
    update(&CASTAGNOLI, sum, data, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The catalogue's check values: of "123456789", inverted before and after.
    #[test]
    fn check_values() {
        for (crc, check) in [(crc32 as fn(_, _, _) -> _, 0xcbf4_3926), (crc32c, 0xe306_9283)] {
            let head = crc(0xffff_ffff, u64::from_le_bytes(*b"12345678"), 8);
            assert_eq!(crc(head, u64::from(b'9'), 1) ^ 0xffff_ffff, check);
        }
    }
}
