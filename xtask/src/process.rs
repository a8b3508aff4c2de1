//! Running other programs: the command line stands in every error, and its output is never lost.

use std::ffi::OsStr;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Runs a program to its end with our own standard streams; fails unless it exits with 0.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = describe(command);
    let status = command.status().with_context(|| format!("cannot start `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` failed: {status}");
    }
    Ok(())
}

/// Runs a program and returns what it wrote to standard output, without the trailing newline.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let shown = describe(command);
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start `{shown}`"))?;
    if !output.status.success() {
        bail!("`{shown}` failed: {}", output.status);
    }
    let text = String::from_utf8(output.stdout).with_context(|| format!("`{shown}` did not write UTF-8"))?;
    Ok(text.trim_end_matches('\n').to_owned())
}

/// Runs two programs, the first one's standard output into the second; fails unless both exit with 0.
pub(crate) fn pipe(from: &mut Command, into: &mut Command) -> Result<()> {
    let shown = describe(from);
    let mut source =
        from.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start `{shown}`"))?;
    let output = source.stdout.take().context("a pipe was asked for")?;
    let sunk = run(into.stdin(output));
    let status = source.wait().with_context(|| format!("cannot wait for `{shown}`"))?;
    sunk?;
    if !status.success() {
        bail!("`{shown}` failed: {status}");
    }
    Ok(())
}

/// Runs a program with nothing on its standard input and returns what it wrote and how it ended, whatever that is.
/// One that has not ended by `limit` is killed, which is an error.
pub(crate) fn output_within(command: &mut Command, limit: Duration) -> Result<Output> {
    let shown = describe(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{shown}`"))?;
    // Read while the program runs, so that a full pipe does not stop it.
    let stdout = child.stdout.take().map(read_to_end);
    let stderr = child.stderr.take().map(read_to_end);
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if start.elapsed() > limit {
            child.kill().with_context(|| format!("cannot kill `{shown}`"))?;
            child.wait()?;
            bail!("`{shown}` had not ended after {} s, and was killed", limit.as_secs());
        }
        thread::sleep(Duration::from_millis(20));
    };
    let collect =
        |reader: Option<JoinHandle<Vec<u8>>>| reader.and_then(|r| r.join().ok()).unwrap_or_default();
    Ok(Output { status, stdout: collect(stdout), stderr: collect(stderr) })
}

/// Reads a stream to its end on a thread of its own.
pub(crate) fn read_to_end(mut stream: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What came before an error is still worth showing.
        let _ = stream.read_to_end(&mut bytes);
        bytes
    })
}

/// Whether a program of this name stands in a directory of `PATH`.
pub(crate) fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| is_file(&directory.join(program)))
}

fn is_file(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file())
}

/// A command line, for people.
pub(crate) fn describe(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}
