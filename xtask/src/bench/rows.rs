//! The rows of the table: what is measured, and what ratio to QEMU is asked of it.

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};

/// Rows that stand together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Group {
    Integer,
    Fp,
    Branches,
    Memory,
    Os,
    Boot,
}

impl Group {
    pub(super) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// What runs, and between which two moments the clock does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A program of `benches/guest`, between the lines that it prints.
    Program,
    /// A script of `benches/rows`, its `work` alone.
    Script,
    /// A kernel, from the emulator's start to the line that it prints before it starts init.
    Boot(Kernel),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kernel {
    Debian,
    Embedded,
}

/// One row.
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) group: Group,
    pub(super) what: &'static str,
    pub(super) kind: Kind,
    /// What a compiled engine has to reach, as QEMU's CPU time over ours.
    pub(super) goal: Goal,
    /// Part of `--quick`.
    pub(super) quick: bool,
}

/// The ratio asked of a first run and of one that finds its code in the cache.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Goal {
    pub(super) cold: f64,
    pub(super) warm: f64,
}

/// The geometric mean's.
pub(super) const MEAN_GOAL: Goal = both(2.5);

const fn both(ratio: f64) -> Goal {
    Goal { cold: ratio, warm: ratio }
}

/// Not behind QEMU.
const PAR: Goal = both(1.0);
const TWICE: Goal = both(2.0);
const FOUR_TIMES: Goal = both(4.0);
/// A second boot takes at most half of QEMU's time.
const BOOT: Goal = Goal { cold: 1.0, warm: 2.0 };

const fn row(
    name: &'static str,
    group: Group,
    kind: Kind,
    goal: Goal,
    quick: bool,
    what: &'static str,
) -> Row {
    Row { name, group, what, kind, goal, quick }
}

const QUICK: bool = true;
const FULL: bool = false;

/// Every row, in the order of the table.
#[rustfmt::skip]
pub(super) const ROWS: [Row; 32] = {
    use Group::{Boot, Branches, Fp, Integer, Memory, Os};
    use Kind::{Program, Script};
    [
        row("integer", Integer, Program, TWICE, QUICK, "CoreMark-like: lists, matrices, a state machine, CRC"),
        row("sieve", Integer, Program, PAR, FULL, "short loops, byte stores"),
        row("qsort", Integer, Program, PAR, FULL, "C library's sort, comparison function"),
        row("sha256", Integer, Program, PAR, FULL, "SHA-256 in C: rotations, 32-bit logic"),
        row("7z", Integer, Script, PAR, QUICK, "7-Zip, LZMA, there and back"),
        row("xz", Integer, Script, PAR, FULL, "xz, there and back"),
        row("openssl-sha256", Integer, Script, PAR, FULL, "`openssl dgst -sha256`"),
        row("openssl-aes", Integer, Script, PAR, FULL, "`openssl enc -aes-128-cbc`"),
        row("openssl-prime", Integer, Script, PAR, FULL, "`openssl prime`, 1279 bits"),
        row("sysbench-cpu", Integer, Script, PAR, FULL, "sysbench, primes by division"),
        row("matmul", Fp, Program, FOUR_TIMES, QUICK, "double, fused multiply-add"),
        row("nbody", Fp, Program, FOUR_TIMES, FULL, "double, square roots, divisions"),
        row("linpack", Fp, Program, FOUR_TIMES, FULL, "double, elimination with pivoting"),
        row("mandelbrot", Fp, Program, FOUR_TIMES, FULL, "double, in registers, comparisons"),
        row("fib", Branches, Program, PAR, QUICK, "recursion: calls, returns"),
        row("indirect", Branches, Program, TWICE, QUICK, "calls through a table"),
        row("interpreter", Branches, Program, PAR, FULL, "byte code, jumps through a table"),
        row("python", Branches, Script, PAR, QUICK, "Python 3.13, start-up and a script"),
        row("stream", Memory, Program, PAR, FULL, "copy, scale, add, triad over 4 MiB"),
        row("memcpy", Memory, Program, PAR, QUICK, "C library's copies of 8 MiB"),
        row("chase", Memory, Program, PAR, FULL, "dependent loads all over 8 MiB"),
        row("sysbench-memory", Memory, Script, PAR, FULL, "sysbench, stores to 64 KiB"),
        row("getppid", Os, Program, PAR, QUICK, "system calls"),
        row("pipe", Os, Program, TWICE, QUICK, "two processes, a byte back and forth"),
        row("switch", Os, Program, TWICE, QUICK, "ring of eight processes, 16 pages each"),
        row("spawn", Os, Program, PAR, FULL, "fork, exec, exit, wait"),
        row("faults", Os, Program, PAR, FULL, "mapping, touching, unmapping pages"),
        row("shell", Os, Script, PAR, FULL, "busybox: a loop of pipelines"),
        row("find", Os, Script, PAR, FULL, "busybox: find, stat, read small files"),
        row("threads", Os, Program, PAR, FULL, "two threads, mutex and condition variable"),
        row("boot", Boot, Kind::Boot(Kernel::Debian), BOOT, QUICK, "Debian's kernel, start to init"),
        row("boot-embedded", Boot, Kind::Boot(Kernel::Embedded), BOOT, FULL, "embedded kernel, start to init"),
    ]
};

