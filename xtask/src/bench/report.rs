//! What came out: samples by row and column, ratios to QEMU, and what misses its goal; as Markdown and as JSON.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::columns::{Column, Engine};
use super::document::{self, Spread};
use super::rows::{Goal, MEAN_GOAL, Row};
use super::session::{Ending, Sample};

/// A table with all that explains it.
pub(super) struct Report {
    pub(super) date: String,
    /// Command, host, versions.
    pub(super) facts: Vec<String>,
    pub(super) table: Table,
}

/// Samples of all rows on all columns.
pub(super) struct Table {
    columns: Vec<&'static Column>,
    lines: Vec<Line>,
    /// What each column's machines said after their rows, one a round.
    endings: Vec<Vec<Ending>>,
}

struct Line {
    row: &'static Row,
    /// In the order of the columns.
    series: Vec<Series>,
}

/// A row's runs on one column.
#[derive(Default)]
pub(super) struct Series {
    samples: Vec<Sample>,
    /// Why others gave none.
    failures: Vec<String>,
}

impl Series {
    fn cpu_s(&self) -> Option<Spread> {
        Spread::of(self.samples.iter().map(|sample| sample.cpu.as_secs_f64()))
    }

    /// QEMU's time over ours; none if either has no sample, ours is too short to be measured, or the result is wrong.
    fn ratio(&self, qemu: &Self) -> Option<f64> {
        let (ours, theirs) = (self.cpu_s()?, qemu.cpu_s()?);
        let is_right = self.wrong_result(qemu).is_none();
        (is_right && ours.median > 0.0 && theirs.median > 0.0).then(|| theirs.median / ours.median)
    }

    /// A result that is not QEMU's first.
    fn wrong_result<'a>(&'a self, qemu: &'a Self) -> Option<(&'a str, &'a str)> {
        let right = &qemu.samples.first()?.result;
        let wrong = self.samples.iter().find(|sample| sample.result != *right)?;
        Some((right, &wrong.result))
    }
}

impl Table {
    pub(super) fn new(rows: &[&'static Row], columns: &[&'static Column]) -> Self {
        let empty = || columns.iter().map(|_| Series::default()).collect();
        Self {
            columns: columns.to_vec(),
            lines: rows.iter().map(|row| Line { row, series: empty() }).collect(),
            endings: columns.iter().map(|_| Vec::new()).collect(),
        }
    }

    /// Adds what one run gave; rows and columns that the table lacks are ignored.
    pub(super) fn add(&mut self, row: &Row, column: &Column, sample: Result<Sample>) {
        let Some(index) = self.index(column) else { return };
        let Some(line) = self.lines.iter_mut().find(|line| line.row.name == row.name) else { return };
        match sample {
            Ok(sample) => line.series[index].samples.push(sample),
            Err(why) => line.series[index].failures.push(format!("{why:#}")),
        }
    }

    pub(super) fn end(&mut self, column: &Column, ending: Option<Ending>) {
        if let Some(index) = self.index(column) {
            self.endings[index].extend(ending);
        }
    }

    fn index(&self, column: &Column) -> Option<usize> {
        self.columns.iter().position(|known| known.name == column.name)
    }

    /// Isomer's columns with their places; QEMU's is 0.
    fn ours(&self) -> impl Iterator<Item = (usize, &'static Column)> {
        self.columns.iter().copied().enumerate().filter(|(_, column)| column.engine != Engine::Qemu)
    }

    /// A line for every row that a column could not run, or computed something else on than QEMU did.
    pub(super) fn failures(&self) -> Vec<String> {
        let mut all = Vec::new();
        for line in &self.lines {
            for (column, series) in self.columns.iter().zip(&line.series) {
                let name = format!("{} on {}", line.row.name, column.name);
                all.extend(series.failures.iter().map(|why| format!("{name}: {why}")));
                if let Some((right, wrong)) = series.wrong_result(&line.series[0]) {
                    all.push(format!("{name}: QEMU's result is {right:?}, this one {wrong:?}"));
                }
            }
        }
        all
    }

    fn ratios(&self, index: usize) -> Vec<f64> {
        self.lines.iter().filter_map(|line| line.series[index].ratio(&line.series[0])).collect()
    }

    fn geometric_mean(&self, index: usize) -> Option<f64> {
        let ratios = self.ratios(index);
        let sum: f64 = ratios.iter().map(|ratio| ratio.ln()).sum();
        (!ratios.is_empty()).then(|| (sum / ratios.len() as f64).exp())
    }

