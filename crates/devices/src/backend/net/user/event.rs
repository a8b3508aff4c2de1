//! Which of the NAT's sockets a host event belongs to.

use mio::Token;

/// What a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Ends a wait.
    Waker,
    /// A TCP connection.
    Tcp,
    /// A UDP socket.
    Udp,
    /// Pings.
    Ping,
    /// A published TCP port.
    Listener,
}

const KINDS: [Kind; 5] = [Kind::Waker, Kind::Tcp, Kind::Udp, Kind::Ping, Kind::Listener];

/// The token of socket `id` of a kind. Numbers are never used twice.
pub(super) fn token(kind: Kind, id: usize) -> Token {
    Token(id << 3 | kind as usize)
}

/// What a token stands for.
pub(super) fn meaning(token: Token) -> Option<(Kind, usize)> {
    Some((*KINDS.get(token.0 & 7)?, token.0 >> 3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_keep_their_meaning() {
        for kind in KINDS {
            assert_eq!(meaning(token(kind, 12_345)), Some((kind, 12_345)));
        }
        assert_eq!(meaning(Token(7)), None);
    }
}
