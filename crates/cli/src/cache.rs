//! `isomer cache`: what the persistent code cache has, whether all of it is sound, and how to be rid of it.

use crate::{
    args::Format,
    report::{self, Size},
};
use clap::{Args, Subcommand, ValueHint};
use isomer_jit::cache::{CacheError, CacheFiles, Damaged, NamespaceSurvey, Places, Survey, Verification};
use miette::Diagnostic;
use serde::Serialize;
use std::{
    fmt,
    io::{self, Write},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

/// Damaged entries told one by one to people.
const SHOWN: usize = 10;

#[derive(Debug, Args)]
#[command(after_help = "\
The cache keeps compiled guest code between runs, in $XDG_CACHE_HOME/isomer/code.
Deleting it costs time only. `verify` exits with 1 if anything is damaged; what is
damaged is never used in any case.")]
pub(crate) struct CacheArgs {
    #[command(subcommand)]
    chore: Chore,

    /// The directory of `isomer run --cache-dir`, in place of the user's cache
    #[arg(long, value_name = "DIRECTORY", value_hint = ValueHint::DirPath, global = true)]
    cache_dir: Option<PathBuf>,

    /// How results are printed
    #[arg(long, value_enum, default_value_t, global = true)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
enum Chore {
    /// Show what is in the cache, by guest and translator
    Stats,
    /// Read and authenticate every entry
    Verify,
    /// Remove all compiled code; running machines keep what they have
    Clear,
}

/// The library's error in the shape errors have here.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct Failure(#[from] CacheError);

impl Diagnostic for Failure {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.0.code()))
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.0.fix()))
    }
}

/// Does the chore, prints what came of it, and returns the exit code.
pub(crate) fn run(args: &CacheArgs) -> u8 {
    let places = args.cache_dir.as_deref().map_or_else(Places::of_user, |dir| Ok(Places::under(dir)));
    match places.and_then(|places| outcome(args.chore, &places)) {
        Ok(outcome) => {
            match args.format {
                Format::Json => report::json(&outcome),
                Format::Text => {
                    let _ = io::stdout().lock().write_all(text(&outcome, now_secs()).as_bytes());
                }
            }
            u8::from(matches!(outcome, Outcome::Verified { sound: false, .. }))
        }
        Err(error) => {
            report::error(&Failure(error), args.format);
            1
        }
    }
}

/// What came of a chore.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Outcome {
    Counted { directory: String, bytes: u64, refused_segments: u64, namespaces: Vec<Namespace> },
    Verified { directory: String, sound: bool, segments: u64, entries: u64, damaged: Vec<Damage> },
    Cleared { directory: String, files: u64, bytes: u64 },
}

#[derive(Debug, Serialize)]
struct Namespace {
    guest: String,
    id: String,
    segments: u64,
    live_segments: u64,
    entries: u64,
    guest_insns: u64,
    code_bytes: u64,
    bytes: u64,
    last_used_secs: u64,
}

impl From<NamespaceSurvey> for Namespace {
    fn from(survey: NamespaceSurvey) -> Self {
        Self {
            guest: survey.guest,
            id: survey.id,
            segments: survey.segments,
            live_segments: survey.live_segments,
            entries: survey.entries,
            guest_insns: survey.guest_insns,
            code_bytes: survey.code_bytes,
            bytes: survey.bytes,
            last_used_secs: survey.last_used_secs,
        }
    }
}

#[derive(Debug, Serialize)]
struct Damage {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    slot: Option<u32>,
    cause: String,
}

impl From<Damaged> for Damage {
    fn from(damaged: Damaged) -> Self {
        let path = damaged.path.display().to_string();
        Self { path, slot: damaged.slot, cause: damaged.damage.to_string() }
    }
}

/// No cache is an empty one.
fn outcome(chore: Chore, places: &Places) -> Result<Outcome, CacheError> {
    let files = CacheFiles::open(places)?;
    let directory = Path::display(&places.code).to_string();
    Ok(match chore {
        Chore::Stats => {
            let survey = files.map_or(Ok(Survey::default()), |files| files.survey())?;
            Outcome::Counted {
                directory,
                bytes: survey.bytes,
                refused_segments: survey.refused_segments,
                namespaces: survey.namespaces.into_iter().map(Namespace::from).collect(),
            }
        }
        Chore::Verify => {
            let verification = files.map_or(Ok(Verification::default()), |files| files.verify())?;
            Outcome::Verified {
                directory,
                sound: verification.damaged.is_empty(),
                segments: verification.segments,
                entries: verification.entries,
                damaged: verification.damaged.into_iter().map(Damage::from).collect(),
            }
        }
        Chore::Clear => {
            let (files, bytes) = files.map_or(Ok((0, 0)), |files| files.clear())?;
            Outcome::Cleared { directory, files, bytes }
        }
    })
}

