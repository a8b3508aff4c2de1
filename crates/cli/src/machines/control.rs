//! The socket of a running machine: one JSON object a line, either way. After a request for a terminal the connection
//! is the terminal.
//!
//! The socket's directory is the user's alone, so whoever can connect may do everything.

use super::{
    agent::{AgentError, AgentLink},
    hub::Hub,
};
use crate::signals::{Cause, Control};
use isomer_devices::backend::CharInput;
use isomer_machine::{GuestPort, HostPort, Machine};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// Terminals for `isomer shell`, at most that many at once.
const SHELLS: usize = 4;
/// The name under which QEMU's guest agent looks for its port.
const AGENT_PORT: &str = "org.qemu.guest_agent.0";
/// Longest request: a piece of a file, encoded.
const MOST_REQUEST_BYTES: u64 = 1 << 20;

/// What a client asks for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub(crate) enum Request {
    /// About the process.
    Info,
    /// End the machine at once.
    Stop,
    /// The console.
    Console,
    /// A terminal of one's own.
    Terminal,
    /// Something of the guest's agent.
    Agent { request: Value, limit_ms: u64 },
}

/// What comes back.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Response {
    Ok(Value),
    Error { code: String, message: String },
}

/// A machine that can be reached from outside, through all its resets.
#[derive(Clone)]
pub(crate) struct Served(Arc<Shared>);

struct Shared {
    control: Control,
    /// `None`: the console is a terminal of this process.
    console: Option<Hub>,
    shells: Vec<Hub>,
    agent: AgentLink,
    running: Mutex<Running>,
}

