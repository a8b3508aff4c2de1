//! What each tier of the engine did, and where the guest's time went: `--stats` and `--profile`, as text and as JSON.

use crate::report::VcpuReport;
use isomer_engine::{CacheStats, JitStats, Tier};
use isomer_machine::profile::Profile;
use serde::Serialize;

/// What a tier has made of guest code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct TierReport {
    /// Blocks or regions made.
    pieces: u64,
    /// Guest instructions in them.
    insns: u64,
    /// Host code, in bytes.
    code_bytes: u64,
    /// Time it took, in microseconds.
    compile_us: u64,
}

/// The tiers of one run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Tiers {
    /// Blocks translated for the interpreter, by all CPUs.
    interpreter_blocks: u64,
    /// Instructions it executed.
    interpreter_executed: u64,
    /// Blocks compiled by themselves.
    template: TierReport,
    /// Regions.
    region: TierReport,
    /// Regions that were refused by the compiler.
    refused: u64,
    /// Instructions executed between entering compiled code and coming back, in both of its tiers: code of one goes on
    /// to code of the other, so nobody counts them apart.
    compiled_executed: u64,
    /// Times compiled code was entered.
    compiled_entries: u64,
}

impl Tiers {
    pub(crate) fn new(vcpus: &[VcpuReport], jit: &JitStats) -> Self {
        let sum = |count: fn(&VcpuReport) -> u64| vcpus.iter().map(count).sum();
        let compiled: u64 = sum(VcpuReport::compiled_insns);
        let all: u64 = sum(VcpuReport::insns);
        Self {
            interpreter_blocks: sum(VcpuReport::blocks),
            interpreter_executed: all.saturating_sub(compiled),
            template: TierReport {
                pieces: jit.blocks,
                insns: jit.block_insns,
                code_bytes: jit.block_code_bytes,
                compile_us: jit.block_ns / 1000,
            },
            region: TierReport {
                pieces: jit.regions,
                insns: jit.insns,
                code_bytes: jit.code_bytes,
                compile_us: jit.compile_ns / 1000,
            },
            refused: jit.refused,
            compiled_executed: compiled,
            compiled_entries: sum(VcpuReport::compiled_entries),
        }
    }

    /// A table for people, each line beginning with a line break.
    pub(crate) fn text(&self) -> String {
        let all = self.interpreter_executed + self.compiled_executed;
        let share = |part: u64| 100.0 * part as f64 / all.max(1) as f64;
        let executed = |count: u64| format!("{count} ({:.1} %)", share(count));
        let mut text = String::new();
        let mut row = |cells: [&str; 6]| {
            let [tier, pieces, insns, bytes, ms, ran] = cells;
            text.push_str(&format!(
                "\nisomer: {tier:<12} {pieces:>9} {insns:>11} {bytes:>9} {ms:>10}  {ran}"
            ));
        };
        row(["tier", "compiled", "guest insns", "code KiB", "ms", "instructions executed"]);
        let interpreted = executed(self.interpreter_executed);
        row(["interpreter", &self.interpreter_blocks.to_string(), "-", "-", "-", &interpreted]);
        let compiled =
            format!("{} in both, entered {} times", executed(self.compiled_executed), self.compiled_entries);
        for (name, tier, ran) in [("template", &self.template, &*compiled), ("region", &self.region, "")] {
            row([
                name,
                &tier.pieces.to_string(),
                &tier.insns.to_string(),
                &(tier.code_bytes >> 10).to_string(),
                &format!("{:.1}", tier.compile_us as f64 / 1000.0),
                ran,
            ]);
        }
        let lines = text.lines().map(str::trim_end);
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// What the cache of compiled code did in one run, until the guest's end: what is left then is written afterwards.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct CacheReport {
    /// Entries it has: a region each, or the blocks of a page.
    entries: u64,
    /// Blocks in the latter.
    blocks: u64,
    /// Times a region was looked for.
    lookups: u64,
    /// Entries read from disk and verified.
    disk_hits: u64,
    /// Entries that were in memory already.
    memory_hits: u64,
    /// Regions taken.
    taken_regions: u64,
    /// Pages taken, for each CPU.
    taken_pages: u64,
    /// Blocks taken with them: those for the bytes that were there.
    taken_blocks: u64,
    /// Entries read in vain: for other bytes.
    stale: u64,
    /// What was refused: damaged, foreign, or not private.
    refused: u64,
    /// Entries written.
    written: u64,
    written_bytes: u64,
    /// Entries not written, for lack of time or room.
    dropped: u64,
    /// Why something was not written last.
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<String>,
}

impl CacheReport {
    /// Adds what it did for one machine; there is another after each reset.
    pub(crate) fn add(&mut self, cache: &CacheStats, jit: &JitStats) {
        (self.entries, self.blocks) = (cache.entries, cache.blocks);
        self.lookups += cache.lookups;
        self.disk_hits += cache.disk_hits;
        self.memory_hits += cache.memory_hits;
        self.taken_regions += jit.kept_regions;
        self.taken_pages += jit.kept_pages;
        self.taken_blocks += jit.kept_blocks;
        self.stale += cache.stale;
        self.refused += cache.damaged;
        self.written += cache.written;
        self.written_bytes += cache.written_bytes;
        self.dropped += cache.dropped;
        if cache.trouble.is_some() {
            self.trouble.clone_from(&cache.trouble);
        }
    }

