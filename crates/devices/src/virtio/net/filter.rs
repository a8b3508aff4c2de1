//! Which frames reach the driver (Virtio 1.3, 5.1.6.5.1 and 5.1.6.5.2): the card's address, lists and modes.

use crate::backend::net::MacAddr;
use serde::{Deserialize, Serialize};

/// Addresses in each of the two lists; a longer one stands for all addresses of its kind.
pub(super) const MAX_TABLE: usize = 64;

/// What the driver told the card to receive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Filter {
    /// The card's own address.
    pub(super) mac: [u8; 6],
    pub(super) promiscuous: bool,
    pub(super) all_multicast: bool,
    pub(super) all_unicast: bool,
    pub(super) no_multicast: bool,
    pub(super) no_unicast: bool,
    pub(super) no_broadcast: bool,
    unicast: Vec<[u8; 6]>,
    multicast: Vec<[u8; 6]>,
    unicast_overflow: bool,
    multicast_overflow: bool,
}

impl Filter {
    /// What holds after reset: until a driver says otherwise, all groups reach it.
    pub(super) fn new(mac: MacAddr) -> Self {
        Self { mac: mac.0, all_multicast: true, ..Self::default() }
    }

    /// Replaces the lists; `all_multicast` of before the first call no longer holds.
    pub(super) fn set_tables(
        &mut self,
        unicast: Vec<[u8; 6]>,
        multicast: Vec<[u8; 6]>,
        overflow: (bool, bool),
    ) {
        (self.unicast, self.multicast) = (unicast, multicast);
        (self.unicast_overflow, self.multicast_overflow) = overflow;
    }

    /// Could a card have saved this?
    pub(super) fn is_sound(&self) -> bool {
        self.unicast.len() <= MAX_TABLE && self.multicast.len() <= MAX_TABLE
    }

    /// Does a frame with this destination reach the driver?
    pub(super) fn accepts(&self, to: MacAddr) -> bool {
        if self.promiscuous {
            return true;
        }
        if to == MacAddr::BROADCAST {
            return !self.no_broadcast;
        }
        if to.is_multicast() {
            let listed = self.multicast_overflow || self.multicast.contains(&to.0);
            return !self.no_multicast && (self.all_multicast || listed);
        }
        let listed = self.unicast_overflow || self.unicast.contains(&to.0);
        !self.no_unicast && (self.all_unicast || to.0 == self.mac || listed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
    const GROUP: MacAddr = MacAddr([0x33, 0x33, 0, 0, 0, 1]);

    #[test]
    fn modes_and_lists() {
        let fresh = Filter::new(OWN);
        let accepted = |filter: &Filter| [OWN, OTHER, GROUP, MacAddr::BROADCAST].map(|to| filter.accepts(to));
        assert_eq!(accepted(&fresh), [true, false, true, true]);
        assert_eq!(accepted(&Filter { promiscuous: true, ..fresh.clone() }), [true; 4]);
        assert_eq!(accepted(&Filter { all_unicast: true, ..fresh.clone() }), [true; 4]);
        assert_eq!(accepted(&Filter { all_multicast: false, ..fresh.clone() }), [true, false, false, true]);
        let none = Filter { no_unicast: true, no_multicast: true, no_broadcast: true, ..fresh.clone() };
        assert_eq!(accepted(&none), [false; 4]);
        let mut listed = Filter { all_multicast: false, ..fresh };
        listed.set_tables(vec![OTHER.0], vec![GROUP.0], (false, false));
        assert_eq!(accepted(&listed), [true; 4]);
        listed.set_tables(vec![], vec![], (false, true));
        assert_eq!(accepted(&listed), [true, false, true, true]);
    }
}
