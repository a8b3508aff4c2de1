//! One run of one machine: a child process whose standard output is watched for marker lines.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal};

use super::host;
use crate::process;

/// The end of a console that an error shows, in bytes.
const TAIL_BYTES: usize = 2000;

/// A machine that runs, its standard output watched. Dropping it kills it.
pub(crate) struct Running {
    child: Child,
    shown: String,
    output: Receiver<Chunk>,
    errors: Option<JoinHandle<Vec<u8>>>,
    /// All of the standard output so far.
    seen: Vec<u8>,
    /// Where in `seen` the next search begins.
    searched: usize,
    /// Host CPU time at the latest chunk.
    cpu: Duration,
    deadline: Instant,
}

/// Bytes as they came, and the CPU time at that moment.
struct Chunk {
    bytes: Vec<u8>,
    cpu: Result<Duration>,
}

impl Running {
    /// Starts a machine, its standard input open. One that makes us wait beyond `limit` is in error.
    pub(crate) fn start(mut command: Command, limit: Duration) -> Result<Self> {
        let shown = process::describe(&command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start `{shown}`"))?;
        let stdout = child.stdout.take().context("a pipe was asked for")?;
        let errors = child.stderr.take().map(process::read_to_end);
        let (sender, output) = mpsc::channel();
        let pid = child.id();
        thread::spawn(move || send_chunks(stdout, pid, &sender));
        let deadline = Instant::now() + limit;
        let cpu = Duration::ZERO;
        Ok(Self { child, shown, output, errors, seen: Vec::new(), searched: 0, cpu, deadline })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Types a line into the machine's console; from now on there is `limit` for what is awaited.
    pub(crate) fn type_line(&mut self, line: &str, limit: Duration) -> Result<()> {
        self.deadline = Instant::now() + limit;
        let stdin = self.child.stdin.as_mut().context("a pipe was asked for")?;
        stdin
            .write_all(format!("{line}\n").as_bytes())
            .with_context(|| format!("cannot type into `{}`", self.shown))
    }

    /// Waits until the machine prints `marker` and returns the process's host CPU time at that moment.
    pub(crate) fn wait_for(&mut self, marker: &str) -> Result<Duration> {
        let is_marker = |bytes: &[u8]| bytes == marker.as_bytes();
        loop {
            if let Some(at) = self.seen[self.searched..].windows(marker.len()).position(is_marker) {
                self.searched += at + marker.len();
                return Ok(self.cpu);
            }
            self.receive(marker)?;
        }
    }

    /// What follows on the line of the marker found last.
    pub(crate) fn rest_of_line(&mut self) -> Result<String> {
        loop {
            let rest = &self.seen[self.searched..];
            if let Some(len) = rest.iter().position(|byte| *byte == b'\n') {
                return Ok(String::from_utf8_lossy(&rest[..len]).trim().to_owned());
            }
            self.receive("the end of a line")?;
        }
    }

    fn receive(&mut self, awaited: &str) -> Result<()> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let why = match self.output.recv_timeout(left) {
            Ok(chunk) => {
                self.seen.extend(chunk.bytes);
                self.cpu = chunk.cpu?;
                return Ok(());
            }
            Err(RecvTimeoutError::Timeout) => "was too slow to print",
            Err(RecvTimeoutError::Disconnected) => "ended before it printed",
        };
        let console =
            String::from_utf8_lossy(&self.seen[self.seen.len().saturating_sub(TAIL_BYTES)..]).into_owned();
        let errors = self.end()?;
        bail!("`{}` {why} {awaited:?}; the end of its output:\n{console}\n{errors}", self.shown)
    }

    /// Stops the machine by SIGTERM and returns what it wrote to standard error.
    pub(crate) fn stop(mut self) -> Result<String> {
        rustix::process::kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let patience = Instant::now() + Duration::from_secs(10);
        while self.child.try_wait()?.is_none() && Instant::now() < patience {
            thread::sleep(Duration::from_millis(5));
        }
        self.end()
    }

    /// Makes sure that the machine has ended; what it wrote to standard error.
    fn end(&mut self) -> Result<String> {
        if self.child.try_wait()?.is_none() {
            self.child.kill()?;
            self.child.wait()?;
        }
        let errors = self.errors.take().and_then(|reader| reader.join().ok()).unwrap_or_default();
        Ok(String::from_utf8_lossy(&errors).into_owned())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Nobody is left to tell an error to.
        let _ = self.end();
    }
}

fn send_chunks(mut stdout: impl Read, pid: u32, sender: &Sender<Chunk>) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(len @ 1..) = stdout.read(&mut buffer) {
        let chunk = Chunk { bytes: buffer[..len].to_vec(), cpu: host::cpu_time(pid) };
        // Read on to the end when nobody listens any more: a full pipe would stop the machine.
        let _ = sender.send(chunk);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Result<Running> {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Running::start(command, Duration::from_secs(20))
    }

    #[test]
    fn markers_are_found_in_order_with_the_cpu_time_of_their_moment() -> Result<()> {
        let work = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";
        let mut running =
            shell(&format!("echo noise; echo ONE; {work}; echo 'TWO 2a'; printf prompt; read never"))?;
        let one = running.wait_for("ONE")?;
        let two = running.wait_for("TWO")?;
        assert_eq!(running.rest_of_line()?, "2a");
        assert!(two - one >= Duration::from_millis(20), "{one:?} {two:?}");
        running.wait_for("prompt")?;
        running.stop()?;
        Ok(())
    }

    #[test]
    fn what_is_typed_reaches_the_machine() -> Result<()> {
        let mut running = shell("while read row; do echo \"got $row\"; done")?;
        for row in ["one", "two"] {
            running.type_line(row, Duration::from_secs(20))?;
            running.wait_for("got ")?;
            assert_eq!(running.rest_of_line()?, row);
        }
        running.type_line("three", Duration::ZERO)?;
        let error = running.wait_for("never").unwrap_err().to_string();
        assert!(error.contains("too slow"), "{error}");
        Ok(())
    }

    #[test]
    fn a_machine_that_ends_early_is_an_error_that_shows_what_it_said() -> Result<()> {
        let error = shell("echo console; echo reason >&2")?.wait_for("BEGIN").unwrap_err().to_string();
        assert!(error.contains("ended before it printed \"BEGIN\""), "{error}");
        assert!(error.contains("console") && error.contains("reason"), "{error}");
        Ok(())
    }
}
