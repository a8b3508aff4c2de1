//! `struct virtio_net_hdr` (Virtio 1.3, 5.1.6): what stands before each frame in a driver's buffers, and
//! before each frame of a tap.

use super::{Checksum, FrameMeta, Segmentation};
use virtio_bindings::virtio_net::{
    VIRTIO_NET_HDR_F_DATA_VALID, VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_ECN,
    VIRTIO_NET_HDR_GSO_NONE, VIRTIO_NET_HDR_GSO_TCPV4, VIRTIO_NET_HDR_GSO_TCPV6,
};

/// Bytes of it; `num_buffers` is there whatever was negotiated, as the device is not a legacy one.
pub(crate) const BYTES: usize = 12;

/// The header of a frame for the driver that takes `buffers` buffers.
pub(crate) fn write(meta: &FrameMeta, buffers: u16) -> [u8; BYTES] {
    let mut header = [0; BYTES];
    let mut put = |at: usize, value: u16| header[at..at + 2].copy_from_slice(&value.to_le_bytes());
    let (mut flags, mut kind) = (0, VIRTIO_NET_HDR_GSO_NONE);
    match meta.checksum {
        Checksum::Complete => (),
        Checksum::Valid => flags = VIRTIO_NET_HDR_F_DATA_VALID,
        Checksum::Partial { start, offset } => {
            flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
            put(6, start);
            put(8, offset);
        }
    }
    if let Some(Segmentation { ipv6, size, header_len, ecn }) = meta.segmentation {
        kind = if ipv6 { VIRTIO_NET_HDR_GSO_TCPV6 } else { VIRTIO_NET_HDR_GSO_TCPV4 };
        kind |= if ecn { VIRTIO_NET_HDR_GSO_ECN } else { 0 };
        put(2, header_len);
        put(4, size);
    }
    put(10, buffers);
    (header[0], header[1]) = (flags as u8, kind as u8);
    header
}

/// What a driver's header says of a frame of `len` bytes; `None` if it asks for what is not offered, or cannot be.
pub(crate) fn read(header: &[u8; BYTES], len: usize) -> Option<FrameMeta> {
    let get = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    let (flags, kind) = (u32::from(header[0]), u32::from(header[1]));
    let checksum = match flags & VIRTIO_NET_HDR_F_NEEDS_CSUM {
        0 => Checksum::Complete,
        _ => {
            let (start, offset) = (get(6), get(8));
            if usize::from(start) + usize::from(offset) + 2 > len {
                return None;
            }
            Checksum::Partial { start, offset }
        }
    };
    let ecn = kind & VIRTIO_NET_HDR_GSO_ECN != 0;
    let segmentation = match kind & !VIRTIO_NET_HDR_GSO_ECN {
        VIRTIO_NET_HDR_GSO_NONE => None,
        tcp @ (VIRTIO_NET_HDR_GSO_TCPV4 | VIRTIO_NET_HDR_GSO_TCPV6) => {
            let (header_len, size) = (get(2), get(4));
            // Segments need checksums of their own (5.1.6.2).
            if size == 0 || checksum == Checksum::Complete {
                return None;
            }
            Some(Segmentation { ipv6: tcp == VIRTIO_NET_HDR_GSO_TCPV6, size, header_len, ecn })
        }
        _ => return None,
    };
    Some(FrameMeta { checksum, segmentation })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_say_the_same_both_ways() {
        let partial = Checksum::Partial { start: 34, offset: 16 };
        let segmentation = Segmentation { ipv6: false, size: 1448, header_len: 66, ecn: false };
        for meta in [
            FrameMeta::default(),
            FrameMeta { checksum: partial, segmentation: None },
            FrameMeta { checksum: partial, segmentation: Some(segmentation) },
            FrameMeta {
                checksum: partial,
                segmentation: Some(Segmentation { ipv6: true, ecn: true, ..segmentation }),
            },
        ] {
            assert_eq!(read(&write(&meta, 1), 100), Some(meta));
        }
        assert_eq!(write(&FrameMeta { checksum: Checksum::Valid, segmentation: None }, 3)[0], 2);
        assert_eq!(write(&FrameMeta::default(), 0x102)[10..], [2, 1]);
    }

    #[test]
    fn impossible_headers_are_refused() {
        let header = |flags, kind, rest: [u16; 4]| {
            let mut header = [0; BYTES];
            (header[0], header[1]) = (flags, kind);
            rest.iter()
                .enumerate()
                .for_each(|(i, v)| header[2 + 2 * i..4 + 2 * i].copy_from_slice(&v.to_le_bytes()));
            read(&header, 100)
        };
        assert!(header(1, 0, [0, 0, 82, 16]).is_some());
        assert!(header(1, 0, [0, 0, 83, 16]).is_none());
        assert!(header(1, 0, [0, 0, u16::MAX, u16::MAX]).is_none());
        assert!(header(0, 1, [54, 1460, 34, 16]).is_none());
        assert!(header(1, 1, [54, 0, 34, 16]).is_none());
        assert!(header(1, 3, [54, 1460, 34, 6]).is_none()); // UDP fragmentation
        assert!(header(1, 5, [54, 1460, 34, 6]).is_none()); // UDP segmentation
    }
}