    /// For people, each line beginning with a line break.
    pub(crate) fn text(&self) -> String {
        let mut text = format!(
            "\nisomer: cache: has {} entries with {} blocks; {} entries read from disk, {} from memory, {} stale, {} refused\
             \nisomer: cache: took {} blocks in {} pages, and {} regions of {} looked for; wrote {} entries, {} KiB, before the \
             end; dropped {}",
            self.entries,
            self.blocks,
            self.disk_hits,
            self.memory_hits,
            self.stale,
            self.refused,
            self.taken_blocks,
            self.taken_pages,
            self.taken_regions,
            self.lookups,
            self.written,
            self.written_bytes >> 10,
            self.dropped,
        );
        if let Some(trouble) = &self.trouble {
            text.push_str(&format!("\nisomer: cache: {trouble}"));
        }
        text
    }
}

/// A function in which the guest spent time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct HotReport {
    name: String,
    samples: u64,
    interpreter: u64,
    template: u64,
    region: u64,
}

/// A profile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ProfileReport {
    /// All samples; about one a millisecond of each CPU that does not sleep.
    samples: u64,
    interpreter: u64,
    template: u64,
    region: u64,
    hot: Vec<HotReport>,
}

impl ProfileReport {
    pub(crate) fn new(profile: &Profile) -> Self {
        let tier = |tiers: &[u64; 3], of: Tier| {
            Tier::ALL.iter().position(|tier| *tier == of).map_or(0, |position| tiers[position])
        };
        let hot = profile.places.iter().map(|place| HotReport {
            name: place.name.clone(),
            samples: place.samples,
            interpreter: tier(&place.tiers, Tier::Interpreter),
            template: tier(&place.tiers, Tier::Template),
            region: tier(&place.tiers, Tier::Region),
        });
        Self {
            samples: profile.samples,
            interpreter: tier(&profile.tiers, Tier::Interpreter),
            template: tier(&profile.tiers, Tier::Template),
            region: tier(&profile.tiers, Tier::Region),
            hot: hot.collect(),
        }
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let percent = |part: u64, of: u64| format!("{:.0} %", 100.0 * part as f64 / of.max(1) as f64);
        let line = |name: &str, samples: u64, tiers: [u64; 3]| {
            let [interpreter, template, region] = tiers.map(|tier| percent(tier, samples));
            format!(
                "isomer: {:>7} {samples:>8}  {interpreter:>11} {template:>8} {region:>6}  {name}",
                percent(samples, self.samples)
            )
        };
        let mut text = vec![format!(
            "isomer: {:>7} {:>8}  {:>11} {:>8} {:>6}  {}",
            "share", "samples", "interpreter", "template", "region", "function or address"
        )];
        text.push(line("all", self.samples, [self.interpreter, self.template, self.region]));
        let hot = self.hot.iter();
        text.extend(hot.map(|hot| line(&hot.name, hot.samples, [hot.interpreter, hot.template, hot.region])));
        text.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isomer_engine::Stats;
    use isomer_machine::profile::HotPlace;

    #[test]
    fn executed_instructions_are_split_by_who_ran_them() {
        let mut vcpus = [VcpuReport::default(), VcpuReport::default()];
        let stats =
            Stats { insns: 1000, compiled_insns: 900, compiled_entries: 3, blocks: 5, ..Stats::default() };
        vcpus.iter_mut().for_each(|vcpu| vcpu.add(&stats));
        let jit = JitStats {
            regions: 7,
            insns: 700,
            code_bytes: 9 << 10,
            compile_ns: 2_500_000,
            ..JitStats::default()
        };
        let tiers = Tiers::new(&vcpus, &jit);
        let text = tiers.text();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "", "it follows other lines");
        let words = |line: usize| lines[line].split_whitespace().collect::<Vec<_>>();
        assert_eq!(words(2), ["isomer:", "interpreter", "10", "-", "-", "-", "200", "(10.0", "%)"]);
        assert_eq!(words(3)[6..], ["1800", "(90.0", "%)", "in", "both,", "entered", "6", "times"]);
        assert_eq!(words(4), ["isomer:", "region", "7", "700", "9", "2.5"]);
        let json = serde_json::to_value(tiers).unwrap();
        assert_eq!((&json["region"]["compile_us"], &json["compiled_executed"]), (&2500.into(), &1800.into()));
    }

    #[test]
    fn the_cache_of_all_machines_is_summed() {
        let cache = CacheStats {
            entries: 9,
            blocks: 90,
            lookups: 5,
            memory_hits: 1,
            disk_hits: 7,
            damaged: 2,
            written_bytes: 2048,
            ..CacheStats::default()
        };
        let jit = JitStats { kept_regions: 3, kept_pages: 4, kept_blocks: 40, ..JitStats::default() };
        let mut report = CacheReport::default();
        report.add(&cache, &jit);
        report.add(&CacheStats { entries: 11, trouble: Some("no room".into()), ..cache.clone() }, &jit);
        report.add(&CacheStats { entries: 11, ..CacheStats::default() }, &JitStats::default());
        let text = report.text();
        for part in ["has 11 entries with 0 blocks", "14 entries read from disk, 2 from memory", "4 refused"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        for part in ["took 80 blocks in 8 pages, and 6 regions of 10", "4 KiB", "cache: no room"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!((&json["taken_blocks"], &json["trouble"]), (&80.into(), &"no room".into()));
    }

    #[test]
    fn a_profile_shows_shares() {
        let place =
            |name: &str, tiers: [u64; 3]| HotPlace { name: name.into(), samples: tiers.iter().sum(), tiers };
        let places = vec![place("memcpy", [1, 0, 29]), place("0x1234", [0, 10, 0])];
        let report = ProfileReport::new(&Profile { places, samples: 60, tiers: [11, 10, 39] });
        let text = report.text();
        let lines: Vec<Vec<_>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[2], ["isomer:", "50", "%", "30", "3", "%", "0", "%", "97", "%", "memcpy"]);
        assert_eq!(lines[3].last(), Some(&"0x1234"));
        assert_eq!(serde_json::to_value(&report).unwrap()["hot"][1]["template"], 10);
    }
}
