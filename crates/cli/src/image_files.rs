//! `isomer image create|info|convert|check|resize`: image files by path, raw and qcow2.

use crate::{args::Format, report, values};
use clap::{Subcommand, ValueHint};
use indicatif::{ProgressBar, ProgressStyle};
use isomer_devices::backend::{
    BlockBackend, BlockError, Image, ImageFormat, ImageOptions,
    image_tools::{self, CheckReport, ImageInfo},
};
use miette::Diagnostic;
use serde::Serialize;
use std::{
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    time::Duration,
};

/// Exit code of a check that found leaks and nothing worse, as `qemu-img check` has it.
const EXIT_LEAKS: u8 = 3;
/// Steps of a progress bar that counts shares.
const STEPS: u64 = 1000;

#[derive(Debug, Subcommand)]
pub(crate) enum FileVerb {
    /// Make an empty disk image, or an overlay on one that stays as it is
    Create {
        /// The new image; never overwritten
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// The disk's size, with a unit: 20G. May be left out with --backing
        #[arg(value_parser = values::size, required_unless_present = "backing")]
        size: Option<u64>,
        /// raw or qcow2; by default what the name ends in, else qcow2
        #[arg(long, short = 'O', value_name = "FORMAT")]
        output: Option<ImageFormat>,
        /// The image below: what the new one does not hold is read from there
        #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
        backing: Option<PathBuf>,
        /// Its format; detected if left out
        #[arg(long, value_name = "FORMAT", requires = "backing")]
        backing_format: Option<ImageFormat>,
    },
    /// Tell format, sizes, what is below, and whether somebody uses the image
    Info {
        /// The image
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// Its format; detected if left out
        #[arg(long, short, value_name = "FORMAT")]
        input: Option<ImageFormat>,
    },
    /// Copy a disk, with all that is below it, to a new image of either format
    Convert {
        /// The image to read
        #[arg(value_hint = ValueHint::FilePath)]
        from: PathBuf,
        /// The new image; never overwritten
        #[arg(value_hint = ValueHint::FilePath)]
        to: PathBuf,
        /// The first one's format; detected if left out
        #[arg(long, short, value_name = "FORMAT")]
        input: Option<ImageFormat>,
        /// raw or qcow2; by default what the name ends in, else qcow2
        #[arg(long, short = 'O', value_name = "FORMAT")]
        output: Option<ImageFormat>,
    },
    /// Check a qcow2 image's tables; exits with 3 for leaks, with 1 for corruption
    Check {
        /// The image
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// Its format; detected if left out
        #[arg(long, short, value_name = "FORMAT")]
        input: Option<ImageFormat>,
        /// Give leaked clusters back
        #[arg(long)]
        repair: bool,
    },
    /// Change a disk's size: to SIZE, or by +SIZE or -SIZE
    Resize {
        /// The image
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// The new size, with a unit: 30G, +10G
        #[arg(value_parser = new_size, allow_hyphen_values = true)]
        size: NewSize,
        /// Its format; detected if left out
        #[arg(long, short, value_name = "FORMAT")]
        input: Option<ImageFormat>,
        /// Make it smaller, though what lies beyond the new end is lost
        #[arg(long)]
        shrink: bool,
    },
}

/// A size as `resize` takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NewSize {
    To(u64),
    By(u64),
    Less(u64),
}

fn new_size(text: &str) -> Result<NewSize, String> {
    match text.split_at_checked(1) {
        Some(("+", size)) => values::size(size).map(NewSize::By),
        Some(("-", size)) => values::size(size).map(NewSize::Less),
        _ => values::size(text).map(NewSize::To),
    }
}

#[derive(Debug, thiserror::Error, Diagnostic)]
enum Failure {
    #[error(transparent)]
    #[diagnostic(transparent)]
    Block(#[from] BlockError),
    #[error("a raw image cannot have another one below it")]
    #[diagnostic(code(isomer::image::raw_overlay), help("make a qcow2 image: --output qcow2"))]
    RawOverlay,
    #[error("{} has {from_bytes} bytes, and {to_bytes} are fewer", path.display())]
    #[diagnostic(
        code(isomer::image::shrink),
        help(
            "make the file systems in it smaller first, then add --shrink: what lies beyond the new end is lost"
        )
    )]
    Shrink { path: PathBuf, from_bytes: u64, to_bytes: u64 },
    #[error("{} has {from_bytes} bytes: it cannot lose {less_bytes} or grow beyond what can be counted", path.display())]
    #[diagnostic(code(isomer::image::size), help("give the new size itself"))]
    OutOfRange { path: PathBuf, from_bytes: u64, less_bytes: u64 },
}

