//! Named image `debian`: assembled by the recipe, and booted once so that its packages set themselves up.

use crate::progress::Shown;
use isomer_devices::backend::{CharOutput, InputWaker};
use isomer_images::{
    Client, Entry, ImageError, Progress, Store, Unit,
    debian::{self, Assembled, DONE, FAILED, Mirror},
};
use isomer_machine::{Arch, Boot, DiskSpec, Host, Machine, MachineError, Outcome, Spec};
use miette::Diagnostic;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// The image's name.
pub(crate) const NAME: &str = "debian";
/// How long the second stage may take.
const LIMIT: Duration = Duration::from_secs(3600);
/// RAM for it.
const MEMORY_BYTES: u64 = 1 << 30;
/// Lines of the console that are shown when something went wrong.
const SHOWN_LINES: usize = 20;

/// Why there is no image.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub(crate) enum PullError {
    #[error(transparent)]
    #[diagnostic(transparent)]
    Image(#[from] ImageError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Machine(#[from] MachineError),
    #[error("the host refuses an event descriptor: {0}")]
    #[diagnostic(code(isomer::cli::host), help("raise the limit on open files (ulimit -n)"))]
    Host(std::io::Error),
    #[error("the packages could not be set up: {why}\n{console}")]
    #[diagnostic(
        code(isomer::image::second_stage),
        help("the guest's last lines are above; try again, and please report it if it fails again")
    )]
    SecondStage { why: String, console: String },
}

/// Makes the newest Debian and keeps it.
pub(crate) fn pull(
    store: &Store,
    client: &Client,
    mirror: &Mirror,
    arch: &str,
    progress: &Shown,
) -> Result<Entry, PullError> {
    let assembled = debian::assemble(store, client, mirror, NAME, arch, progress)?;
    set_up(&assembled, arch, progress)?;
    progress.begin("Computing digests", None, Unit::Items);
    let entry = store.commit(assembled.draft, assembled.manifest)?;
    progress.end();
    Ok(entry)
}

/// The second stage: boots the disk until it powers off.
fn set_up(assembled: &Assembled, arch: &str, progress: &Shown) -> Result<(), PullError> {
    let draft = &assembled.draft;
    let spec = Spec {
        arch: Arch::by_name(arch).unwrap_or_default(),
        memory_bytes: MEMORY_BYTES,
        boot: Boot::Files { kernel: Some(draft.kernel()), initrd: Some(draft.initrd()), firmware: None },
        append: Some(format!("console=hvc0 {}", Assembled::SECOND_STAGE)),
        disks: vec![DiskSpec {
            path: draft.disk(Assembled::FORMAT),
            format: Some(isomer_devices::backend::ImageFormat::Raw),
            ..DiskSpec::default()
        }],
        ..Spec::default()
    };
    progress.begin("Setting up packages in the guest", Some(assembled.packages as u64), Unit::Items);
    let heard = Arc::new(Mutex::new(Vec::new()));
    let host = Host {
        console: Box::new(Listener { heard: heard.clone(), line: Vec::new() }),
        streams: None,
        waker: InputWaker::new().map_err(PullError::Host)?,
        ports: Vec::new(),
    };
    let mut machine = Machine::new(&spec, host)?;
    machine.start()?;
    let mut watch = Watch::default();
    let stop = machine.stopper();
    let outcome = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| machine.wait(Some(Instant::now() + LIMIT)));
        while !waiting.is_finished() {
            std::thread::sleep(Duration::from_millis(100));
            watch.look(&heard, progress);
            // Its init could not power off, or fell into a shell: nothing more will come.
            if watch.ended.is_some_and(|at| at.elapsed() > Duration::from_secs(20)) {
                stop();
            }
        }
        waiting.join()
    });
    watch.look(&heard, progress);
    progress.end();
    let failed = |why: String| PullError::SecondStage { why, console: watch.last_lines() };
    match outcome {
        Ok(Outcome::PowerOff) if watch.done => Ok(()),
        Ok(Outcome::TimedOut) => Err(failed("it took more than an hour".into())),
        Ok(outcome) => {
            let why = watch.failure.clone();
            Err(failed(
                why.unwrap_or_else(|| format!("the machine ended with {outcome:?} before it was done")),
            ))
        }
        Err(_) => Err(failed("the machine failed".into())),
    }
}

/// Collects the console's lines.
struct Listener {
    heard: Arc<Mutex<Vec<String>>>,
    line: Vec<u8>,
}

/// Longest line that is kept.
const LINE_LIMIT: usize = 1000;

impl CharOutput for Listener {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            match byte {
                b'\n' => {
                    let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).trim_end().to_owned();
                    self.heard.lock().unwrap_or_else(PoisonError::into_inner).push(line);
                }
                _ if self.line.len() < LINE_LIMIT => self.line.push(byte),
                _ => {}
            }
        }
    }
}

/// What the second stage said so far.
#[derive(Default)]
struct Watch {
    last: Vec<String>,
    done: bool,
    failure: Option<String>,
    ended: Option<Instant>,
}

impl Watch {
    fn look(&mut self, heard: &Mutex<Vec<String>>, progress: &Shown) {
        for line in std::mem::take(&mut *heard.lock().unwrap_or_else(PoisonError::into_inner)) {
            tracing::debug!("guest: {line}");
            if let Some(package) = line.strip_prefix("Setting up ") {
                progress.detail(package.split(' ').next().unwrap_or_default());
                progress.advance(1);
            }
            if line == DONE {
                self.done = true;
                self.ended = Some(Instant::now());
            } else if let Some(why) = line.strip_prefix(FAILED) {
                self.failure = Some(why.trim_start_matches(": ").to_owned());
                self.ended = Some(Instant::now());
            }
            self.last.push(line);
            if self.last.len() > SHOWN_LINES {
                self.last.remove(0);
            }
        }
    }

    fn last_lines(&self) -> String {
        self.last.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Format;

    #[test]
    fn the_second_stage_is_judged_by_its_last_word() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let mut listener = Listener { heard: heard.clone(), line: Vec::new() };
        let progress = Shown::new(Format::Json);
        let mut watch = Watch::default();
        listener.write(
            b"Setting up bash (5.2) ...\r\nisomer: the second stage failed: dpkg exited with 1\r\nhalf",
        );
        watch.look(&heard, &progress);
        assert_eq!(watch.failure.as_deref(), Some("dpkg exited with 1"));
        assert!(!watch.done && watch.last_lines().starts_with("Setting up bash"));
        for _ in 0..30 {
            listener.write(&[b'x'; 3000]);
            listener.write(b"\n");
        }
        listener.write(format!("{DONE}\r\n").as_bytes());
        watch.look(&heard, &progress);
        assert!(watch.done && watch.last.len() == SHOWN_LINES && watch.last[0].len() <= LINE_LIMIT);
    }
}