/// The machine that runs now.
#[derive(Default)]
struct Running {
    ports: Vec<GuestPort>,
    console: Option<Arc<dyn CharInput>>,
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Served {
    /// Listens at `socket`, which is the caller's: whatever is there is left from a process that is gone.
    pub(crate) fn listen(socket: &Path, console: Option<Hub>, control: &Control) -> io::Result<Self> {
        match fs::remove_file(socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(socket)?;
        let served = Self(Arc::new(Shared {
            control: control.clone(),
            console,
            shells: (0..SHELLS).map(|_| Hub::terminal()).collect(),
            agent: AgentLink::default(),
            running: Mutex::default(),
        }));
        let server = served.clone();
        thread::Builder::new().name("control".into()).spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = server.clone();
                let serve = move || server.serve(stream);
                if let Err(error) = thread::Builder::new().name("client".into()).spawn(serve) {
                    tracing::warn!("no thread for a client: {error}");
                }
            }
        })?;
        Ok(served)
    }

    /// The ports that a machine gets: the agent's, and terminals.
    pub(crate) fn ports(&self) -> Vec<HostPort> {
        let agent = HostPort { name: Some(AGENT_PORT.into()), output: Box::new(self.0.agent.clone()) };
        let shell = |hub: &Hub| HostPort { name: None, output: Box::new(hub.clone()) };
        std::iter::once(agent).chain(self.0.shells.iter().map(shell)).collect()
    }

    /// `machine` runs from now on.
    pub(crate) fn connect(&self, machine: &Machine) {
        let mut running = lock(&self.0.running);
        running.ports = machine.ports().to_vec();
        running.console = Some(machine.input());
        self.0.agent.connect(running.ports.first().cloned());
    }

    /// It has ended.
    pub(crate) fn disconnect(&self) {
        *lock(&self.0.running) = Running::default();
        self.0.agent.connect(None);
    }

    fn serve(&self, stream: UnixStream) {
        if let Err(error) = self.try_serve(stream) {
            tracing::debug!("a client: {error}");
        }
    }

    fn try_serve(&self, stream: UnixStream) -> io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut out = stream.try_clone()?;
        loop {
            let mut line = String::new();
            if (&mut reader).take(MOST_REQUEST_BYTES).read_line(&mut line)? == 0 {
                return Ok(());
            }
            let request = match serde_json::from_str(&line) {
                Ok(request) => request,
                Err(error) => {
                    return answer(&mut out, &error_of("isomer::machines::request", &error.to_string()));
                }
            };
            match request {
                Request::Info => answer(&mut out, &Response::Ok(self.info()))?,
                Request::Stop => {
                    answer(&mut out, &Response::Ok(Value::Null))?;
                    self.0.control.stop(Cause::User);
                }
                Request::Agent { request, limit_ms } => {
                    let response = match self.0.agent.request(&request, Duration::from_millis(limit_ms)) {
                        Ok(value) => Response::Ok(value),
                        Err(error) => error_of(error.code(), &error.to_string()),
                    };
                    answer(&mut out, &response)?;
                }
                Request::Console => {
                    let Some(hub) = &self.0.console else {
                        let why = "the machine's console is the terminal that it was started from";
                        return answer(&mut out, &error_of("isomer::machines::console_elsewhere", why));
                    };
                    answer(&mut out, &Response::Ok(Value::Null))?;
                    let send = |bytes: &[u8]| {
                        let console = lock(&self.0.running).console.clone();
                        // Between two machines there is nobody to take it.
                        console.map_or(bytes.len(), |console| console.receive(bytes))
                    };
                    return attach(hub, &stream, &mut reader, send);
                }
                Request::Terminal => return self.terminal(&stream, &mut reader),
            }
        }
    }

    fn terminal(&self, stream: &UnixStream, reader: &mut impl Read) -> io::Result<()> {
        let mut out = stream.try_clone()?;
        let free = self.0.shells.iter().position(|hub| !hub.is_attached());
        let Some(index) = free else {
            let why = format!("{SHELLS} shells are open, which is the most");
            return answer(&mut out, &error_of("isomer::machines::shells", &why));
        };
        // The console is hvc0; the agent's port is the first of ours.
        let device = format!("/dev/hvc{}", index + 1);
        answer(&mut out, &Response::Ok(serde_json::json!({ "device": device })))?;
        let send = |bytes: &[u8]| {
            let port = lock(&self.0.running).ports.get(index + 1).cloned();
            port.map_or(bytes.len(), |port| port.send(bytes))
        };
        attach(&self.0.shells[index], stream, reader, send)
    }

    fn info(&self) -> Value {
        serde_json::json!({
            "pid": std::process::id(),
            "agent": self.0.agent.is_there(),
            "engine": self.0.control.engine().map(|engine| engine.name()),
        })
    }
}

/// Carries bytes between a client and a terminal until the client goes.
fn attach(
    hub: &Hub,
    stream: &UnixStream,
    reader: &mut impl Read,
    send: impl Fn(&[u8]) -> usize,
) -> io::Result<()> {
    let Some(number) = hub.attach(stream) else { return Err(io::Error::other("no thread")) };
    let mut block = [0; 4096];
    loop {
        let count = match reader.read(&mut block) {
            Ok(0) | Err(_) => break,
            Ok(count) => count,
        };
        let mut rest = &block[..count];
        while !rest.is_empty() {
            let taken = send(rest).min(rest.len());
            rest = &rest[taken..];
            if !rest.is_empty() {
                // The guest does not read; somebody types, so there is no hurry.
                thread::sleep(Duration::from_millis(5));
            }
        }
    }
    hub.detach(number);
    Ok(())
}

fn error_of(code: &str, message: &str) -> Response {
    Response::Error { code: code.to_owned(), message: message.to_owned() }
}

fn answer(out: &mut UnixStream, response: &Response) -> io::Result<()> {
    let mut line = serde_json::to_vec(response)?;
    line.push(b'\n');
    out.write_all(&line)
}

impl AgentError {
    fn code(&self) -> &'static str {
        match self {
            Self::Absent => "isomer::machines::no_agent",
            Self::Silent => "isomer::machines::agent_silent",
            Self::Refused { .. } => "isomer::machines::agent_refused",
        }
    }
}