    /// The table of ratios.
    fn ratio_table(&self) -> String {
        let mut header = vec!["row", "group", "what it is", "QEMU, CPU s"];
        header.extend(self.ours().map(|(_, column)| column.name));
        let mut rows = Vec::new();
        for line in &self.lines {
            let qemu =
                line.series[0].cpu_s().map_or("failed".into(), |spread| format!("{:.2}", spread.median));
            let mut cells = vec![line.row.name.into(), line.row.group.name(), line.row.what.into(), qemu];
            for (index, column) in self.ours() {
                cells.push(match line.series[index].ratio(&line.series[0]) {
                    Some(ratio) => judged(ratio, column.goal(line.row.goal)),
                    None => "failed".into(),
                });
            }
            rows.push(cells);
        }
        let mut mean = vec!["geometric mean".to_owned(), String::new(), String::new(), String::new()];
        for (index, column) in self.ours() {
            let cell = self.geometric_mean(index).map(|mean| judged(mean, column.goal(MEAN_GOAL)));
            mean.push(cell.unwrap_or_default());
        }
        rows.push(mean);
        document::table(3, &header, &rows)
    }

    /// The table of times.
    fn time_table(&self) -> String {
        let mut header = vec!["host CPU s"];
        header.extend(self.columns.iter().map(|column| column.name));
        let row = |line: &Line| {
            let cell = |series: &Series| series.cpu_s().map_or("failed".into(), |spread| spread.to_string());
            std::iter::once(line.row.name.to_owned()).chain(line.series.iter().map(cell)).collect()
        };
        document::table(1, &header, &self.lines.iter().map(row).collect::<Vec<_>>())
    }

    /// One line for each column that is asked for something: which rows miss it.
    fn misses(&self) -> Vec<String> {
        let mut all = Vec::new();
        for (index, column) in self.ours() {
            let missed =
                |line: &&Line| is_missed(line.series[index].ratio(&line.series[0]), column, line.row.goal);
            let names: Vec<&str> = self.lines.iter().filter(missed).map(|line| line.row.name).collect();
            let asked = column.goal(MEAN_GOAL).is_some();
            if asked {
                let list = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                all.push(format!("rows of `{}` that miss their goal: {list}", column.name));
            }
        }
        all
    }

    /// What each column's machine needed beyond the guest's memory after all rows.
    fn memory(&self) -> Vec<String> {
        let mut all = Vec::new();
        for (index, column) in self.ours() {
            let figures = self.endings[index].iter().filter_map(|ending| ending.beyond_ram_kib);
            if let Some(mib) = Spread::of(figures.map(|kib| kib as f64 / 1024.0)) {
                all.push(format!(
                    "`{}` after all rows: {mib:.1} MiB beyond guest RAM; between rows, where no row pays for it, \
                     {:.2} s of CPU time a round",
                    column.name,
                    self.between_rows_s(index)
                ));
            }
        }
        all
    }

    /// CPU seconds that a column's machines took after the ends of their rows, compilers above all, a round.
    fn between_rows_s(&self, index: usize) -> f64 {
        let samples = self.lines.iter().flat_map(|line| &line.series[index].samples);
        let all: f64 = samples.map(|sample| sample.after.as_secs_f64()).sum();
        all / self.endings[index].len().max(1) as f64
    }

    fn json(&self) -> Value {
        let column = |column: &&'static Column| column.name;
        let line = |line: &Line| {
            let series = self.columns.iter().zip(&line.series).map(|(column, series)| {
                let cpu_s: Vec<f64> = series.samples.iter().map(|sample| sample.cpu.as_secs_f64()).collect();
                let after_s: Vec<f64> =
                    series.samples.iter().map(|sample| sample.after.as_secs_f64()).collect();
                let value = json!({
                    "cpu_s": cpu_s,
                    "after_s": after_s,
                    "ratio": series.ratio(&line.series[0]),
                    "goal": column.goal(line.row.goal),
                    "missed": is_missed(series.ratio(&line.series[0]), column, line.row.goal),
                    "failures": series.failures,
                });
                (column.name.to_owned(), value)
            });
            json!({
                "name": line.row.name,
                "group": line.row.group.name(),
                "what": line.row.what,
                "result": line.series[0].samples.first().map(|sample| &sample.result),
                "columns": series.collect::<serde_json::Map<_, _>>(),
            })
        };
        let sessions = self.columns.iter().enumerate().map(|(index, column)| {
            let ending = |ending: &Ending| {
                json!({
                    "stats": ending.stats,
                    "beyond_ram_kib": ending.beyond_ram_kib,
                })
            };
            let value = json!({
                "geometric_mean": self.geometric_mean(index),
                "sessions": self.endings[index].iter().map(ending).collect::<Vec<_>>(),
            });
            (column.name.to_owned(), value)
        });
        json!({
            "columns": self.columns.iter().map(column).collect::<Vec<_>>(),
            "rows": self.lines.iter().map(line).collect::<Vec<_>>(),
            "summary": sessions.collect::<serde_json::Map<_, _>>(),
        })
    }
}

