//! Any frames of a guest are survived by user-mode networking, and its answers are frames.
#![no_main]

use isomer_devices::backend::net::{
    Checksum, FrameMeta, MacAddr, NetBackend, Offloads, Segmentation, UserNet, UserNetOptions,
};
use isomer_fuzz::{
    frames::{MAC, frames, tether},
    input::Input,
    seeds,
};
use libfuzzer_sys::fuzz_target;

/// Bytes of damage to a frame.
const MAX_DAMAGE: usize = 8;

fn meta(input: &mut Input<'_>) -> FrameMeta {
    match input.u8() % 8 {
        0 => {
            let checksum = Checksum::Partial { start: input.u16(), offset: input.u16() };
            let (ipv6, size, header_len) = (input.flag(), input.u16(), input.u16());
            FrameMeta { checksum, segmentation: Some(Segmentation { ipv6, size, header_len, ecn: false }) }
        }
        // A checksum left open counts as right, so that damaged frames get further.
        1..=5 => FrameMeta { checksum: Checksum::Partial { start: 34, offset: 16 }, segmentation: None },
        _ => FrameMeta::default(),
    }
}

fuzz_target!(
    init: seeds::plant([("each", [0].into_iter().chain((0..12).flat_map(|frame| [6, frame, 0, 0])).collect())]),
    |data: &[u8]| {
        let mut input = Input::new(data);
        let flags = input.u8();
        let options = UserNetOptions {
            mac: MacAddr(MAC),
            restrict: flags & 1 != 0,
            dns: "127.0.0.1:9".parse().ok(),
            publish: Vec::new(),
        };
        let mut net = UserNet::new(&options).expect("the host has a few descriptors");
        let taken = flags & 2 != 0;
        net.set_guest_offloads(Offloads { checksum: taken, tso4: taken, tso6: taken });
        let known = frames();
        let mut answer = Vec::new();
        while !input.is_empty() {
            let meta = meta(&mut input);
            let mut frame = match known.get(usize::from(input.u8() % 16)) {
                Some(frame) => frame.clone(),
                None => {
                    let len = usize::from(input.u8());
                    input.take(len).to_vec()
                }
            };
            for _ in 0..usize::from(input.u8()) % MAX_DAMAGE {
                let at = input.below(frame.len());
                if let Some(byte) = frame.get_mut(at) {
                    *byte = input.u8();
                }
            }
            tether(&mut frame);
            net.send(&meta, &mut frame);
            net.poll(false);
            while let Some(meta) = net.receive(&mut answer) {
                assert!(answer.len() >= 42, "{answer:x?}");
                assert!(taken || meta == FrameMeta::default(), "{meta:?}");
            }
            if input.u8() == 0xff {
                net.reset();
            }
        }
    }
);
