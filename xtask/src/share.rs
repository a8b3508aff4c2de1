//! `cargo xtask share`: Debian's stock kernel on shared directories. Its root is a virtio-fs share, without an initial
//! RAM disk; it tries everything that `tests/share/init` lists on a virtio-fs and a 9p share, and the host compares.

mod files;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Deserialize;
use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt, symlink},
    path::{Path, PathBuf},
    process::Command as Program,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use self::files::Files;
use crate::process;

/// The guest's first and last words.
const START_MARK: &str = "share test has started";
const END_MARK: &str = "share test is done";
/// Beyond the time limit that isomer keeps by itself.
const GRACE: Duration = Duration::from_secs(30);
/// What the host writes when the guest asks.
const ANSWER: &str = "from the host\n";

#[derive(Args)]
pub(crate) struct Command {
    /// Number of processors
    #[arg(long, default_value_t = 2)]
    cpus: u32,
    /// Seconds before the guest counts as hung
    #[arg(long, default_value_t = 900, value_name = "SECONDS")]
    limit_s: u64,
    /// The isomer to test [default: the release binary, built from the working tree]
    #[arg(long, value_name = "FILE")]
    isomer: Option<PathBuf>,
    /// Further options of `isomer run`, after --
    #[arg(last = true)]
    options: Vec<String>,
    /// Download the newest packages again
    #[arg(long)]
    refresh: bool,
    /// Debian archive to download from [default: the one in the system's apt sources]
    #[arg(long, value_name = "URI")]
    mirror: Option<String>,
}

/// The part of isomer's JSON report that the test is judged by.
#[derive(Deserialize)]
struct Report {
    outcome: String,
    console: String,
}

/// # Errors
/// When the guest does not finish, one of its checks fails, or the host does not find what the guest left.
pub(crate) fn run(command: &Command) -> Result<()> {
    let isomer = crate::isomer(command.isomer.as_deref())?;
    let work = crate::target_dir()?.join("share");
    let files = Files::prepare(&work, command.mirror.as_deref(), command.refresh)?;
    let shares = Shares::make(&work)?;

    let mut program = Program::new(isomer);
    program.args(["run", "--no-reboot", "--format", "json", "--memory", "512M"]);
    program.args(["--timeout", &format!("{}s", command.limit_s), "--cpus", &command.cpus.to_string()]);
    program.arg("--kernel").arg(&files.kernel);
    program.args(["--append", "console=ttyS0 quiet root=root rootfstype=virtiofs rw init=/init"]);
    let share = |path: &Path, rest: &str| format!("--share={}:{rest}", path.display());
    program.arg(share(&files.root, "root"));
    for kind in KINDS {
        program.arg(share(&shares.of(kind), &format!("tag-{kind},type={kind}")));
        program.arg(share(&shares.read_only(), &format!("ro-{kind},type={kind},ro")));
    }
    program.arg(share(&shares.path.join("locks"), "locks,locks=host"));
    program.args(&command.options);

    let done = AtomicBool::new(false);
    let start = Instant::now();
    let output = thread::scope(|scope| {
        let responder = scope.spawn(|| shares.answer_until(&done));
        let output = process::output_within(&mut program, Duration::from_secs(command.limit_s) + GRACE);
        done.store(true, Ordering::Release);
        responder.join().map_err(|_| anyhow::anyhow!("the answering thread failed"))??;
        output
    })?;
    let report: Report = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("no report: {}", String::from_utf8_lossy(&output.stderr)))?;
    fs::write(work.join("console.txt"), &report.console)?;
    let passed = judge(&report)
        .with_context(|| format!("the guest's console is in {}", work.join("console.txt").display()))?;
    for kind in KINDS {
        shares.compare(kind).with_context(|| format!("what the guest left in the {kind} share"))?;
    }
    println!(
        "share: {passed} checks passed in {:.0} s, and the host found what they left",
        start.elapsed().as_secs_f64()
    );
    Ok(())
}

const KINDS: [&str; 2] = ["virtiofs", "9p"];

/// The number of checks that passed, if all did.
fn judge(report: &Report) -> Result<usize> {
    let lines = || report.console.lines().map(str::trim_end);
    let has = |mark: &str| lines().any(|line| line == mark);
    ensure!(has(START_MARK), "the guest did not reach its init on the shared root");
    let failed: Vec<_> = lines().filter(|line| line.starts_with("FAIL ")).collect();
    ensure!(failed.is_empty(), "{} checks failed:\n{}", failed.len(), failed.join("\n"));
    ensure!(has(END_MARK) && report.outcome == "power_off", "the guest ended with {}", report.outcome);
    Ok(lines().filter(|line| line.starts_with("ok ")).count())
}

/// The directories that are shared, besides the root.
struct Shares {
    path: PathBuf,
}

