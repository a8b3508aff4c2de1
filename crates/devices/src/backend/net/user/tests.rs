//! Tests of the NAT: a guest whose stack is smoltcp, and servers on the host's loopback.

mod garbage;
mod guest;
mod services;
mod tcp;

use self::guest::Guest;
use super::*;

const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0x12, 0x34, 0x56]);

/// A network that leads everywhere.
fn open() -> UserNetOptions {
    UserNetOptions { mac: MAC, ..UserNetOptions::default() }
}
