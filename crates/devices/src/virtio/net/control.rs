//! The control queue (Virtio 1.3, 5.1.6.5): receive modes, addresses, queue pairs, offloads. Served on the vCPU's
//! thread: every command only sets values.

use super::{
    CTRL_OFFLOADS, Negotiated,
    filter::{Filter, MAX_TABLE},
};
use crate::virtio::Chain;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET, VIRTIO_NET_CTRL_MAC,
    VIRTIO_NET_CTRL_MAC_ADDR_SET, VIRTIO_NET_CTRL_MAC_TABLE_SET, VIRTIO_NET_CTRL_MQ,
    VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_ALLMULTI,
    VIRTIO_NET_CTRL_RX_ALLUNI, VIRTIO_NET_CTRL_RX_NOBCAST, VIRTIO_NET_CTRL_RX_NOMULTI,
    VIRTIO_NET_CTRL_RX_NOUNI, VIRTIO_NET_CTRL_RX_PROMISC,
};

/// Answers: `ack` of `struct virtio_net_ctrl`.
const OK: u8 = 0;
const ERR: u8 = 1;
/// Bytes of a command that are read: the longest is two lists of addresses.
const MAX_COMMAND_BYTES: usize = 16 + 2 * 6 * 1024;

/// What commands change.
#[derive(Debug)]
pub(super) struct Settings<'a> {
    pub(super) filter: &'a mut Filter,
    /// Queue pairs the driver uses.
    pub(super) pairs: &'a mut u16,
    /// Offloads of the guest, as feature bits.
    pub(super) offloads: &'a mut u64,
    pub(super) negotiated: Negotiated,
}

/// Carries out the command in `chain`; bytes written of its answer, or `None` if there is no room for one.
pub(super) fn serve(settings: &mut Settings<'_>, chain: &mut Chain) -> Option<u32> {
    let len = usize::try_from(chain.readable_len()).unwrap_or(usize::MAX).min(MAX_COMMAND_BYTES);
    let mut command = vec![0; len];
    let read = chain.read_at(0, &mut command).ok()?;
    let done = match command.get(..read) {
        Some([class, kind, data @ ..]) => settings.run((*class).into(), (*kind).into(), data).is_some(),
        _ => false,
    };
    let written = chain.write_at(0, &[if done { OK } else { ERR }]).ok()?;
    (written == 1).then_some(1)
}

impl Settings<'_> {
    /// `None`: there is no such command, or not with such data.
    fn run(&mut self, class: u32, kind: u32, data: &[u8]) -> Option<()> {
        match (class, kind) {
            (VIRTIO_NET_CTRL_RX, kind) => self.mode(kind, *data.first()? != 0),
            (VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET) => {
                self.filter.mac = data.get(..6)?.try_into().ok()?;
                Some(())
            }
            (VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET) => self.tables(data),
            (VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET) if self.negotiated.multi_queue => {
                let pairs = u16::from_le_bytes(data.get(..2)?.try_into().ok()?);
                (1..=self.negotiated.max_pairs).contains(&pairs).then(|| *self.pairs = pairs)
            }
            (VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET) => {
                let offloads = u64::from_le_bytes(data.get(..8)?.try_into().ok()?);
                let allowed = self.negotiated.features & CTRL_OFFLOADS;
                (offloads & !allowed == 0).then(|| *self.offloads = offloads)
            }
            _ => None,
        }
    }

    fn mode(&mut self, kind: u32, on: bool) -> Option<()> {
        let mode = match kind {
            VIRTIO_NET_CTRL_RX_PROMISC => &mut self.filter.promiscuous,
            VIRTIO_NET_CTRL_RX_ALLMULTI => &mut self.filter.all_multicast,
            VIRTIO_NET_CTRL_RX_ALLUNI => &mut self.filter.all_unicast,
            VIRTIO_NET_CTRL_RX_NOMULTI => &mut self.filter.no_multicast,
            VIRTIO_NET_CTRL_RX_NOUNI => &mut self.filter.no_unicast,
            VIRTIO_NET_CTRL_RX_NOBCAST => &mut self.filter.no_broadcast,
            _ => return None,
        };
        *mode = on;
        Some(())
    }

    fn tables(&mut self, data: &[u8]) -> Option<()> {
        let (unicast, unicast_overflow, rest) = table(data)?;
        let (multicast, multicast_overflow, _) = table(rest)?;
        self.filter.set_tables(unicast, multicast, (unicast_overflow, multicast_overflow));
        Some(())
    }
}

/// A list of addresses behind its length: those that are kept, whether there were more, and what follows.
fn table(data: &[u8]) -> Option<(Vec<[u8; 6]>, bool, &[u8])> {
    let (count, data) = data.split_at_checked(4)?;
    let count = u32::from_le_bytes(count.try_into().ok()?) as usize;
    let (addresses, rest) = data.split_at_checked(count.checked_mul(6)?)?;
    let overflow = count > MAX_TABLE;
    let kept = if overflow { &[] } else { addresses };
    Some((kept.chunks_exact(6).filter_map(|mac| mac.try_into().ok()).collect(), overflow, rest))
}
