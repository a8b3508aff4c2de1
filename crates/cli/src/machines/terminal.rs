//! Sitting at a terminal of a machine: its console, or a shell.

use super::{BOOT_LIMIT, MachineError, Named, at_terminal, client::Client, control::Request};
use isomer_devices::backend::{ConsoleCommand, EscapeFilter, RawMode, escape::Step, terminal_size};
use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// Connects this terminal with the machine's console.
pub(super) fn console(machine: &Named) -> Result<u8, MachineError> {
    let mut client = Client::connect(machine)?;
    client.request(&Request::Console)?;
    if at_terminal() {
        crate::report::note(&format!(
            "isomer: the console of {}. Ctrl-A x leaves it; the machine goes on",
            machine.name
        ));
    }
    carry(client.into_stream(), || false)?;
    Ok(0)
}

/// A shell in the guest with a terminal of its own; its exit code.
pub(super) fn shell(machine: &Named) -> Result<u8, MachineError> {
    let mut agent = Client::connect(machine)?;
    agent.wait_for_agent(BOOT_LIMIT)?;
    let mut client = Client::connect(machine)?;
    let terminal = client.request(&Request::Terminal)?;
    let device = terminal.get("device").and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
    let (columns, rows) = terminal_size(rustix::stdio::stdout()).unwrap_or((80, 24));
    let term = std::env::var("TERM").ok().filter(|term| term.bytes().all(|byte| byte.is_ascii_graphic()));
    // A session's first terminal becomes the one that controls it, so job control works.
    let script = format!(
        "exec <{device} >{device} 2>&1; stty sane rows {rows} cols {columns}; cd \"$HOME\"; \
         TERM='{}' exec ${{SHELL:-bash}} -l",
        term.as_deref().unwrap_or("vt220").replace('\'', "")
    );
    let pid = agent.start("/usr/bin/setsid", &["--wait", "/bin/sh", "-c", &script])?;
    let ended = Arc::new(AtomicBool::new(false));
    let code = Arc::new(std::sync::Mutex::new(Ok(None)));
    let watcher = {
        let (ended, code, device) = (ended.clone(), code.clone(), device.clone());
        let mut size = (columns, rows);
        thread::spawn(move || {
            while !ended.load(Ordering::Acquire) {
                let outcome = agent.ended(pid);
                if !matches!(outcome, Ok(None)) {
                    *code.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = outcome;
                    // What the shell said last is on its way.
                    thread::sleep(Duration::from_millis(100));
                    ended.store(true, Ordering::Release);
                    return agent;
                }
                let now = terminal_size(rustix::stdio::stdout()).unwrap_or(size);
                if now != size {
                    size = now;
                    let (columns, rows) = (now.0.to_string(), now.1.to_string());
                    let _ = agent.start("/bin/stty", &["-F", &device, "rows", &rows, "cols", &columns]);
                }
                thread::sleep(Duration::from_millis(150));
            }
            agent
        })
    };
    let carried = carry(client.into_stream(), || ended.load(Ordering::Acquire));
    ended.store(true, Ordering::Release);
    let agent = watcher.join();
    let code =
        std::mem::replace(&mut *code.lock().unwrap_or_else(std::sync::PoisonError::into_inner), Ok(None));
    carried?;
    match code? {
        Some(code) => Ok(code),
        None => {
            // Left while it ran: nobody will read its terminal any more.
            if let Ok(mut agent) = agent {
                let name = device.trim_start_matches("/dev/").to_owned();
                let _ = agent.start("/usr/bin/pkill", &["-HUP", "-t", &name]);
            }
            Ok(0)
        }
    }
}

/// Carries bytes both ways until the machine's side ends, the user leaves, or `ended` says so. Without a terminal, the
/// end of input ends nothing: whoever reads the output decides.
fn carry(stream: UnixStream, ended: impl Fn() -> bool) -> Result<(), MachineError> {
    let failed = |source| MachineError::Output { source };
    let raw = match at_terminal() {
        true => {
            Some(RawMode::enter(rustix::stdio::stdin()).map_err(|source| MachineError::Input { source })?)
        }
        false => None,
    };
    let input = stream.try_clone().map_err(failed)?;
    let escape = raw.is_some().then(EscapeFilter::default);
    let left = Arc::new(AtomicBool::new(false));
    let leaving = left.clone();
    // It waits for standard input for ever, so nobody waits for it.
    thread::spawn(move || {
        if type_in(input, escape).is_ok_and(|asked| asked) {
            leaving.store(true, Ordering::Release);
        }
    });
    stream.set_read_timeout(Some(Duration::from_millis(50))).map_err(failed)?;
    let mut stream_in = stream;
    let mut block = [0; 4096];
    loop {
        if left.load(Ordering::Acquire) {
            return Ok(());
        }
        match stream_in.read(&mut block) {
            Ok(0) => return Ok(()),
            Ok(count) => {
                let mut out = io::stdout().lock();
                out.write_all(&block[..count]).and_then(|()| out.flush()).map_err(failed)?;
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                if ended() {
                    return Ok(());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Ok(()),
        }
    }
}

/// Sends what is typed; `true`: the user wants to leave.
fn type_in(mut out: UnixStream, mut escape: Option<EscapeFilter>) -> io::Result<bool> {
    let mut stdin = io::stdin().lock();
    let mut block = [0; 4096];
    loop {
        let count = match stdin.read(&mut block) {
            Ok(0) => return Ok(false),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let mut typed = Vec::with_capacity(count);
        for &byte in &block[..count] {
            match escape.as_mut().map_or(Step::Pass(byte), |escape| escape.feed(byte)) {
                Step::Pass(byte) => typed.push(byte),
                Step::Command(ConsoleCommand::Quit) => return Ok(true),
                Step::Command(_) => crate::report::note("\r\nCtrl-A x: leave; Ctrl-A Ctrl-A: send Ctrl-A"),
                Step::Swallow => {}
            }
        }
        out.write_all(&typed)?;
    }
}
