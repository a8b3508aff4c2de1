//! Tables for people: medians with their range, and the sections of BENCHMARKS.md that this command writes.

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

const FILE: &str = "BENCHMARKS.md";

/// A figure measured several times.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

impl Spread {
    /// None of no figures.
    pub(super) fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = figures.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        Some(Self { median, min, max })
    }
}

/// The median, then the range if there is one.
impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = f.precision().unwrap_or(2);
        if self.min == self.max {
            return write!(f, "{:.digits$}", self.median);
        }
        write!(f, "{:.digits$} ({:.digits$}-{:.digits$})", self.median, self.min, self.max)
    }
}

/// A Markdown table: its first columns, so many, to the left, the others to the right.
pub(super) fn table(left: usize, header: &[&str], rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let header: Vec<String> = header.iter().map(|&cell| cell.to_owned()).collect();
    let rule: Vec<String> =
        (0..header.len()).map(|column| if column < left { "---" } else { "---:" }.to_owned()).collect();
    let body: String = rows.iter().map(|row| line(row)).collect();
    line(&header) + &line(&rule) + &body
}

/// A list of facts below a table.
pub(super) fn note(facts: &[String]) -> String {
    facts.iter().map(|fact| format!("- {fact}\n")).collect()
}

/// This process's command line as one types it; of paths only the last part, for they differ from host to host.
pub(super) fn command_line() -> String {
    let shown = |argument: String| match Path::new(&argument).file_name() {
        Some(name) if argument.contains('/') => name.to_string_lossy().into_owned(),
        _ => argument,
    };
    let words: Vec<String> = std::env::args().skip(1).map(shown).collect();
    format!("`cargo xtask {}`", words.join(" "))
}

/// Replaces a section of BENCHMARKS.md: what stands between its two marker comments.
pub(super) fn write(section: &str, text: &str) -> Result<()> {
    let path = crate::repository_root().join(FILE);
    let old = fs::read_to_string(&path).with_context(|| format!("cannot read {FILE}"))?;
    let new = replaced(&old, section, text)
        .with_context(|| format!("{FILE} has no `{}` ... `{}`", begin(section), end(section)))?;
    fs::write(&path, new).with_context(|| format!("cannot write {FILE}"))
}

fn begin(section: &str) -> String {
    format!("<!-- bench {section}: written by the command named below -->")
}

fn end(section: &str) -> String {
    format!("<!-- end of bench {section} -->")
}

fn replaced(old: &str, section: &str, text: &str) -> Option<String> {
    let (before, rest) = old.split_once(&begin(section))?;
    let (_, after) = rest.split_once(&end(section))?;
    Some(format!("{before}{}\n{text}{}{after}", begin(section), end(section)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads_have_median_and_range() {
        let spread = Spread::of([3.0, 1.0, 2.0]);
        assert_eq!(spread, Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(Spread::of([1.0, 4.0, 2.0, 3.0]).map(|s| s.median), Some(2.5));
        assert_eq!(Spread::of([]), None);
        assert_eq!(spread.map(|s| format!("{s:.1}")).as_deref(), Some("2.0 (1.0-3.0)"));
        assert_eq!(Spread::of([4.0, 4.0]).map(|s| s.to_string()).as_deref(), Some("4.00"));
    }

    #[test]
    fn only_the_named_section_is_replaced() {
        let old = format!("a\n{}\nold\n{}\nb\n", begin("x"), end("x"));
        let new = format!("a\n{}\nnew\n{}\nb\n", begin("x"), end("x"));
        assert_eq!(replaced(&old, "x", "new\n"), Some(new));
        assert_eq!(replaced(&old, "y", "new\n"), None);
    }

    #[test]
    fn the_document_has_the_sections_that_are_written() -> Result<()> {
        let text = fs::read_to_string(crate::repository_root().join(FILE))?;
        for section in ["speed", "speed aarch64", "footprint", "start-up"] {
            assert!(replaced(&text, section, "").is_some(), "{section}");
        }
        Ok(())
    }
}
