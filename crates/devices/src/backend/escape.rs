//! The keys that speak to the emulator instead of the guest: Ctrl-A, then a letter.

/// The usual escape key.
pub const CTRL_A: u8 = 0x01;

/// What a user asked for with the escape key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsoleCommand {
    /// Ctrl-A x: leave.
    Quit,
    /// Ctrl-A h or ?: show the keys.
    Help,
    /// Ctrl-A c: switch between console and monitor.
    Monitor,
    /// Ctrl-A e: the next engine.
    Engine,
}

/// The keys, for help texts.
pub const KEYS: &[(&str, &str)] = &[
    ("Ctrl-A x", "leave"),
    ("Ctrl-A c", "show the machine's status"),
    ("Ctrl-A e", "go on with the next engine"),
    ("Ctrl-A h", "show these keys"),
    ("Ctrl-A Ctrl-A", "send Ctrl-A"),
];

/// What becomes of one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It goes to the guest.
    Pass(u8),
    /// It is part of a sequence, or of one that means nothing.
    Swallow,
    /// It completes a command.
    Command(ConsoleCommand),
}

/// Finds escape sequences in a stream of bytes.
#[derive(Clone, Debug)]
pub struct EscapeFilter {
    key: u8,
    pending: bool,
}

impl Default for EscapeFilter {
    fn default() -> Self {
        Self::new(CTRL_A)
    }
}

impl EscapeFilter {
    /// A filter with `key` as the escape key.
    pub const fn new(key: u8) -> Self {
        Self { key, pending: false }
    }

    /// Takes the next byte.
    pub fn feed(&mut self, byte: u8) -> Step {
        if !self.pending {
            self.pending = byte == self.key;
            return if self.pending { Step::Swallow } else { Step::Pass(byte) };
        }
        self.pending = false;
        match byte {
            b if b == self.key => Step::Pass(b),
            b'x' | b'X' => Step::Command(ConsoleCommand::Quit),
            b'h' | b'H' | b'?' => Step::Command(ConsoleCommand::Help),
            b'c' | b'C' => Step::Command(ConsoleCommand::Monitor),
            b'e' | b'E' => Step::Command(ConsoleCommand::Engine),
            _ => Step::Swallow,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(input: &[u8]) -> (Vec<u8>, Vec<ConsoleCommand>) {
        let (mut filter, mut passed, mut commands) = (EscapeFilter::default(), vec![], vec![]);
        for &byte in input {
            match filter.feed(byte) {
                Step::Pass(b) => passed.push(b),
                Step::Swallow => {}
                Step::Command(c) => commands.push(c),
            }
        }
        (passed, commands)
    }

    #[test]
    fn sequences_are_found_and_the_rest_passes() {
        use ConsoleCommand::*;
        assert_eq!(run(b"ls\r"), (b"ls\r".to_vec(), vec![]));
        assert_eq!(run(b"a\x01xb"), (b"ab".to_vec(), vec![Quit]));
        assert_eq!(run(b"\x01h\x01c\x01e\x01?"), (vec![], vec![Help, Monitor, Engine, Help]));
        assert_eq!(run(b"\x01\x01x"), (b"\x01x".to_vec(), vec![]));
        assert_eq!(run(b"\x01qx"), (b"x".to_vec(), vec![]));
        assert_eq!(run(b"\x01\x01\x01\x01"), (b"\x01\x01".to_vec(), vec![]));
    }
}
