//! Which name server of the host answers the guest's questions: those of `resolv.conf`(5), as it is at the time.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

/// The port of name servers.
pub(super) const PORT: u16 = 53;
/// How often the file is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// Servers that count, as in the C library.
const MAX_SERVERS: usize = 3;

/// The host's resolver.
#[derive(Debug)]
pub(super) struct Resolver {
    /// Given by the user: the file does not matter.
    fixed: bool,
    file: PathBuf,
    servers: Vec<SocketAddr>,
    looked: Option<(Instant, Option<SystemTime>)>,
    current: usize,
}

impl Resolver {
    /// Uses `server`, or those that the host has.
    pub(super) fn new(server: Option<SocketAddr>) -> Self {
        Self {
            fixed: server.is_some(),
            file: "/etc/resolv.conf".into(),
            servers: server.into_iter().collect(),
            looked: None,
            current: 0,
        }
    }

    /// The server to ask now.
    pub(super) fn server(&mut self, now: Instant) -> SocketAddr {
        if !self.fixed && self.looked.is_none_or(|(at, _)| now.duration_since(at) >= LOOK_INTERVAL) {
            self.look(now);
        }
        let local = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PORT);
        self.servers.get(self.current % self.servers.len().max(1)).copied().unwrap_or(local)
    }

    /// The server did not answer: others are asked from now on.
    pub(super) fn next(&mut self) {
        self.current = self.current.wrapping_add(1);
    }

    fn look(&mut self, now: Instant) {
        let changed = fs::metadata(&self.file).and_then(|metadata| metadata.modified()).ok();
        let known = self.looked.is_some_and(|(_, before)| before == changed);
        self.looked = Some((now, changed));
        if !known {
            self.servers = parse(&fs::read_to_string(&self.file).unwrap_or_default());
            self.current = 0;
        }
    }
}

/// The servers that the text of a `resolv.conf` names.
fn parse(text: &str) -> Vec<SocketAddr> {
    let address = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let address = words.next().filter(|word| *word == "nameserver").and(words.next())?;
        address.parse::<IpAddr>().ok()
    };
    text.lines().filter_map(address).map(|address| SocketAddr::new(address, PORT)).take(MAX_SERVERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_read_as_the_c_library_does() {
        let text = "# nameserver 192.0.2.1\nsearch example.org\nnameserver 192.0.2.2\nnameserver  2001:db8::1 # x\n\
                    nameserver what\nnameserver\nnameserver 192.0.2.3\nnameserver 192.0.2.4\n";
        let servers: Vec<String> = parse(text).iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["192.0.2.2:53", "[2001:db8::1]:53", "192.0.2.3:53"]);
        assert!(parse("").is_empty());
    }

    #[test]
    fn changes_are_noticed_and_silent_servers_left() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("resolv.conf");
        let mut resolver = Resolver { file: file.clone(), ..Resolver::new(None) };
        let start = Instant::now();
        assert_eq!(resolver.server(start).to_string(), "127.0.0.1:53");
        fs::write(&file, "nameserver 192.0.2.1\nnameserver 192.0.2.2\n").unwrap();
        assert_eq!(resolver.server(start).to_string(), "127.0.0.1:53");
        let later = start + LOOK_INTERVAL;
        assert_eq!(resolver.server(later).to_string(), "192.0.2.1:53");
        resolver.next();
        assert_eq!(resolver.server(later).to_string(), "192.0.2.2:53");
        resolver.next();
        assert_eq!(resolver.server(later).to_string(), "192.0.2.1:53");
        let mut fixed = Resolver { file, ..Resolver::new(Some("127.0.0.1:5353".parse().unwrap())) };
        assert_eq!(fixed.server(later).to_string(), "127.0.0.1:5353");
    }
}