/// What came of it.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Outcome {
    Made {
        path: PathBuf,
        format: ImageFormat,
        size_bytes: u64,
    },
    Described {
        images: Vec<ImageInfo>,
    },
    Checked {
        path: PathBuf,
        clean: bool,
        #[serde(flatten)]
        report: CheckReport,
    },
    Resized {
        path: PathBuf,
        from_bytes: u64,
        size_bytes: u64,
    },
}

/// Does it, prints what came of it, and returns the exit code.
pub(crate) fn run(verb: &FileVerb, format: Format) -> u8 {
    match outcome(verb, format) {
        Ok(outcome) => {
            match format {
                Format::Json => report::json(&outcome),
                Format::Text => {
                    let _ = io::stdout().lock().write_all(text(&outcome).as_bytes());
                }
            }
            match outcome {
                Outcome::Checked { report, .. } if report.corruptions > 0 => 1,
                Outcome::Checked { report, .. } if report.leaks > report.repaired => EXIT_LEAKS,
                _ => 0,
            }
        }
        Err(failure) => {
            report::error(&failure, format);
            1
        }
    }
}

fn outcome(verb: &FileVerb, format: Format) -> Result<Outcome, Failure> {
    match verb {
        FileVerb::Create { file, size, output, backing, backing_format } => {
            create(file, *size, *output, backing.as_deref(), *backing_format)
        }
        FileVerb::Info { file, input } => {
            Ok(Outcome::Described { images: image_tools::chain(file, *input)? })
        }
        FileVerb::Convert { from, to, input, output } => {
            let options = ImageOptions { format: *input, read_only: true, ..ImageOptions::default() };
            let source = Image::open(from, &options)?;
            let format_wanted = output.unwrap_or_else(|| by_name(to));
            let bar = bar(format, source.size_bytes(), "{bytes} of {total_bytes} at {bytes_per_sec}");
            let copied = image_tools::convert(&source, to, format_wanted, &mut |done| bar.set_position(done));
            bar.finish_and_clear();
            copied?;
            Ok(Outcome::Made { path: to.clone(), format: format_wanted, size_bytes: source.size_bytes() })
        }
        FileVerb::Check { file, input, repair } => {
            let bar = bar(format, STEPS, "{percent} %");
            let mut progress = |share: f64| bar.set_position((share * STEPS as f64) as u64);
            let checked = image_tools::check(file, *input, *repair, &mut progress);
            bar.finish_and_clear();
            let report = checked?;
            let clean = report.corruptions == 0 && report.leaks == report.repaired;
            Ok(Outcome::Checked { path: file.clone(), clean, report })
        }
        FileVerb::Resize { file, size, input, shrink } => resize(file, *size, *input, *shrink),
    }
}

fn create(
    file: &Path,
    size: Option<u64>,
    output: Option<ImageFormat>,
    backing: Option<&Path>,
    backing_format: Option<ImageFormat>,
) -> Result<Outcome, Failure> {
    let format = output.unwrap_or_else(|| if backing.is_some() { ImageFormat::Qcow2 } else { by_name(file) });
    let below = match backing {
        Some(_) if format == ImageFormat::Raw => return Err(Failure::RawOverlay),
        Some(base) => Some(image_tools::backing_of(file, base, backing_format)?),
        None => None,
    };
    let inherited = below.as_ref().map_or(0, |(_, _, bytes)| bytes.next_multiple_of(512));
    let size_bytes = size.unwrap_or(inherited);
    let record = below.as_ref().map(|(name, format, _)| (name.as_path(), *format));
    Image::create(file, format, size_bytes, record)?;
    Ok(Outcome::Made { path: file.into(), format, size_bytes })
}

fn resize(path: &Path, size: NewSize, input: Option<ImageFormat>, shrink: bool) -> Result<Outcome, Failure> {
    let image = Image::open(path, &ImageOptions { format: input, ..ImageOptions::default() })?;
    let from_bytes = image.size_bytes();
    let (to_bytes, less_bytes) = match size {
        NewSize::To(bytes) => (Some(bytes), 0),
        NewSize::By(bytes) => (from_bytes.checked_add(bytes), 0),
        NewSize::Less(bytes) => (from_bytes.checked_sub(bytes), bytes),
    };
    let to_bytes = to_bytes.ok_or(Failure::OutOfRange { path: path.into(), from_bytes, less_bytes })?;
    if to_bytes < from_bytes && !shrink {
        return Err(Failure::Shrink { path: path.into(), from_bytes, to_bytes });
    }
    image.resize(to_bytes)?;
    Ok(Outcome::Resized { path: path.into(), from_bytes, size_bytes: to_bytes })
}

