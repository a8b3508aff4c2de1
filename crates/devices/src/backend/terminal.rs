//! The user's terminal: raw mode that is always undone, and its size.

use rustix::termios::{
    self, ControlModes, InputModes, LocalModes, OptionalActions, SpecialCodeIndex, Termios,
};
use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{Mutex, MutexGuard, Once, TryLockError},
    time::{Duration, Instant},
};

/// The terminal in raw mode, if one is, and how it was before.
static RAW: Mutex<Option<Saved>> = Mutex::new(None);

struct Saved {
    fd: OwnedFd,
    before: Termios,
    raw: Termios,
}

/// While this lives, the terminal hands every key to the guest. Dropping it, a panic in any thread, and
/// [`restore_terminal`] (for signal handling) bring the old settings back.
#[derive(Debug)]
#[must_use = "raw mode ends when this is dropped"]
pub struct RawMode(());

impl RawMode {
    /// Puts the terminal at `fd` into raw mode. Output processing stays on, so that messages of ours still get their
    /// line ends. Fails if `fd` is no terminal or another one is raw already.
    pub fn enter(fd: impl AsFd) -> io::Result<Self> {
        let fd = rustix::io::fcntl_dupfd_cloexec(fd, 3)?;
        let before = termios::tcgetattr(&fd)?;
        let raw = raw_settings(before.clone());
        let mut saved = lock().ok_or_else(|| io::Error::other("the terminal's settings are busy"))?;
        if saved.is_some() {
            return Err(io::Error::other("a terminal is in raw mode already"));
        }
        termios::tcsetattr(&fd, OptionalActions::Now, &raw)?;
        *saved = Some(Saved { fd, before, raw });
        drop(saved);
        restore_on_panic();
        Ok(Self(()))
    }

    /// Sets raw mode again after the process was stopped and continued (SIGCONT).
    pub fn reapply(&self) -> io::Result<()> {
        match lock().as_deref() {
            Some(Some(saved)) => Ok(termios::tcsetattr(&saved.fd, OptionalActions::Now, &saved.raw)?),
            _ => Ok(()),
        }
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        if let Some(mut saved) = restore() {
            *saved = None;
        }
    }
}

/// Brings the terminal's settings back if they were changed. Safe to call at any time, any number of times, from
/// any thread; never waits long.
pub fn restore_terminal() {
    drop(restore());
}

fn restore() -> Option<MutexGuard<'static, Option<Saved>>> {
    let saved = lock()?;
    if let Some(saved) = &*saved {
        let _ = termios::tcsetattr(&saved.fd, OptionalActions::Now, &saved.before);
    }
    Some(saved)
}

/// The lock, which nobody holds for long; `None` if somebody does.
fn lock() -> Option<MutexGuard<'static, Option<Saved>>> {
    let deadline = Instant::now() + Duration::from_millis(100);
    loop {
        match RAW.try_lock() {
            Ok(guard) => return Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) if Instant::now() > deadline => return None,
            Err(TryLockError::WouldBlock) => std::thread::yield_now(),
        }
    }
}

/// Has a panic restore the terminal before it prints, so that the message is readable.
fn restore_on_panic() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            restore_terminal();
            previous(info);
        }));
    });
}

/// Raw as QEMU's `stdio` is: no echo, no lines, no signals, no flow control; output processing as before.
fn raw_settings(mut settings: Termios) -> Termios {
    settings.input_modes -= InputModes::IGNBRK
        | InputModes::BRKINT
        | InputModes::PARMRK
        | InputModes::ISTRIP
        | InputModes::INLCR
        | InputModes::IGNCR
        | InputModes::ICRNL
        | InputModes::IXON;
    settings.local_modes -=
        LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ICANON | LocalModes::IEXTEN | LocalModes::ISIG;
    settings.control_modes -= ControlModes::CSIZE | ControlModes::PARENB;
    settings.control_modes |= ControlModes::CS8;
    settings.special_codes[SpecialCodeIndex::VMIN] = 1;
    settings.special_codes[SpecialCodeIndex::VTIME] = 0;
    settings
}

/// The terminal's size in characters, `(columns, rows)`; `None` if `fd` is none or does not know.
pub fn terminal_size(fd: impl AsFd) -> Option<(u16, u16)> {
    let size = termios::tcgetwinsize(fd).ok()?;
    (size.ws_col != 0 && size.ws_row != 0).then_some((size.ws_col, size.ws_row))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use rustix::termios::Winsize;

    /// A pseudo-terminal: its controlling and its user's side.
    fn pty() -> (OwnedFd, OwnedFd) {
        let main = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&main).unwrap();
        unlockpt(&main).unwrap();
        let name = ptsname(&main, Vec::new()).unwrap();
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY;
        let user = rustix::fs::open(name, flags, rustix::fs::Mode::empty()).unwrap();
        (main, user)
    }

    fn echoes(fd: &OwnedFd) -> bool {
        termios::tcgetattr(fd).unwrap().local_modes.contains(LocalModes::ECHO)
    }

    /// One test, since the terminal in raw mode is one per process.
    #[test]
    fn raw_mode_is_undone_by_drop_call_and_panic() {
        let (_main, user) = pty();
        assert!(echoes(&user));
        let raw = RawMode::enter(&user).unwrap();
        assert!(!echoes(&user));
        assert!(RawMode::enter(&user).is_err());
        drop(raw);
        assert!(echoes(&user));
        let raw = RawMode::enter(&user).unwrap();
        restore_terminal();
        assert!(echoes(&user));
        raw.reapply().unwrap();
        assert!(!echoes(&user));
        // Another thread's panic does not drop the guard.
        assert!(std::thread::spawn(|| panic!("on purpose")).join().is_err());
        assert!(echoes(&user));
        drop(raw);
        assert!(RawMode::enter(std::fs::File::open("/dev/null").unwrap()).is_err());
    }

    #[test]
    fn sizes_are_read() {
        let (main, user) = pty();
        assert_eq!(terminal_size(&user), None);
        let size = Winsize { ws_row: 50, ws_col: 132, ws_xpixel: 0, ws_ypixel: 0 };
        termios::tcsetwinsize(&main, size).unwrap();
        assert_eq!(terminal_size(&user), Some((132, 50)));
        assert_eq!(terminal_size(std::fs::File::open("/dev/null").unwrap()), None);
    }
}