fn text(outcome: &Outcome, now_secs: u64) -> String {
    match outcome {
        Outcome::Counted { directory, bytes, refused_segments, namespaces } => {
            let mut text = format!("{directory}: {}\n", Size(*bytes));
            if namespaces.is_empty() {
                text.push_str("no compiled code yet\n");
            } else {
                text.push_str(&format!(
                    "\n{:<10} {:<10} {:>9} {:>13} {:>11} {:>11}  last used\n",
                    "guest", "for", "entries", "instructions", "host code", "on disk"
                ));
            }
            for n in namespaces {
                let used =
                    if n.live_segments > 0 { "now".to_owned() } else { ago(n.last_used_secs, now_secs) };
                text.push_str(&format!(
                    "{:<10} {:<10} {:>9} {:>13} {:>11} {:>11}  {used}\n",
                    n.guest,
                    n.id,
                    n.entries,
                    n.guest_insns,
                    Size(n.code_bytes).to_string(),
                    Size(n.bytes).to_string(),
                ));
            }
            if *refused_segments > 0 {
                text.push_str(&format!(
                    "\n{refused_segments} refused: damaged, or not written by you. They are never used. \
                     See: isomer cache verify\n"
                ));
            }
            text
        }
        Outcome::Verified { directory, segments, entries, damaged, .. } => {
            let mut text = format!("{directory}: {entries} sound entries in {segments} segments\n");
            for damage in damaged.iter().take(SHOWN) {
                let slot = damage.slot.map(|slot| format!(", entry {slot}")).unwrap_or_default();
                text.push_str(&format!("FAIL  {}{slot}: {}\n", damage.path, damage.cause));
            }
            if damaged.len() > SHOWN {
                text.push_str(&format!("      and {} more\n", damaged.len() - SHOWN));
            }
            if !damaged.is_empty() {
                text.push_str("Damaged code is never used. To start anew: isomer cache clear\n");
            }
            text
        }
        Outcome::Cleared { directory, files, bytes } => {
            format!("{directory}: {files} files removed, {} free\n", Size(*bytes))
        }
    }
}

fn ago(then_secs: u64, now_secs: u64) -> String {
    let secs = now_secs.saturating_sub(then_secs);
    let units = [(86_400, "day"), (3600, "hour"), (60, "minute")];
    match units.iter().find(|(length, _)| secs >= *length) {
        Some((length, unit)) => {
            let count = secs / length;
            format!("{count} {unit}{} ago", if count == 1 { "" } else { "s" })
        }
        None => "just now".into(),
    }
}

fn now_secs() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_for_people() {
        for (bytes, text) in [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (300 << 20, "300 MiB")]
        {
            assert_eq!(Size(bytes).to_string(), text);
        }
        for (secs, text) in
            [(5, "just now"), (60, "1 minute ago"), (7300, "2 hours ago"), (90_000, "1 day ago")]
        {
            assert_eq!(ago(1000, 1000 + secs), text);
        }
        assert_eq!(ago(2000, 1000), "just now");
    }

    #[test]
    fn no_cache_is_an_empty_one_and_none_is_made() {
        let root = tempfile::tempdir().unwrap();
        let places = Places::under(root.path());
        let texts = [Chore::Stats, Chore::Verify, Chore::Clear]
            .map(|chore| text(&outcome(chore, &places).unwrap(), 0));
        assert!(texts[0].contains("no compiled code yet"), "{texts:?}");
        assert!(texts[1].contains("0 sound entries"), "{texts:?}");
        assert!(texts[2].contains("0 files removed"), "{texts:?}");
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_directory_others_can_write_is_an_error_with_code_and_fix() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let places = Places::under(root.path());
        std::fs::create_dir(&places.code).unwrap();
        std::fs::set_permissions(&places.code, std::fs::Permissions::from_mode(0o777)).unwrap();
        let failure = Failure(outcome(Chore::Verify, &places).unwrap_err());
        assert_eq!(failure.code().unwrap().to_string(), "isomer::cache::not_private");
        assert!(failure.help().is_some());
    }

    #[test]
    fn damage_is_told() {
        let damaged = (0..12).map(|slot| Damage {
            path: "/c/a.code".into(),
            slot: (slot > 0).then_some(slot),
            cause: "it ends early".into(),
        });
        let outcome = Outcome::Verified {
            directory: "/c".into(),
            sound: false,
            segments: 1,
            entries: 3,
            damaged: damaged.collect(),
        };
        let text = text(&outcome, 0);
        assert!(text.contains("FAIL  /c/a.code: it ends early\nFAIL  /c/a.code, entry 1: "), "{text}");
        assert!(text.contains("and 2 more"), "{text}");
        let json = serde_json::to_value(&outcome).unwrap();
        assert_eq!((&json["sound"], &json["damaged"][3]["slot"]), (&false.into(), &3.into()));
    }
}