/// The format a new image's name asks for.
fn by_name(path: &Path) -> ImageFormat {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("img" | "raw" | "iso") => ImageFormat::Raw,
        _ => ImageFormat::Qcow2,
    }
}

/// A bar on standard error, if somebody is there to see it.
fn bar(format: Format, total: u64, counts: &str) -> ProgressBar {
    if format == Format::Json || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(total);
    if let Ok(style) = ProgressStyle::with_template(&format!("{{bar:40}} {counts}, {{eta}} left")) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn text(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Made { path, format, size_bytes } => {
            format!("{}: {format}, {}\n", path.display(), report::Bytes(*size_bytes))
        }
        Outcome::Described { images } => images.iter().map(describe).collect::<Vec<_>>().join("\n"),
        Outcome::Checked { path, report, .. } => check_text(path, report),
        Outcome::Resized { path, from_bytes, size_bytes } => {
            format!(
                "{}: {}, was {}\n",
                path.display(),
                report::Bytes(*size_bytes),
                report::Bytes(*from_bytes)
            )
        }
    }
}

fn describe(info: &ImageInfo) -> String {
    let mut lines = vec![
        ("image", info.path.display().to_string()),
        ("format", info.format.to_string()),
        ("disk", format!("{} ({} bytes)", report::Bytes(info.size_bytes), info.size_bytes)),
        ("on the host", format!("{:.1} MiB", info.host_bytes as f64 / 1_048_576.0)),
    ];
    if let Some(cluster) = info.cluster_bytes {
        lines.push(("cluster", report::Bytes(cluster).to_string()));
    }
    if info.snapshots > 0 {
        lines.push(("snapshots", format!("{} (they cannot be used here)", info.snapshots)));
    }
    if info.dirty {
        lines.push(("state", "not closed properly".into()));
    }
    if !info.usable {
        lines.push(("usable", "no: `isomer image check` tells why".into()));
    }
    if let Some(held_for) = info.in_use {
        lines.push(("in use", format!("another program has it open for {held_for}")));
    }
    if let Some(name) = &info.backing_file {
        let format = info.backing_format.as_deref().unwrap_or("format not recorded");
        lines.push(("backing file", format!("{name} ({format})")));
    }
    lines.iter().map(|(name, value)| format!("{:<13} {value}\n", format!("{name}:"))).collect()
}

fn check_text(path: &Path, report: &CheckReport) -> String {
    let mut text: String = report.problems.iter().map(|problem| format!("  {problem}\n")).collect();
    let more = (report.corruptions + report.leaks).saturating_sub(report.problems.len() as u64);
    if more > 0 {
        text.push_str(&format!("  and {more} more\n"));
    }
    let path = path.display();
    text.push_str(&match (report.corruptions, report.leaks - report.repaired.min(report.leaks)) {
        (0, 0) if report.repaired > 0 => format!("{path}: {} leaked clusters repaired\n", report.repaired),
        (0, 0) => format!("{path}: clean, {} clusters of data\n", report.data_clusters),
        (0, leaks) => format!("{path}: {leaks} leaked clusters; --repair gives them back\n"),
        (corruptions, _) => format!(
            "{path}: {corruptions} corruptions. Do not write to it; copy what can be read with `isomer image convert`\n"
        ),
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_absolute_or_relative() {
        assert_eq!(new_size("10G"), Ok(NewSize::To(10 << 30)));
        assert_eq!(new_size("+1M"), Ok(NewSize::By(1 << 20)));
        assert_eq!(new_size("-1M"), Ok(NewSize::Less(1 << 20)));
        for wrong in ["", "+", "-", "++1G", "1", "G"] {
            assert!(new_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_choose_formats() {
        for (name, format) in
            [("a.img", ImageFormat::Raw), ("a.qcow2", ImageFormat::Qcow2), ("a", ImageFormat::Qcow2)]
        {
            assert_eq!(by_name(Path::new(name)), format);
        }
    }

    #[test]
    fn problems_are_told_with_a_sum() {
        let report = CheckReport { leaks: 3, problems: vec!["one".into()], ..CheckReport::default() };
        let text = check_text(Path::new("a"), &report);
        assert!(text.contains("one") && text.contains("and 2 more") && text.contains("3 leaked"), "{text}");
        let report = CheckReport { corruptions: 1, ..CheckReport::default() };
        assert!(check_text(Path::new("a"), &report).contains("1 corruptions"));
    }
}
