//! The columns of the table: QEMU, and Isomer's engines with and without a code cache. A column whose options the binary
//! does not know is left out, with what the binary said about it.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use super::Places;
use super::image::Guest;
use super::rows::Goal;

/// Guest RAM of every machine.
pub(super) const MEMORY_MIB: u32 = 512;
/// QEMU's guest RAM as a memfd, so that it can be told from the rest of the process.
pub(super) const QEMU_RAM: &str = "memory-backend-memfd";
/// The name that Isomer gives the memfd of guest RAM.
pub(super) const ISOMER_RAM: &str = "memfd:isomer-ram";

/// A machine with its options.
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) engine: Engine,
    cache: Cache,
    asked: Asked,
    shown: Shown,
}

/// Which goals a column has to reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// None, as of the interpreter, which nobody should need to switch for.
    Nothing,
    Cold,
    Warm,
}

/// When a column is measured without being named on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    Always,
    /// If the binary compiles and has no cache.
    WithoutCache,
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Engine {
    Qemu,
    /// Isomer, with the options that choose the engine.
    Isomer(&'static [&'static str]),
}

/// What a run finds in its code cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cache {
    /// No option says anything about it.
    Absent,
    /// None is read or written.
    Off,
    /// An empty one, which it fills.
    Empty,
    /// What a whole run before this one left, which it does not change.
    Primed,
}

/// QEMU is the first.
pub(super) const COLUMNS: [Column; 6] = [
    Column {
        name: "QEMU",
        engine: Engine::Qemu,
        cache: Cache::Absent,
        asked: Asked::Nothing,
        shown: Shown::Always,
    },
    isomer("interp", &["--engine", "interp"], Cache::Absent, Asked::Nothing, Shown::Always),
    isomer("jit cold", JIT, Cache::Empty, Asked::Cold, Shown::Always),
    isomer("jit warm", JIT, Cache::Primed, Asked::Warm, Shown::Always),
    isomer("jit uncached", JIT, Cache::Off, Asked::Cold, Shown::Never),
    isomer("jit", JIT, Cache::Absent, Asked::Cold, Shown::WithoutCache),
];

const JIT: &[&str] = &["--engine", "jit"];

const fn isomer(
    name: &'static str,
    options: &'static [&'static str],
    cache: Cache,
    asked: Asked,
    shown: Shown,
) -> Column {
    Column { name, engine: Engine::Isomer(options), cache, asked, shown }
}

impl Column {
    /// What this column is asked to reach.
    pub(super) fn goal(&self, goal: Goal) -> Option<f64> {
        match self.asked {
            Asked::Nothing => None,
            Asked::Cold => Some(goal.cold),
            Asked::Warm => Some(goal.warm),
        }
    }

    /// Whether a run must come before those that are measured.
    pub(super) fn needs_priming(&self) -> bool {
        self.cache == Cache::Primed
    }

    /// The command that boots a guest with one CPU; `purpose` names the caches of machines that run the same things.
    ///
    /// # Errors
    /// When an old cache cannot be removed.
    pub(super) fn command(&self, places: &Places, guest: &Guest, purpose: &str) -> Result<Command> {
        self.boot(places, guest, &self.cache_options(places, purpose)?)
    }

    /// The command of a run that fills the cache of those that are measured.
    ///
    /// # Errors
    /// When an old cache cannot be removed.
    pub(super) fn priming_command(&self, places: &Places, guest: &Guest, purpose: &str) -> Result<Command> {
        self.boot(places, guest, &with_folder("rw", places.cache(purpose, "primed")))
    }

    /// Forgets what earlier runs left.
    ///
    /// # Errors
    /// When an old cache cannot be removed.
    pub(super) fn empty_primed_cache(&self, places: &Places, purpose: &str) -> Result<()> {
        empty(&places.cache(purpose, "primed"))
    }

    /// The command that starts the shortest kernel there is.
    ///
    /// # Errors
    /// When the kernel cannot be written, or an old cache not be removed.
    pub(super) fn tiny_command(&self, places: &Places) -> Result<Command> {
        let tiny = &places.platform.tiny;
        let mut command = self.machine(places);
        let kernel = match self.engine {
            Engine::Qemu => {
                let kernel = places.work.join("tiny-qemu.elf");
                tiny.write(&kernel, tiny.qemu_address)?;
                command.args(tiny.qemu_options).arg("-kernel");
                kernel
            }
            Engine::Isomer(_) => {
                let kernel = places.work.join("tiny-isomer.elf");
                tiny.write(&kernel, tiny.isomer_address)?;
                command.args(self.cache_options(places, "tiny")?).arg("--kernel");
                kernel
            }
        };
        command.arg(kernel);
        Ok(command)
    }

