//! A running machine from outside: requests over its socket, and its agent's calls.

use super::{
    MachineError,
    control::{Request, Response},
    home::Named,
};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde_json::{Value, json};
use std::{
    io::{self, BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    thread,
    time::{Duration, Instant},
};

/// How long an answer of the agent may take.
const AGENT_LIMIT: Duration = Duration::from_secs(60);
/// Bytes of a file carried at a time.
pub(super) const PIECE_BYTES: usize = 96 << 10;

/// A connection to a running machine.
pub(super) struct Client {
    name: String,
    reader: BufReader<UnixStream>,
    stream: UnixStream,
}

impl Client {
    pub(super) fn connect(machine: &Named) -> Result<Self, MachineError> {
        if !machine.is_running() {
            return Err(MachineError::NotRunning { name: machine.name.clone() });
        }
        let path = machine.socket_path();
        let failed = |source| MachineError::file("connect to", &path, source);
        // It may only just have been started.
        let deadline = Instant::now() + Duration::from_secs(5);
        let stream = loop {
            match UnixStream::connect(&path) {
                Ok(stream) => break stream,
                Err(error) if Instant::now() > deadline => return Err(failed(error)),
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
        };
        let reader = BufReader::new(stream.try_clone().map_err(failed)?);
        Ok(Self { name: machine.name.clone(), reader, stream })
    }

    pub(super) fn request(&mut self, request: &Request) -> Result<Value, MachineError> {
        let gone = |_| MachineError::NotRunning { name: self.name.clone() };
        let mut line = serde_json::to_vec(request).unwrap_or_default();
        line.push(b'\n');
        self.stream.write_all(&line).map_err(gone)?;
        let mut answer = String::new();
        self.reader.read_line(&mut answer).map_err(gone)?;
        match serde_json::from_str(&answer) {
            Ok(Response::Ok(value)) => Ok(value),
            Ok(Response::Error { code, message }) => Err(MachineError::Refused { code, message }),
            Err(_) => Err(MachineError::NotRunning { name: self.name.clone() }),
        }
    }

    /// After a request for a terminal: the terminal.
    pub(super) fn into_stream(self) -> UnixStream {
        self.stream
    }

    /// Asks the agent.
    pub(super) fn agent(&mut self, call: &str, arguments: Value) -> Result<Value, MachineError> {
        let request = json!({ "execute": call, "arguments": arguments });
        let limit_ms = AGENT_LIMIT.as_millis() as u64;
        self.request(&Request::Agent { request, limit_ms })
    }

    /// Waits until the agent answers: a guest that has only just been started needs a while.
    pub(super) fn wait_for_agent(&mut self, limit: Duration) -> Result<(), MachineError> {
        let deadline = Instant::now() + limit;
        loop {
            match self.agent("guest-ping", json!({})) {
                Err(MachineError::Refused { code, .. })
                    if code == "isomer::machines::no_agent" || code == "isomer::machines::agent_silent" =>
                {
                    if Instant::now() > deadline {
                        return Err(MachineError::NoAgent { name: self.name.clone(), waited: limit });
                    }
                    thread::sleep(Duration::from_millis(200));
                }
                answer => return answer.map(drop),
            }
        }
    }

    /// Opens a file in the guest; `mode` as fopen(3) has it.
    pub(super) fn open(&mut self, path: &str, mode: &str) -> Result<i64, MachineError> {
        let handle = self.agent("guest-file-open", json!({ "path": path, "mode": mode }))?;
        handle.as_i64().ok_or_else(|| garbled("guest-file-open"))
    }

    /// The next bytes of a file; none at its end.
    pub(super) fn read(&mut self, handle: i64) -> Result<Vec<u8>, MachineError> {
        let answer = self.agent("guest-file-read", json!({ "handle": handle, "count": PIECE_BYTES }))?;
        let text = answer.get("buf-b64").and_then(Value::as_str).unwrap_or_default();
        BASE64.decode(text).map_err(|_| garbled("guest-file-read"))
    }

    pub(super) fn write(&mut self, handle: i64, bytes: &[u8]) -> Result<(), MachineError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let piece = &rest[..rest.len().min(PIECE_BYTES)];
            let arguments = json!({ "handle": handle, "buf-b64": BASE64.encode(piece) });
            let answer = self.agent("guest-file-write", arguments)?;
            let count =
                answer.get("count").and_then(Value::as_u64).and_then(|count| usize::try_from(count).ok());
            match count {
                Some(count) if count > 0 && count <= piece.len() => rest = &rest[count..],
                _ => return Err(garbled("guest-file-write")),
            }
        }
        Ok(())
    }

    pub(super) fn close(&mut self, handle: i64) -> Result<(), MachineError> {
        self.agent("guest-file-close", json!({ "handle": handle })).map(drop)
    }

    /// Starts a program; its number.
    pub(super) fn start(&mut self, path: &str, arguments: &[&str]) -> Result<i64, MachineError> {
        let environment = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"];
        let request = json!({ "path": path, "arg": arguments, "env": environment });
        let answer = self.agent("guest-exec", request)?;
        answer.get("pid").and_then(Value::as_i64).ok_or_else(|| garbled("guest-exec"))
    }

    /// The exit code of a program, as a shell has it, once it has ended.
    pub(super) fn ended(&mut self, pid: i64) -> Result<Option<u8>, MachineError> {
        let status = self.agent("guest-exec-status", json!({ "pid": pid }))?;
        if status.get("exited").and_then(Value::as_bool) != Some(true) {
            return Ok(None);
        }
        let number = |name: &str| status.get(name).and_then(Value::as_i64);
        let code = match (number("exitcode"), number("signal")) {
            (_, Some(signal)) => 128 + signal,
            (Some(code), None) => code,
            (None, None) => 1,
        };
        Ok(Some(u8::try_from(code).unwrap_or(255)))
    }

    /// Runs a program to its end.
    pub(super) fn run(&mut self, path: &str, arguments: &[&str]) -> Result<u8, MachineError> {
        let pid = self.start(path, arguments)?;
        loop {
            if let Some(code) = self.ended(pid)? {
                return Ok(code);
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

fn garbled(call: &'static str) -> MachineError {
    MachineError::Refused {
        code: "isomer::machines::agent_garbled".into(),
        message: format!("the guest agent's answer to {call} makes no sense"),
    }
}

/// Streams of a command.
pub(super) struct Streams<'a> {
    pub(super) input: Option<&'a mut dyn io::Read>,
    pub(super) stdout: &'a mut dyn io::Write,
    pub(super) stderr: &'a mut dyn io::Write,
}

/// What runs a command with its streams in files, which the agent reads while the command writes them.
const WITH_FILES: &str = r#"f=$1; shift; cd "$HOME" 2>/dev/null; exec "$@" <"$f.in" >>"$f.out" 2>>"$f.err""#;

impl Client {
    /// Runs a command in the guest and carries its output here while it runs; its exit code.
    pub(super) fn exec(&mut self, command: &[String], streams: Streams<'_>) -> Result<u8, MachineError> {
        let unique = format!("{}-{:x}", std::process::id(), now_ns());
        let base = format!("/run/isomer-{unique}");
        let file = |ending: &str| format!("{base}.{ending}");
        let input = self.open(&file("in"), "w")?;
        if let Some(reader) = streams.input {
            let mut block = vec![0; PIECE_BYTES];
            loop {
                match reader.read(&mut block) {
                    Ok(0) => break,
                    Ok(count) => self.write(input, &block[..count])?,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(source) => return Err(MachineError::Input { source }),
                }
            }
        }
        self.close(input)?;
        let handles = [self.open(&file("out"), "w+")?, self.open(&file("err"), "w+")?];
        let mut arguments = vec!["-c", WITH_FILES, "sh", &base];
        arguments.extend(command.iter().map(String::as_str));
        let outcome = self.start("/bin/sh", &arguments).and_then(|pid| {
            let mut pause = Duration::from_millis(5);
            loop {
                // In this order: what a command wrote before its end is there when the end is seen.
                let code = self.ended(pid)?;
                let mut came = self.drain(handles[0], streams.stdout)?;
                came |= self.drain(handles[1], streams.stderr)?;
                if let Some(code) = code {
                    return Ok(code);
                }
                pause =
                    if came { Duration::from_millis(5) } else { (pause * 2).min(Duration::from_millis(100)) };
                thread::sleep(pause);
            }
        });
        // Whatever happened, nothing is left in the guest.
        let names: Vec<_> = ["in", "out", "err"].map(file).to_vec();
        let mut arguments = vec!["-f", "--"];
        arguments.extend(names.iter().map(String::as_str));
        let cleaned = handles
            .iter()
            .try_for_each(|&handle| self.close(handle))
            .and_then(|()| self.start("/bin/rm", &arguments));
        if let Err(error) = cleaned {
            tracing::debug!("leavings in the guest: {error}");
        }
        outcome
    }

    fn drain(&mut self, handle: i64, out: &mut dyn io::Write) -> Result<bool, MachineError> {
        let mut came = false;
        loop {
            let bytes = self.read(handle)?;
            if bytes.is_empty() {
                return Ok(came);
            }
            came = true;
            out.write_all(&bytes)
                .and_then(|()| out.flush())
                .map_err(|source| MachineError::Output { source })?;
            if bytes.len() < PIECE_BYTES {
                return Ok(came);
            }
        }
    }
}

fn now_ns() -> u128 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_nanos())
}
