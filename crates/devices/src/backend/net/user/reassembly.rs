//! Puts together what the guest sent in fragments (RFC 791, 3.2). Fragments that overlap lose their datagram, as in IPv6
//! (RFC 8200, 4.5): no honest sender makes them.

use super::packet::Packet;
use smoltcp::wire::{IpProtocol, Ipv4Packet};
use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    time::{Duration, Instant},
};

/// Datagrams that wait for the rest of them, at most.
const MAX_DATAGRAMS: usize = 32;
/// Fragments of one datagram, at most: the longest takes 46 in a network of 1500 bytes.
const MAX_PIECES: usize = 64;
/// How long the rest is waited for.
const PATIENCE: Duration = Duration::from_secs(15);
/// Bytes of the longest packet.
const MAX_BYTES: usize = 65_535;

type Key = (IpAddr, IpAddr, IpProtocol, u16);

#[derive(Debug)]
struct Datagram {
    /// The header of the first fragment, once it is there.
    header: Vec<u8>,
    pieces: BTreeMap<usize, Vec<u8>>,
    bytes: usize,
    /// Where the datagram ends, once the last fragment is there.
    end: Option<usize>,
    since: Instant,
}

/// Fragments that wait.
#[derive(Debug, Default)]
pub(super) struct Reassembly(HashMap<Key, Datagram>);

impl Reassembly {
    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Is there nothing?
    pub(super) fn is_idle(&self) -> bool {
        self.0.is_empty()
    }

    /// Gives up what is late.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.0.retain(|_, datagram| now.duration_since(datagram.since) < PATIENCE);
    }

    /// Takes a fragment; the whole packet if this was the last that was missing.
    pub(super) fn add(&mut self, packet: &Packet<'_>, now: Instant) -> Option<Vec<u8>> {
        let ip = Ipv4Packet::new_checked(packet.whole).ok()?;
        let key = (packet.from, packet.to, packet.protocol, ip.ident());
        if self.0.len() >= MAX_DATAGRAMS
            && !self.0.contains_key(&key)
            && let Some(oldest) =
                self.0.iter().min_by_key(|(_, datagram)| datagram.since).map(|(key, _)| *key)
        {
            self.0.remove(&oldest);
        }
        let datagram = self.0.entry(key).or_insert_with(|| Datagram {
            header: Vec::new(),
            pieces: BTreeMap::new(),
            bytes: 0,
            end: None,
            since: now,
        });
        match datagram.add(&ip, packet) {
            Some(false) => None,
            Some(true) => self.0.remove(&key).map(Datagram::whole),
            None => {
                self.0.remove(&key);
                None
            }
        }
    }
}

impl Datagram {
    /// Takes a piece; is it complete now? `None`: it cannot be right.
    fn add(&mut self, ip: &Ipv4Packet<&[u8]>, packet: &Packet<'_>) -> Option<bool> {
        let (start, len) = (usize::from(ip.frag_offset()), packet.payload.len());
        let (end, header) = (start + len, usize::from(ip.header_len()));
        let before =
            self.pieces.range(..=start).next_back().is_none_or(|(at, piece)| at + piece.len() <= start);
        let after = self.pieces.range(start..).next().is_none_or(|(at, _)| end <= *at);
        let whole_units = !ip.more_frags() || len.is_multiple_of(8);
        let fits = len != 0 && end + header <= MAX_BYTES && self.end.is_none_or(|last| end <= last);
        if !(before && after && whole_units && fits) || self.pieces.len() >= MAX_PIECES {
            return None;
        }
        if !ip.more_frags() {
            let beyond = self.pieces.last_key_value().is_some_and(|(at, _)| *at >= start);
            if self.end.is_some() || beyond {
                return None;
            }
            self.end = Some(end);
        }
        if start == 0 {
            self.header = packet.whole[..header].to_vec();
        }
        self.bytes += len;
        self.pieces.insert(start, packet.payload.to_vec());
        Some(self.end == Some(self.bytes) && !self.header.is_empty())
    }

    fn whole(self) -> Vec<u8> {
        let mut packet = self.header;
        self.pieces.values().for_each(|piece| packet.extend_from_slice(piece));
        let len = packet.len() as u16;
        let mut ip = Ipv4Packet::new_unchecked(&mut packet[..]);
        ip.set_total_len(len);
        ip.set_more_frags(false);
        ip.set_frag_offset(0);
        ip.fill_checksum();
        packet
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fragment with `len` bytes of a datagram's data.
    fn fragment(start: u16, len: usize, more: bool) -> Vec<u8> {
        let mut packet = vec![0; 20 + len];
        packet[20..].iter_mut().enumerate().for_each(|(i, byte)| *byte = (usize::from(start) + i) as u8);
        let mut ip = Ipv4Packet::new_unchecked(&mut packet[..]);
        ip.set_version(4);
        ip.set_header_len(20);
        ip.set_total_len(20 + len as u16);
        ip.set_ident(7);
        ip.set_frag_offset(start);
        ip.set_more_frags(more);
        ip.set_next_header(IpProtocol::Udp);
        ip.set_src_addr([10, 0, 2, 15].into());
        ip.set_dst_addr([10, 0, 2, 2].into());
        ip.fill_checksum();
        packet
    }

    fn add(reassembly: &mut Reassembly, start: u16, len: usize, more: bool) -> Option<Vec<u8>> {
        let packet = fragment(start, len, more);
        reassembly.add(&Packet::parse(&packet).unwrap(), Instant::now())
    }

    #[test]
    fn datagrams_are_put_together_in_any_order() {
        let pieces = [(0, 1480, true), (1480, 1480, true), (2960, 40, false)];
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]] {
            let mut reassembly = Reassembly::default();
            let mut done = None;
            for index in order {
                assert_eq!(done, None);
                let (start, len, more) = pieces[index];
                done = add(&mut reassembly, start, len, more);
            }
            let done = done.unwrap();
            let packet = Packet::parse(&done).unwrap();
            assert!(!packet.fragment && packet.payload.len() == 3000 && reassembly.is_idle());
            assert!(packet.payload.iter().enumerate().all(|(i, byte)| *byte == i as u8));
        }
    }

    #[test]
    fn impossible_fragments_lose_the_datagram() {
        for bad in
            [(0, 8, true), (8, 16, true), (16, 8, false), (24, 7, true), (65_528, 8, false), (32, 0, true)]
        {
            let mut reassembly = Reassembly::default();
            assert_eq!(add(&mut reassembly, 0, 16, true), None);
            assert_eq!(add(&mut reassembly, 40, 8, true), None);
            assert_eq!(add(&mut reassembly, bad.0, bad.1, bad.2), None);
            // Not even with what was missing.
            assert_eq!(add(&mut reassembly, 16, 24, true), None);
            assert_eq!(add(&mut reassembly, 48, 8, false), None, "{bad:?}");
        }
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut reassembly = Reassembly::default();
        for ident in 0..1000u16 {
            let mut packet = fragment(0, 1480, true);
            let mut ip = Ipv4Packet::new_unchecked(&mut packet[..]);
            ip.set_ident(ident);
            ip.fill_checksum();
            reassembly.add(&Packet::parse(&packet).unwrap(), Instant::now());
        }
        assert_eq!(reassembly.0.len(), MAX_DATAGRAMS);
        for piece in 0..100 {
            add(&mut reassembly, 16 * piece, 8, true);
        }
        assert!(reassembly.0.values().map(|datagram| datagram.pieces.len()).max() <= Some(MAX_PIECES));
        reassembly.sweep(Instant::now() + PATIENCE);
        assert!(reassembly.is_idle());
    }
}