    fn boot(&self, places: &Places, guest: &Guest, cache: &[OsString]) -> Result<Command> {
        let mut command = self.machine(places);
        let dash = match self.engine {
            Engine::Qemu => {
                command.arg("-no-reboot");
                "-"
            }
            Engine::Isomer(_) => {
                command.args(["--stats", "--no-reboot"]).args(cache);
                "--"
            }
        };
        command.arg(format!("{dash}kernel")).arg(&guest.kernel);
        command.arg(format!("{dash}initrd")).arg(&guest.initrd);
        command.args([&format!("{dash}append"), &guest.append]);
        Ok(command)
    }

    /// The emulator with one CPU, its RAM, and a serial port on the standard streams.
    fn machine(&self, places: &Places) -> Command {
        match self.engine {
            Engine::Qemu => {
                let mut qemu = Command::new(places.platform.qemu);
                qemu.args(places.platform.qemu_machine).args(places.qemu_cpu_options());
                qemu.args(["-smp", "1", "-m", &MEMORY_MIB.to_string(), "-nographic"]);
                qemu
            }
            Engine::Isomer(options) => {
                let mut isomer = Command::new(&places.isomer);
                isomer.args(["run", "--arch", places.platform.arch, "--memory", &format!("{MEMORY_MIB}M")]);
                isomer.args(options);
                isomer
            }
        }
    }

    fn cache_options(&self, places: &Places, purpose: &str) -> Result<Vec<OsString>> {
        Ok(match self.cache {
            Cache::Absent => Vec::new(),
            Cache::Off => vec!["--cache".into(), "off".into()],
            Cache::Empty => {
                let folder = places.cache(purpose, "cold");
                empty(&folder)?;
                with_folder("rw", folder)
            }
            Cache::Primed => {
                let folder = places.cache(purpose, "primed");
                create(&folder)?;
                with_folder("ro", folder)
            }
        })
    }

    /// Why the binary cannot run this column: what it says about the options, or about a guest of five instructions.
    fn obstacle(&self, places: &Places) -> Result<Option<String>> {
        let mut command = self.tiny_command(places)?;
        let output = command.stdin(Stdio::null()).output();
        let output = output.with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let said = String::from_utf8_lossy(&output.stderr);
        let first = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("nothing");
        Ok((!output.status.success()).then(|| format!("{}: {first}", output.status)))
    }
}

/// # Errors
/// When a name is not a column's.
pub(super) fn check(asked: &[String]) -> Result<()> {
    let known: Vec<String> = COLUMNS.iter().skip(1).map(|column| option_name(column.name)).collect();
    match asked.iter().find(|name| !known.contains(name)) {
        None => Ok(()),
        Some(name) => bail!("no column is called {name}; there are {}", known.join(", ")),
    }
}

/// The columns asked for that work here, QEMU first.
///
/// # Errors
/// When a name is not a column's, or QEMU does not work.
pub(super) fn available(asked: &[String], places: &Places) -> Result<Vec<&'static Column>> {
    check(asked)?;
    let mut working: Vec<&'static Column> = Vec::new();
    for column in &COLUMNS {
        let wanted = match column.shown {
            _ if column.engine == Engine::Qemu => true,
            _ if !asked.is_empty() => asked.contains(&option_name(column.name)),
            Shown::Always => true,
            // This one stands behind those with a cache.
            Shown::WithoutCache => working.iter().all(|column| column.asked == Asked::Nothing),
            Shown::Never => false,
        };
        if !wanted {
            continue;
        }
        match column.obstacle(places)? {
            None => working.push(column),
            Some(why) => {
                ensure!(column.engine != Engine::Qemu, "{} does not work: {why}", column.name);
                println!(
                    "without the column `{}`: {} ended with {why}",
                    column.name,
                    places.isomer.display()
                );
            }
        }
    }
    ensure!(working.len() > 1, "none of the columns asked for works with {}", places.isomer.display());
    Ok(working)
}

