//! What `--net` and `--publish` ask for.

use isomer_devices::backend::net::{MacAddr, Publish, Transport};
use isomer_machine::{NetSpec, Network};
use std::net::{IpAddr, SocketAddr};

/// One `--net`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NetArg {
    /// No card at all.
    None,
    /// A card.
    Card(NetSpec),
}

/// Options of a card by user-mode networking.
const USER_OPTIONS: &str = "restrict, dns=ADDRESS[:PORT], mac=ADDRESS or model=virtio";

/// `user[,restrict][,dns=ADDRESS][,mac=ADDRESS][,model=MODEL]`, `tap=NAME[,mac=ADDRESS]` or `none`.
pub(crate) fn net(text: &str) -> Result<NetArg, String> {
    let mut words = text.split(',');
    let kind = words.next().unwrap_or_default();
    let mut spec = NetSpec::default();
    match kind.split_once('=').unwrap_or((kind, "")) {
        ("none", "") if words.clone().next().is_none() => return Ok(NetArg::None),
        ("none", "") => return Err("`none` has no options".into()),
        ("user", "") => (),
        ("tap", name) if !name.is_empty() => spec.network = Network::Tap { name: name.into() },
        ("tap", _) => return Err("name the interface, as in tap=tap0".into()),
        _ => return Err(format!("`{kind}` is not a network: use user, tap=NAME or none")),
    }
    for word in words {
        option(&mut spec, word)?;
    }
    Ok(NetArg::Card(spec))
}

fn option(spec: &mut NetSpec, word: &str) -> Result<(), String> {
    match (word.split_once('=').unwrap_or((word, "")), &mut spec.network) {
        (("mac", mac), _) => spec.mac = Some(mac.parse::<MacAddr>()?),
        (("model", "virtio"), _) => (),
        (("model", "e1000e"), _) => {
            return Err("the model e1000e is not available in this version: use model=virtio".into());
        }
        (("restrict", ""), Network::User { restrict, .. }) => *restrict = true,
        (("dns", server), Network::User { dns, .. }) => *dns = Some(name_server(server)?),
        (_, Network::User { .. }) => {
            return Err(format!("`{word}` is not an option of user networking: use {USER_OPTIONS}"));
        }
        (_, Network::Tap { .. }) => {
            return Err(format!("`{word}` is not an option of a tap: use mac=ADDRESS"));
        }
    }
    Ok(())
}

/// An address with or without a port.
fn name_server(text: &str) -> Result<SocketAddr, String> {
    let alone = || text.parse::<IpAddr>().map(|address| SocketAddr::new(address, 53));
    text.parse().or_else(|_| alone()).map_err(|_| format!("`{text}` is not the address of a name server"))
}

/// One `--publish`.
pub(crate) fn publish(text: &str) -> Result<Publish, String> {
    let publish: Publish = text.parse()?;
    match publish.host.port() {
        0 => Err("choose a port of the host, as in 8022:22".into()),
        _ => Ok(publish),
    }
}

/// The cards that options ask for: one with user-mode networking, if they do not speak of any.
pub(crate) fn cards(net: &[NetArg], publish: &[Publish]) -> Result<Vec<NetSpec>, &'static str> {
    if net.contains(&NetArg::None) && net.len() > 1 {
        return Err("--net none stands alone");
    }
    let mut cards: Vec<NetSpec> = match net {
        [] => vec![NetSpec::default()],
        some => some
            .iter()
            .filter_map(|arg| if let NetArg::Card(spec) = arg { Some(spec.clone()) } else { None })
            .collect(),
    };
    for (index, one) in publish.iter().enumerate() {
        let same = |other: &Publish| {
            (other.host, other.transport == Transport::Udp) == (one.host, one.transport == Transport::Udp)
        };
        if publish[..index].iter().any(same) {
            return Err("--publish names the same port of the host twice");
        }
    }
    if publish.is_empty() {
        return Ok(cards);
    }
    let user = cards.iter_mut().find_map(|card| match &mut card.network {
        Network::User { publish, .. } => Some(publish),
        Network::Tap { .. } => None,
    });
    *user.ok_or("--publish goes with user networking, and there is none")? = publish.to_vec();
    Ok(cards)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(text: &str) -> NetSpec {
        match net(text) {
            Ok(NetArg::Card(spec)) => spec,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn networks_are_read() {
        assert_eq!(net("none"), Ok(NetArg::None));
        assert_eq!(card("user"), NetSpec::default());
        let full = card("user,restrict,mac=52:54:00:00:00:01,model=virtio,dns=192.0.2.1");
        assert_eq!(full.mac, Some(MacAddr([0x52, 0x54, 0, 0, 0, 1])));
        let dns = "192.0.2.1:53".parse().ok();
        assert_eq!(full.network, Network::User { restrict: true, dns, publish: Vec::new() });
        assert!(
            matches!(card("user,dns=[::1]:5353").network, Network::User { dns: Some(dns), .. } if dns.port() == 5353)
        );
        assert_eq!(card("tap=tap0,mac=52:54:00:00:00:01").network, Network::Tap { name: "tap0".into() });
        for wrong in [
            "",
            "bridge",
            "user=1",
            "none,mac=52:54:00:00:00:01",
            "tap",
            "tap=",
            "tap=t,restrict",
            "user,mac=1",
            "user,dns=example.org",
            "user,restrict=yes",
            "user,",
            "user,model=rtl8139",
            "user,model=e1000e",
        ] {
            assert!(net(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn cards_get_their_ports() {
        let port: Publish = "8022:22".parse().unwrap();
        assert!(publish("8022:22").is_ok() && publish("0:22").is_err() && publish("22").is_err());
        assert_eq!(cards(&[], &[]), Ok(vec![NetSpec::default()]));
        assert_eq!(cards(&[], &[port]).map(|cards| cards.len()), Ok(1));
        assert_eq!(cards(&[NetArg::None], &[]), Ok(Vec::new()));
        let tap = NetArg::Card(card("tap=tap0"));
        let user = NetArg::Card(NetSpec::default());
        let both = cards(&[tap.clone(), user.clone()], &[port]).unwrap();
        assert!(matches!(&both[1].network, Network::User { publish, .. } if publish == &[port]));
        assert!(cards(&[tap], &[port]).is_err() && cards(&[NetArg::None], &[port]).is_err());
        assert!(cards(&[NetArg::None, user], &[]).is_err() && cards(&[], &[port, port]).is_err());
    }
}