impl Shares {
    /// Makes them anew, with things outside that links lead to.
    fn make(work: &Path) -> Result<Self> {
        let path = work.join("shares");
        if path.exists() {
            fs::remove_dir_all(&path).with_context(|| format!("cannot empty {}", path.display()))?;
        }
        let shares = Self { path };
        let outside = shares.path.join("outside");
        fs::create_dir_all(&outside)?;
        fs::create_dir_all(shares.path.join("locks"))?;
        fs::create_dir_all(shares.read_only())?;
        fs::write(shares.read_only().join("there"), "there\n")?;
        fs::write(outside.join("secret"), "secret\n")?;
        fs::write(shares.path.join("secret"), "secret\n")?;
        for kind in KINDS {
            let share = shares.of(kind);
            fs::create_dir_all(&share)?;
            symlink(&outside, share.join("outside"))?;
            symlink(outside.join("secret"), share.join("outside-file"))?;
            fs::write(share.join("outside.path"), outside.as_os_str().as_encoded_bytes())?;
            fs::write(share.join("changing"), "before\n")?;
        }
        Ok(shares)
    }

    fn of(&self, kind: &str) -> PathBuf {
        self.path.join(kind)
    }

    fn read_only(&self) -> PathBuf {
        self.path.join("read-only")
    }

    /// Plays the host's part in the checks of what is seen when.
    fn answer_until(&self, done: &AtomicBool) -> Result<()> {
        while !done.load(Ordering::Acquire) {
            for kind in KINDS {
                let share = self.of(kind);
                if share.join("ask").exists() && !share.join("answer").exists() {
                    fs::write(share.join("new-answer"), ANSWER)?;
                    fs::rename(share.join("new-answer"), share.join("answer"))?;
                }
                if share.join("ask-change").exists() {
                    fs::remove_file(share.join("ask-change"))?;
                    fs::write(share.join("changing"), "after\n")?;
                }
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Is everything as the guest says it left it?
    fn compare(&self, kind: &str) -> Result<()> {
        let share = self.of(kind);
        let read = |name: &str| fs::read_to_string(share.join(name)).with_context(|| name.to_owned());
        let same = |what: &str, is: &dyn std::fmt::Debug, should: &dyn std::fmt::Debug| {
            let (is, should) = (format!("{is:?}"), format!("{should:?}"));
            ensure!(is == should, "{what} is {is} and not {should}");
            Ok(())
        };
        same("hello", &read("hello")?, &"hello\nmore\n")?;
        same("cut", &read("cut")?, &"012")?;
        same("b", &read("b")?, &"a\n")?;
        same("to/sub/f", &read("to/sub/f")?, &"x\n")?;
        same("order", &read("order")?, &"first\nsecond\nthird\n")?;
        same("trap", &read("trap")?, &"inside\n")?;
        same("pointer", &fs::read_link(share.join("pointer"))?, &"hello")?;
        let metadata = |name: &str| fs::symlink_metadata(share.join(name)).with_context(|| name.to_owned());
        same("hello's links", &metadata("hello")?.nlink(), &2)?;
        same("mode's permissions", &(metadata("mode")?.mode() & 0o7777), &0o4751)?;
        same("mode's time", &metadata("mode")?.mtime(), &981_173_106)?;
        same("the number of files", &fs::read_dir(share.join("many"))?.count(), &310)?;
        let sparse = metadata("sparse")?;
        same("the sparse file's length", &sparse.len(), &(6u64 << 30))?;
        ensure!(sparse.blocks() < 2048, "the sparse file takes {} blocks", sparse.blocks());
        ensure!(metadata("pipe")?.file_type().is_fifo(), "pipe is no FIFO");
        ensure!(
            !share.join("gone").exists() && !share.join("disk").exists(),
            "a file is there that must not be"
        );
        let sum = process::capture(Program::new("sha256sum").arg("big").current_dir(&share))?;
        same("the big file's digest", &format!("{sum}\n"), &read("big.sum")?)?;
        same("the secret", &fs::read_to_string(self.path.join("outside/secret"))?, &"secret\n")?;
        same("the read-only share", &fs::read_dir(self.read_only())?.count(), &1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_judged_by_its_checks_and_its_end() {
        let report =
            |console: &str, outcome: &str| Report { outcome: outcome.into(), console: console.into() };
        let good = format!("{START_MARK}\r\nok a\r\nok b\r\n{END_MARK}\r\n");
        assert_eq!(judge(&report(&good, "power_off")).unwrap(), 2);
        assert!(judge(&report(&good, "timed_out")).is_err());
        assert!(judge(&report(&good.replace("ok b", "FAIL b"), "power_off")).is_err());
        assert!(judge(&report(&good.replace(START_MARK, ""), "power_off")).is_err());
        assert!(judge(&report(&good.replace(END_MARK, ""), "power_off")).is_err());
    }

    #[test]
    fn the_init_script_prints_what_a_run_is_judged_by() -> Result<()> {
        let script = fs::read_to_string(crate::repository_root().join("tests/share/init"))?;
        assert!(
            script.contains(&format!("echo \"{START_MARK}\"\n"))
                && script.contains(&format!("echo \"{END_MARK}\"\n"))
        );
        Ok(())
    }
}