/// A column's name as `--engine` takes it.
pub(super) fn option_name(name: &str) -> String {
    name.replace(' ', "-")
}

fn with_folder(mode: &str, folder: PathBuf) -> Vec<OsString> {
    vec!["--cache".into(), mode.into(), "--cache-dir".into(), folder.into()]
}

/// An empty folder in the place of whatever was there.
fn empty(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    create(folder)
}

fn create(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))
}

/// Options that make guest RAM a mapping of its own; Isomer's is one already.
pub(super) fn ram_options(column: &Column) -> Vec<String> {
    match column.engine {
        Engine::Qemu => {
            ["-object", &format!("{QEMU_RAM},id=ram,size={MEMORY_MIB}M"), "-machine", "memory-backend=ram"]
                .map(str::to_owned)
                .to_vec()
        }
        Engine::Isomer(_) => Vec::new(),
    }
}

/// What the name of guest RAM's mapping contains.
pub(super) fn ram_name(column: &Column) -> &'static str {
    match column.engine {
        Engine::Qemu => QEMU_RAM,
        Engine::Isomer(_) => ISOMER_RAM,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::platform::Platform;
    use crate::process;

    fn places(work: &Path) -> Result<Places> {
        Ok(Places {
            work: work.into(),
            isomer: "isomer".into(),
            built: false,
            qemu_cpu: None,
            platform: Platform::named("riscv64")?,
        })
    }

    fn column(name: &str) -> &'static Column {
        COLUMNS.iter().find(|column| column.name == name).unwrap_or(&COLUMNS[0])
    }

    #[test]
    fn machines_differ_in_nothing_but_their_engine_and_cache() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let places = places(folder.path())?;
        let guest = Guest { kernel: "K".into(), initrd: "I".into(), append: "A".into() };
        let shown = |name: &str| {
            Ok::<_, anyhow::Error>(process::describe(&column(name).command(&places, &guest, "p")?))
        };
        assert_eq!(
            shown("QEMU")?,
            "qemu-system-riscv64 -M virt -smp 1 -m 512 -nographic -no-reboot -kernel K -initrd I -append A"
        );
        let interp = shown("interp")?;
        assert_eq!(
            interp,
            "isomer run --arch riscv64 --memory 512M --engine interp --stats --no-reboot \
             --kernel K --initrd I --append A"
        );
        let cache = folder.path().join("cache/p");
        let arm = Places {
            platform: Platform::named("aarch64")?,
            qemu_cpu: Some("max".into()),
            work: folder.path().into(),
            isomer: "isomer".into(),
            built: false,
        };
        let shown_arm = process::describe(&column("QEMU").command(&arm, &guest, "p")?);
        assert!(
            shown_arm.starts_with("qemu-system-aarch64 -M virt,gic-version=3 -cpu max -smp 1"),
            "{shown_arm}"
        );
        let primed = format!("--cache ro --cache-dir {}", cache.join("primed").display());
        assert!(shown("jit warm")?.contains(&primed));
        Ok(())
    }

    #[test]
    fn a_cold_run_finds_an_empty_cache_and_a_primed_one_keeps_it() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let places = places(folder.path())?;
        let guest = Guest { kernel: "K".into(), initrd: "I".into(), append: "A".into() };
        for (name, cache, kept) in [("jit cold", "cold", false), ("jit warm", "primed", true)] {
            let file = places.cache("p", cache).join("code");
            create(&places.cache("p", cache))?;
            fs::write(&file, "code")?;
            column(name).command(&places, &guest, "p")?;
            assert_eq!(file.exists(), kept, "{name}");
        }
        column("jit warm").empty_primed_cache(&places, "p")?;
        assert!(!places.cache("p", "primed").join("code").exists(), "a priming run starts from nothing");
        Ok(())
    }

    #[test]
    fn columns_are_named_with_hyphens() {
        assert!(check(&["interp".to_owned(), "jit-cold".to_owned()]).is_ok());
        let error = check(&["jit cold".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("jit-warm"), "{error}");
    }

    #[test]
    fn goals_are_those_of_compiled_code() {
        let goal = Goal { cold: 1.0, warm: 2.0 };
        let goals = ["QEMU", "interp", "jit cold", "jit warm"].map(|name| column(name).goal(goal));
        assert_eq!(goals, [None, None, Some(1.0), Some(2.0)]);
    }
}
