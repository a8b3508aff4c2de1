//! Ethernet addresses (IEEE 802, 8.2).

use std::{fmt, str::FromStr};

/// An Ethernet address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// All stations.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Names a group of stations, not one.
    pub fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// The address of a machine's card number `index`: locally administered, with QEMU's well-known prefix.
    pub fn of_card(index: u8) -> Self {
        Self([0x52, 0x54, 0x00, 0x12, 0x34, 0x56u8.wrapping_add(index)])
    }

    /// From six bytes; `None` from any other number of them.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for MacAddr {
    type Err = String;

    /// Six pairs of hexadecimal digits with colons; the address of one station.
    fn from_str(text: &str) -> Result<Self, String> {
        let byte = |word: &str| match word.len() {
            2 if word.bytes().all(|b| b.is_ascii_hexdigit()) => u8::from_str_radix(word, 16).ok(),
            _ => None,
        };
        let bytes: Option<Vec<u8>> = text.split(':').map(byte).collect();
        let mac = bytes
            .and_then(|bytes| Self::from_bytes(&bytes))
            .ok_or_else(|| format!("`{text}` is no Ethernet address: write one as in 52:54:00:12:34:56"))?;
        match mac.is_multicast() || mac.0 == [0; 6] {
            true => Err(format!(
                "{text} cannot be a card's address: its first byte must be even, and not all be 0"
            )),
            false => Ok(mac),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        let mac: MacAddr = "52:54:00:aB:cd:ef".parse().unwrap();
        assert_eq!(mac.to_string(), "52:54:00:ab:cd:ef");
        for wrong in [
            "",
            "52:54:00:12:34",
            "52:54:00:12:34:56:78",
            "52-54-00-12-34-56",
            "5:54:00:12:34:560",
            "+2:54:00:12:34:56",
            "01:00:00:00:00:00",
            "00:00:00:00:00:00",
        ] {
            assert!(wrong.parse::<MacAddr>().is_err(), "{wrong}");
        }
        assert_ne!(MacAddr::of_card(0), MacAddr::of_card(1));
    }
}
