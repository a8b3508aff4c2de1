//! Progress of long work: bars on a terminal, a line a step elsewhere, nothing where JSON was asked for.

use crate::{args::Format, report};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use isomer_images::{Progress, Unit};
use std::{
    io::{self, IsTerminal},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Shows steps on standard error.
pub(crate) struct Shown {
    how: How,
    bar: Mutex<Option<ProgressBar>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Bars,
    Lines,
    Nothing,
}

impl Shown {
    pub(crate) fn new(format: Format) -> Self {
        let how = match format {
            Format::Json => How::Nothing,
            Format::Text if io::stderr().is_terminal() => How::Bars,
            Format::Text => How::Lines,
        };
        Self { how, bar: Mutex::new(None) }
    }

    fn bar(&self) -> MutexGuard<'_, Option<ProgressBar>> {
        self.bar.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress for Shown {
    fn begin(&self, what: &str, total: Option<u64>, unit: Unit) {
        match self.how {
            How::Nothing => {}
            How::Lines => report::note(&format!("isomer: {what}")),
            How::Bars => {
                let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
                let template = match (total, unit) {
                    (None, Unit::Items) => "{spinner} {prefix} {wide_msg:.dim} {elapsed}",
                    (None, Unit::Bytes) => "{spinner} {prefix} {bytes} {bytes_per_sec} {wide_msg:.dim}",
                    (Some(_), Unit::Items) => "{prefix} [{bar:30}] {pos}/{len} {wide_msg:.dim} {elapsed}",
                    (Some(_), Unit::Bytes) => {
                        "{prefix} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {wide_msg:.dim}"
                    }
                };
                if let Ok(style) = ProgressStyle::with_template(template) {
                    bar.set_style(style);
                }
                bar.set_prefix(what.to_owned());
                bar.enable_steady_tick(Duration::from_millis(200));
                *self.bar() = Some(bar);
            }
        }
    }

    fn advance(&self, amount: u64) {
        if let Some(bar) = &*self.bar() {
            bar.inc(amount);
        }
    }

    fn detail(&self, what: &str) {
        if let Some(bar) = &*self.bar() {
            bar.set_message(what.to_owned());
        }
    }

    fn end(&self) {
        if let Some(bar) = self.bar().take() {
            bar.set_message("");
            bar.finish();
        }
    }
}

impl Drop for Shown {
    /// What failed in the middle leaves its bar where it was.
    fn drop(&mut self) {
        if let Some(bar) = self.bar().take() {
            bar.abandon();
        }
    }
}