/// Which rows.
#[derive(Args)]
pub(super) struct Selection {
    /// Only rows of these groups
    #[arg(long, value_enum, value_delimiter = ',', value_name = "GROUP")]
    only: Vec<Group>,
    /// Only rows of these names
    #[arg(long, value_delimiter = ',', value_name = "ROW")]
    rows: Vec<String>,
    /// A few rows of each group, once: about three minutes
    #[arg(long)]
    pub(super) quick: bool,
}

impl Selection {
    /// # Errors
    /// When a name is not a row's, or nothing is left.
    pub(super) fn rows(&self) -> Result<Vec<&'static Row>> {
        for name in &self.rows {
            let known = ROWS.iter().any(|row| row.name == name);
            ensure!(known, "no row is called {name}; `cargo xtask bench --list` prints them");
        }
        let wanted = |row: &&Row| {
            (self.only.is_empty() || self.only.contains(&row.group))
                && (self.rows.is_empty() || self.rows.iter().any(|name| row.name == name))
                // Who names a row wants it.
                && (!self.quick || row.quick || !self.rows.is_empty())
        };
        let rows: Vec<_> = ROWS.iter().filter(wanted).collect();
        ensure!(!rows.is_empty(), "--only and --rows have no row in common");
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_its_source_and_a_name_of_its_own() {
        let benches = crate::repository_root().join("benches");
        for row in &ROWS {
            let source = match row.kind {
                Kind::Program => benches.join("guest").join(row.name).with_extension("c"),
                Kind::Script => benches.join("rows").join(row.name),
                Kind::Boot(_) => continue,
            };
            assert!(source.is_file(), "{}", source.display());
            assert_eq!(ROWS.iter().filter(|other| other.name == row.name).count(), 1, "{}", row.name);
        }
    }

    #[test]
    fn selections_narrow_each_other() -> Result<()> {
        let select = |only: &[Group], rows: &[&str], quick| {
            let rows = rows.iter().map(|&row| row.to_owned()).collect();
            let selection = Selection { only: only.to_vec(), rows, quick };
            selection.rows().map(|rows| rows.iter().map(|row| row.name).collect::<Vec<_>>())
        };
        assert_eq!(select(&[], &[], false)?.len(), ROWS.len());
        assert_eq!(select(&[Group::Fp], &["matmul", "fib"], false)?, ["matmul"]);
        assert_eq!(select(&[], &["sieve"], true)?, ["sieve"]);
        assert!(select(&[], &[], true)?.len() < ROWS.len() / 2);
        assert!(select(&[Group::Fp], &["fib"], false).is_err());
        assert!(select(&[], &["no-such-row"], false).is_err());
        Ok(())
    }
}
