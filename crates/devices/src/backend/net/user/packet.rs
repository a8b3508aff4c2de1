//! IP packets from the guest (RFC 791, RFC 8200), checked as far as everything behind relies on them.

use crate::backend::net::{Checksum, FrameMeta, checksum};
use smoltcp::wire::{IpProtocol, Ipv4Packet, Ipv6Packet};
use std::net::IpAddr;

/// A packet that is what its header says, with the right checksums.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet<'a> {
    pub(super) from: IpAddr,
    pub(super) to: IpAddr,
    pub(super) protocol: IpProtocol,
    /// What follows the header, without padding.
    pub(super) payload: &'a [u8],
    /// All of it.
    pub(super) whole: &'a [u8],
    /// It is a piece of a longer one.
    pub(super) fragment: bool,
}

impl<'a> Packet<'a> {
    /// `None`: not a packet, or one that IPv6 allows and nothing here understands (extension headers).
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        match bytes.first()? >> 4 {
            4 => {
                let ip = Ipv4Packet::new_checked(bytes).ok()?;
                if !ip.verify_checksum() {
                    return None;
                }
                Some(Self {
                    from: ip.src_addr().into(),
                    to: ip.dst_addr().into(),
                    protocol: ip.next_header(),
                    payload: ip.payload(),
                    whole: &bytes[..ip.total_len().into()],
                    fragment: ip.more_frags() || ip.frag_offset() != 0,
                })
            }
            6 => {
                let ip = Ipv6Packet::new_checked(bytes).ok()?;
                Some(Self {
                    from: ip.src_addr().into(),
                    to: ip.dst_addr().into(),
                    protocol: ip.next_header(),
                    payload: ip.payload(),
                    whole: &bytes[..ip.total_len()],
                    fragment: false,
                })
            }
            _ => None,
        }
    }

    /// Is the payload's checksum right, or the guest's to be left open?
    pub(super) fn is_intact(&self, meta: &FrameMeta) -> bool {
        // A fragment's sum is that of the whole.
        if meta.checksum != Checksum::Complete || meta.segmentation.is_some() || self.fragment {
            return true;
        }
        match self.protocol {
            // UDP over IPv4 may go without.
            IpProtocol::Udp if self.from.is_ipv4() && self.payload.get(6..8) == Some(&[0, 0]) => true,
            IpProtocol::Tcp | IpProtocol::Udp | IpProtocol::Icmpv6 => {
                checksum::is_right(self.protocol, &self.from.into(), &self.to.into(), self.payload)
            }
            _ => true,
        }
    }
}