/// A ratio; one that misses its goal is marked.
fn judged(ratio: f64, goal: Option<f64>) -> String {
    match goal {
        Some(goal) if ratio < goal => format!("**{ratio:.2}** (goal {goal})"),
        _ => format!("{ratio:.2}"),
    }
}

/// A row without a ratio misses every goal.
fn is_missed(ratio: Option<f64>, column: &Column, goal: Goal) -> bool {
    column.goal(goal).is_some_and(|goal| ratio.is_none_or(|ratio| ratio < goal))
}

impl Report {
    /// The tables and their notes.
    pub(super) fn markdown(&self) -> String {
        let mut facts = self.facts.clone();
        facts.extend(self.table.memory());
        facts.extend(self.table.misses());
        facts.extend(self.table.failures().iter().map(|failure| {
            let first = failure.lines().next().unwrap_or_default();
            format!("failed: {first}")
        }));
        format!(
            "\nQEMU's time over Isomer's; above 1 Isomer needs less. In bold: behind the goal.\n\n{}\n{}\n{}\n",
            self.table.ratio_table(),
            self.table.time_table(),
            document::note(&facts)
        )
    }

    pub(super) fn write_json(&self, path: &Path) -> Result<()> {
        let mut value = json!({ "date": self.date, "facts": self.facts });
        if let (Value::Object(all), Value::Object(table)) = (&mut value, self.table.json()) {
            all.extend(table);
        }
        let text = serde_json::to_string_pretty(&value).context("cannot write JSON")?;
        std::fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::columns::COLUMNS;
    use crate::bench::rows::ROWS;
    use std::time::Duration;

    fn table() -> Table {
        let columns: Vec<&'static Column> = COLUMNS.iter().take(4).collect();
        Table::new(&[&ROWS[0], &ROWS[1]], &columns)
    }

    fn sample(ms: u64) -> Result<Sample> {
        Ok(Sample { cpu: Duration::from_millis(ms), after: Duration::ZERO, result: "right".into() })
    }

    #[test]
    fn ratios_are_of_medians_and_goals_are_judged() {
        let mut table = table();
        for ms in [1000, 9000, 2000] {
            table.add(&ROWS[0], &COLUMNS[0], sample(ms));
        }
        table.add(&ROWS[1], &COLUMNS[0], sample(2000));
        for (row, index, ms) in
            [(0, 1, 4000), (0, 2, 1250), (0, 3, 500), (1, 1, 8000), (1, 2, 500), (1, 3, 500)]
        {
            table.add(&ROWS[row], &COLUMNS[index], sample(ms));
        }
        let text = table.ratio_table();
        let line =
            |name: &str| text.lines().find(|line| line.starts_with(&format!("| {name} "))).unwrap_or("");
        assert!(line("integer").ends_with("| 2.00 | 0.50 | **1.60** (goal 2) | 4.00 |"), "{text}");
        assert!(line("geometric").ends_with("| 0.35 | 2.53 | 4.00 |"), "{text}");
        assert_eq!(table.failures(), Vec::<String>::new());
        assert!(table.misses()[0].ends_with("`jit cold` that miss their goal: integer"));
        assert!(table.misses()[1].ends_with("none"));
        assert!(table.time_table().contains("2.00 (1.00-9.00)"));
    }

    #[test]
    fn a_wrong_result_has_no_ratio_and_is_a_failure() -> Result<()> {
        let mut table = table();
        table.add(&ROWS[0], &COLUMNS[0], sample(1000));
        table.add(&ROWS[0], &COLUMNS[1], Ok(Sample { result: "wrong".into(), ..sample(10)? }));
        table.add(&ROWS[0], &COLUMNS[2], Err(anyhow::anyhow!("did not boot")));
        assert_eq!(table.ratios(1), Vec::<f64>::new());
        let failures = table.failures();
        assert_eq!(failures.len(), 2, "{failures:?}");
        assert!(failures[0].contains("\"right\"") && failures[0].contains("\"wrong\""));
        assert!(failures[1].contains("jit cold: did not boot"));
        assert!(table.misses()[0].contains("integer, sieve"), "what did not run misses, too");
        let json = table.json();
        assert_eq!(json["rows"][0]["columns"]["interp"]["ratio"], Value::Null);
        assert_eq!(json["rows"][0]["columns"]["jit cold"]["missed"], true);
        Ok(())
    }
}
