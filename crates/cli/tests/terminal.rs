//! The built binary at a terminal: raw mode and its end, the escape key, the window's size.

use rustix::{
    fs::{Mode, OFlags},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize},
};
use std::{
    fs::File,
    io::{Read, Write},
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::{Duration, Instant},
};

/// A guest that has not answered by then hangs; it takes seconds.
const LIMIT: Duration = Duration::from_secs(120);

/// A pseudo-terminal with `isomer` at it.
struct Session {
    keys: File,
    terminal: OwnedFd,
    seen: Arc<(Mutex<String>, Condvar)>,
    child: Child,
}

impl Session {
    fn start(args: &[&str]) -> Self {
        let main = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&main).unwrap();
        unlockpt(&main).unwrap();
        let name = ptsname(&main, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let terminal = rustix::fs::open(name, flags, Mode::empty()).unwrap();
        set_size(&main, 100, 40);
        let stdio = || Stdio::from(terminal.try_clone().unwrap());
        let child = Command::new(env!("CARGO_BIN_EXE_isomer"))
            .args(args)
            .env("NO_COLOR", "1")
            .env_remove("ISOMER_LOG")
            .env_remove("RUST_LOG")
            .stdin(stdio())
            .stdout(stdio())
            .stderr(stdio())
            .spawn()
            .unwrap();
        let seen = Arc::<(Mutex<String>, Condvar)>::default();
        let (mut screen, copy) = (File::from(main.try_clone().unwrap()), seen.clone());
        thread::spawn(move || {
            let mut block = [0; 4096];
            while let Ok(count @ 1..) = screen.read(&mut block) {
                copy.0.lock().unwrap().push_str(&String::from_utf8_lossy(&block[..count]));
                copy.1.notify_all();
            }
        });
        Self { keys: main.into(), terminal, seen, child }
    }

    fn press(&mut self, keys: &[u8]) {
        self.keys.write_all(keys).unwrap();
    }

    /// Waits for `text` and forgets everything up to its end.
    #[track_caller]
    fn expect(&self, text: &str) {
        let screen = self.seen.0.lock().unwrap();
        let (mut screen, timeout) =
            self.seen.1.wait_timeout_while(screen, LIMIT, |screen| !screen.contains(text)).unwrap();
        assert!(!timeout.timed_out(), "no {text:?} in {screen:?}");
        let end = screen.find(text).unwrap() + text.len();
        screen.drain(..end);
    }

    fn echoes(&self) -> bool {
        tcgetattr(&self.terminal).unwrap().local_modes.contains(LocalModes::ECHO)
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    /// Waits for the end and returns the exit code.
    fn end(&mut self) -> Option<i32> {
        let deadline = Instant::now() + LIMIT;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("isomer does not end: {:?}", self.seen.0.lock().unwrap());
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn set_size(main: &OwnedFd, columns: u16, rows: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(main, size).unwrap();
}

#[test]
fn a_shell_has_the_keys_and_the_size_of_the_terminal() {
    let mut session = Session::start(&["run"]);
    session.expect("riscv64 on ");
    session.expect("# ");
    assert!(!session.echoes());
    session.press(b"echo $((6 * 7))-$(uname -m)\r");
    session.expect("42-riscv64");
    session.expect("# ");
    session.press(b"\x01h");
    session.expect("isomer: Ctrl-A x: leave");
    session.press(b"\x01c");
    session.expect("isomer: riscv64 on ");
    session.expect("running for ");
    // The guest's own Ctrl-C, not ours.
    session.press(b"sleep 1000\r");
    thread::sleep(Duration::from_millis(500));
    session.press(b"\x03");
    session.expect("# ");
    session.press(b"stty size\r");
    session.expect("40 100");
    let main: OwnedFd = session.keys.try_clone().unwrap().into();
    set_size(&main, 132, 50);
    session.signal("WINCH");
    thread::sleep(Duration::from_millis(500));
    session.press(b"stty size\r");
    session.expect("50 132");
    session.press(b"exit\r");
    assert_eq!(session.end(), Some(0));
    assert!(session.echoes());
}

#[test]
fn the_escape_key_leaves_and_restores_the_terminal() {
    let mut session = Session::start(&["run"]);
    session.expect("# ");
    session.press(b"\x01x");
    assert_eq!(session.end(), Some(0));
    assert!(session.echoes());
}

#[test]
fn signals_and_time_limits_restore_the_terminal() {
    let mut session = Session::start(&["run"]);
    session.expect("# ");
    session.signal("TERM");
    assert_eq!(session.end(), Some(143));
    assert!(session.echoes());
    let mut session = Session::start(&["run", "--timeout", "2s"]);
    session.expect("isomer::run::timeout");
    assert_eq!(session.end(), Some(124));
    assert!(session.echoes());
}

#[test]
fn errors_leave_the_terminal_alone() {
    let mut session = Session::start(&["run", "--cpus", "0"]);
    session.expect("isomer::machine::cpus");
    assert_eq!(session.end(), Some(1));
    assert!(session.echoes());
}
