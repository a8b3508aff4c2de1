//! Any 9P2000.L requests on virtio-9p: no crash, no hang, every answer well formed, nothing outside the share touched.
#![no_main]

use isomer_devices::virtio::nine_p::Virtio9p;
use isomer_fuzz::{
    input::Input,
    share::{Client, Playground, name},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let playground = Playground::new();
    let mut client = Client::new(Virtio9p::new(playground.share(), "fuzz"), 0);
    call(&mut client, 100, &[&8192u32.to_le_bytes()[..], &text(b"9P2000.L")].concat(), 100);
    let attach = [&[0; 4][..], &[0xff; 4], &text(b"root"), &text(b""), &[0; 4]].concat();
    call(&mut client, 104, &attach, 100);
    let mut input = Input::new(data);
    while !input.is_empty() {
        let kind = input.u8() & 0x7e;
        let mut args = Vec::new();
        for _ in 0..input.below(10) {
            match input.u8() % 6 {
                // A fid.
                0 => args.extend((input.u8() as u32 % 8).to_le_bytes()),
                1 => args.extend((input.number() as u32).to_le_bytes()),
                2 => args.extend(input.number().to_le_bytes()),
                3 => args.extend((input.u8() as u16 % 20).to_le_bytes()),
                4 => args.push(input.u8()),
                _ => args.extend(text(name(&mut input))),
            }
        }
        let room = input.number() as usize % 9000;
        call(&mut client, kind, &args, room);
    }
    playground.check();
});

fn text(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u16).to_le_bytes()[..], text].concat()
}

/// Sends a request and checks the answer's frame.
fn call(client: &mut Client<Virtio9p>, kind: u8, args: &[u8], room: usize) {
    let size = 7 + args.len() as u32;
    let request = [&size.to_le_bytes()[..], &[kind, 9, 0], args].concat();
    let answer = client.call(&request, 11 + room);
    if !answer.is_empty() {
        assert_eq!(answer[..4], (answer.len() as u32).to_le_bytes(), "the length of the answer to {kind}");
        assert!(answer[4] == 7 || answer[4] == kind + 1, "type {} answers {kind}", answer[4]);
        assert_eq!(answer[5..7], [9, 0], "the answer is to another request");
    }
}
