//! Any FUSE requests on virtio-fs: no crash, no hang, every answer well formed, nothing outside the share touched.
#![no_main]

use isomer_devices::virtio::fs::{FsOptions, VirtioFs};
use isomer_fuzz::{
    input::Input,
    share::{Client, Playground, name},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let playground = Playground::new();
    let options = FsOptions { host_locks: true, ..FsOptions::default() };
    let mut client = Client::new(VirtioFs::new(playground.share(), &options), 1);
    let init: Vec<u8> = [7u32, 38, 65536, u32::MAX].iter().flat_map(|word| word.to_le_bytes()).collect();
    call(&mut client, 26, 0, &init, 64);
    let mut input = Input::new(data);
    // Numbers that the server gave, to be sent back.
    let mut numbers = vec![1, 0, u64::MAX];
    while !input.is_empty() {
        let (op, node) = (u32::from(input.u8()) % 56, input.pick(&numbers));
        // A wait for a lock ends only when the device does.
        let op = if op == 33 { 32 } else { op };
        let mut args = Vec::new();
        for _ in 0..input.below(8) {
            match input.u8() % 4 {
                0 => args.extend(input.pick(&numbers).to_le_bytes()),
                1 => args.extend((input.number() as u32).to_le_bytes()),
                2 => args.extend(input.number().to_le_bytes()),
                _ => args.extend([name(&mut input), &[0]].concat()),
            }
        }
        let room = input.number() as usize % 5000;
        let answer = call(&mut client, op, node, &args, room);
        for at in [0, 128] {
            if numbers.len() < 40
                && let Some(number) = answer.get(at..at + 8)
            {
                numbers.push(number.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)));
            }
        }
    }
    playground.check();
});

/// The body of the answer to a request, which is checked.
fn call(client: &mut Client<VirtioFs>, op: u32, node: u64, args: &[u8], room: usize) -> Vec<u8> {
    let mut request = Vec::new();
    request.extend((40 + args.len() as u32).to_le_bytes());
    request.extend(op.to_le_bytes());
    request.extend(0x55u64.to_le_bytes());
    request.extend(node.to_le_bytes());
    request.extend([0; 16]);
    request.extend(args);
    let answer = client.call(&request, 16 + room);
    if answer.is_empty() {
        return answer;
    }
    assert_eq!(answer[..4], (answer.len() as u32).to_le_bytes(), "the length of the answer to {op}");
    assert_eq!(answer[8], 0x55, "the answer is to another request");
    answer[16..].to_vec()
}
