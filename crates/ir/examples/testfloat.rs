//! Checks the soft float against the vectors of Berkeley TestFloat 3e (`testfloat_gen`).
//!
//! ```text
//! testfloat_gen -rnear_even -exact f64_add | testfloat f64_add rnear_even
//! testfloat f32_roundToInt rminMag notexact < vectors
//! testfloat --all path/to/testfloat_gen [--level 2] [--guest arm] [--only f64_]
//! ```
//!
//! The second form's further words are `testfloat_gen`'s options without the dash. Results and flags must match bit
//! for bit, NaNs included, so the generator's SoftFloat has to be built for the guest: `SPECIALIZE_TYPE=RISCV` for
//! riscv, the default; `ARM-VFPv2` for `--guest arm`; `8086-SSE` for `--guest x86`. The last two leave out `mulAdd`,
//! where SoftFloat's choice of a NaN is neither machine's, and bfloat16, whose payloads it misaligns. Vectors of an operation with a host fast path are run
//! again with NX already set, which is what enables that path.
//!
//! Prints a line per function and a total; exits 1 after a mismatch, 2 if it could not run.

use std::io::{self, BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};

use isomer_ir::softfloat::{
    self as sf, Env, Flags, Fmt, IntRule, IntType, NanRule, Negate, Relation, Round, Tininess,
};

/// Mismatches of one run that are printed before it only counts.
const MISMATCHES_SHOWN: u64 = 10;

const FORMATS: [(&str, Fmt); 4] =
    [("f16", Fmt::F16), ("bf16", Fmt::Bf16), ("f32", Fmt::F32), ("f64", Fmt::F64)];

const INTEGERS: [(&str, IntType); 4] =
    [("ui32", IntType::U32), ("ui64", IntType::U64), ("i32", IntType::I32), ("i64", IntType::I64)];

const ROUNDINGS: [(&str, Round); 6] = [
    ("rnear_even", Round::NearestEven),
    ("rminMag", Round::TowardZero),
    ("rmin", Round::Down),
    ("rmax", Round::Up),
    ("rnear_maxMag", Round::NearestAway),
    ("rodd", Round::ToOdd),
];

type BinaryFn = fn(Fmt, u64, u64, &mut Env) -> u64;
type OperationFn = fn(Fmt) -> Function;
type CompareFn = fn(Fmt, u64, u64, &mut Env) -> Relation;

/// A TestFloat function.
#[derive(Copy, Clone)]
enum Function {
    FromInt(IntType, Fmt),
    ToInt(Fmt, IntType),
    Convert(Fmt, Fmt),
    RoundToInt(Fmt),
    Sqrt(Fmt),
    Binary(Fmt, BinaryFn),
    MulAdd(Fmt),
    Compare(Fmt, CompareFn, &'static [Relation]),
}

const OPERATIONS: [(&str, OperationFn); 14] = [
    ("roundToInt", Function::RoundToInt),
    ("add", |f| Function::Binary(f, sf::add)),
    ("sub", |f| Function::Binary(f, sf::sub)),
    ("mul", |f| Function::Binary(f, sf::mul)),
    ("mulAdd", Function::MulAdd),
    ("div", |f| Function::Binary(f, sf::div)),
    ("rem", |f| Function::Binary(f, sf::rem)),
    ("sqrt", Function::Sqrt),
    ("eq", |f| Function::Compare(f, sf::compare_quiet, &[Relation::Equal])),
    ("le", |f| Function::Compare(f, sf::compare_signaling, &[Relation::Less, Relation::Equal])),
    ("lt", |f| Function::Compare(f, sf::compare_signaling, &[Relation::Less])),
    ("eq_signaling", |f| Function::Compare(f, sf::compare_signaling, &[Relation::Equal])),
    ("le_quiet", |f| Function::Compare(f, sf::compare_quiet, &[Relation::Less, Relation::Equal])),
    ("lt_quiet", |f| Function::Compare(f, sf::compare_quiet, &[Relation::Less])),
];

fn lookup<T: Copy>(table: &[(&str, T)], name: &str) -> Option<T> {
    table.iter().find(|(n, _)| *n == name).map(|&(_, value)| value)
}

impl Function {
    fn parse(name: &str) -> Option<Function> {
        let Some((from, to)) = name.split_once("_to_") else {
            let (format, operation) = name.split_once('_')?;
            return Some(lookup(&OPERATIONS, operation)?(lookup(&FORMATS, format)?));
        };
        match (lookup(&INTEGERS, from), lookup(&INTEGERS, to)) {
            (Some(int), None) => Some(Function::FromInt(int, lookup(&FORMATS, to)?)),
            (None, Some(int)) => Some(Function::ToInt(lookup(&FORMATS, from)?, int)),
            _ => Some(Function::Convert(lookup(&FORMATS, from)?, lookup(&FORMATS, to)?)),
        }
    }

    fn operands(self) -> usize {
        match self {
            Function::Binary(..) | Function::Compare(..) => 2,
            Function::MulAdd(_) => 3,
            _ => 1,
        }
    }

    /// Every function of the matrix, by name. TestFloat knows bfloat16 only as a neighbour of binary32.
    fn all() -> Vec<String> {
        let formats = || FORMATS.iter().filter(|(_, f)| *f != Fmt::Bf16).map(|(name, _)| name);
        let mut names = vec!["bf16_to_f32".to_owned(), "f32_to_bf16".to_owned()];
        for format in formats() {
            for (int, _) in INTEGERS {
                names.push(format!("{int}_to_{format}"));
                names.push(format!("{format}_to_{int}"));
            }
            names.extend(formats().filter(|to| *to != format).map(|to| format!("{format}_to_{to}")));
            names.extend(OPERATIONS.iter().map(|(operation, _)| format!("{format}_{operation}")));
        }
        names
    }

    /// Whether the result depends on the environment's rounding direction, and on the detection of tininess.
    fn depends_on(self) -> (bool, bool) {
        match self {
            Function::Convert(_, Fmt::Bf16) | Function::Compare(..) => (false, false),
            Function::Convert(from, to) => (to.bits() < from.bits(), to.bits() < from.bits()),
            Function::FromInt(..) | Function::Sqrt(_) => (true, false),
            Function::ToInt(..) | Function::RoundToInt(_) => (true, false),
            Function::Binary(..) | Function::MulAdd(_) => (true, true),
        }
    }

    /// Whether SoftFloat's NaN results are those of the machine it is specialised for.
    fn trusts_payloads(self) -> bool {
        !matches!(
            self,
            Function::MulAdd(_) | Function::Convert(Fmt::Bf16, _) | Function::Convert(_, Fmt::Bf16)
        )
    }

    fn has_fast_path(self) -> bool {
        match self {
            Function::Sqrt(f) | Function::Binary(f, _) | Function::MulAdd(f) => f.bits() > 16,
            _ => false,
        }
    }

    fn run(self, x: &[u64], setting: &Setting, env: &mut Env) -> u64 {
        let rounding = env.rounding;
        match self {
            Function::FromInt(int, to) => sf::from_int(to, x[0], int, env),
            Function::ToInt(from, int) => {
                let value = sf::to_int(from, x[0], int, rounding, setting.guest.int, env);
                if matches!(int, IntType::I32) { value & 0xffff_ffff } else { value }
            }
            Function::Convert(from, to) => sf::convert(from, to, x[0], env),
            Function::RoundToInt(f) => sf::round_to_integral(f, x[0], rounding, setting.exact, env),
            Function::Sqrt(f) => sf::sqrt(f, x[0], env),
            Function::Binary(f, operation) => operation(f, x[0], x[1], env),
            Function::MulAdd(f) => sf::mul_add(f, x[0], x[1], x[2], Negate::NONE, env),
            Function::Compare(f, compare, wanted) => u64::from(wanted.contains(&compare(f, x[0], x[1], env))),
        }
    }
}

/// The choices of a guest that SoftFloat's specialisations cover.
#[derive(Copy, Clone)]
struct Guest {
    nan: NanRule,
    int: IntRule,
}

const GUESTS: [(&str, Guest); 3] = [
    ("riscv", Guest { nan: NanRule::Canonical, int: IntRule::RiscV }),
    ("arm", Guest { nan: NanRule::Arm, int: IntRule::Arm }),
    ("x86", Guest { nan: NanRule::X86, int: IntRule::X86 }),
];

/// What a run is generated and checked with.
#[derive(Copy, Clone)]
struct Setting {
    guest: Guest,
    rounding: Round,
    tininess: Tininess,
    exact: bool,
}

impl Setting {
    fn new(guest: Guest) -> Setting {
        Setting { guest, rounding: Round::NearestEven, tininess: Tininess::After, exact: true }
    }

    fn set(&mut self, option: &str) -> Result<(), String> {
        match option {
            "tininessbefore" => self.tininess = Tininess::Before,
            "tininessafter" => self.tininess = Tininess::After,
            "exact" => self.exact = true,
            "notexact" => self.exact = false,
            _ => {
                self.rounding = lookup(&ROUNDINGS, option).ok_or(format!("unknown option '{option}'"))?;
            }
        }
        Ok(())
    }

    fn env(&self, flags: Flags) -> Env {
        let Setting { guest, rounding, tininess, .. } = *self;
        Env { rounding, nan: guest.nan, tininess, flags, ..Env::default() }
    }
}

#[derive(Copy, Clone, Default)]
struct Tally {
    vectors: u64,
    failures: u64,
}

/// The hexadecimal words of a line.
fn parse_line(line: &[u8], words: &mut [u64]) -> Option<()> {
    let mut tokens = line.split(u8::is_ascii_whitespace).filter(|token| !token.is_empty());
    for word in words {
        *word = 0;
        for &digit in tokens.next()? {
            *word = *word << 4 | u64::from((digit as char).to_digit(16)?);
        }
    }
    tokens.next().is_none().then_some(())
}

/// Checks every line of `input`: operands, result, flags.
fn check(function: Function, setting: &Setting, mut input: impl BufRead) -> Result<Tally, String> {
    let count = function.operands();
    let fast = function.has_fast_path() && setting.rounding == Round::NearestEven;
    let mut tally = Tally::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        if input.read_until(b'\n', &mut line).map_err(|e| format!("cannot read vectors: {e}"))? == 0 {
            return Ok(tally);
        }
        let mut words = [0; 5];
        let words = &mut words[..count + 2];
        let text = || String::from_utf8_lossy(&line).trim_end().to_owned();
        parse_line(&line, words).ok_or_else(|| format!("not {} hexadecimal words: {}", count + 2, text()))?;
        tally.vectors += 1;
        let (operands, expected) = words.split_at(count);
        for before in [Flags::NONE, Flags::NX].into_iter().take(1 + usize::from(fast)) {
            let mut env = setting.env(before);
            let result = function.run(operands, setting, &mut env);
            let flags = env.flags.fflags();
            if result != expected[0] || u64::from(flags) != expected[1] | u64::from(before.bits()) {
                tally.failures += 1;
                if tally.failures <= MISMATCHES_SHOWN {
                    println!("{} got {result:X} {flags:02X} with {:02X} set before", text(), before.bits());
                }
            }
        }
    }
}

/// Options of `--all`.
struct Matrix {
    generator: String,
    guest: Guest,
    level: String,
    only: String,
}

impl Matrix {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Matrix, String> {
        let generator = args.next().ok_or("--all needs the path of testfloat_gen")?;
        let mut matrix = Matrix { generator, guest: GUESTS[0].1, level: "1".into(), only: String::new() };
        while let Some(option) = args.next() {
            let value = args.next().ok_or(format!("{option} needs a value"))?;
            match option.as_str() {
                "--level" => matrix.level = value,
                "--only" => matrix.only = value,
                "--guest" => {
                    matrix.guest = lookup(&GUESTS, &value).ok_or(format!("unknown guest '{value}'"))?
                }
                _ => return Err(format!("unknown option '{option}'")),
            }
        }
        Ok(matrix)
    }

    fn run(&self) -> Result<Tally, String> {
        let mut total = Tally::default();
        for name in Function::all().iter().filter(|name| name.contains(&self.only)) {
            let function = Function::parse(name).ok_or(format!("unknown function '{name}'"))?;
            if self.guest.nan != NanRule::Canonical && !function.trusts_payloads() {
                continue;
            }
            let mut sum = Tally::default();
            let runs = variants(function);
            for options in &runs {
                let tally = self.generate(name, function, options)?;
                sum.vectors += tally.vectors;
                sum.failures += tally.failures;
            }
            println!(
                "{name:<18} {:>3} runs {:>11} vectors {:>7} failures",
                runs.len(),
                sum.vectors,
                sum.failures
            );
            total.vectors += sum.vectors;
            total.failures += sum.failures;
        }
        Ok(total)
    }

    /// Runs the generator for one function and setting and checks what it writes.
    fn generate(&self, name: &str, function: Function, options: &[&str]) -> Result<Tally, String> {
        let mut setting = Setting::new(self.guest);
        options.iter().try_for_each(|option| setting.set(option))?;
        let mut child = Command::new(&self.generator)
            .args(["-level", &self.level])
            .args(options.iter().map(|option| format!("-{option}")))
            .arg(name)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| format!("cannot start {}: {e}", self.generator))?;
        let output = child.stdout.take().ok_or("no pipe from the generator")?;
        let tally = check(function, &setting, BufReader::with_capacity(1 << 16, output))?;
        let status = child.wait().map_err(|e| format!("cannot wait for {}: {e}", self.generator))?;
        if !status.success() || tally.vectors == 0 {
            return Err(format!(
                "{} {options:?} {name} wrote {} vectors, {status}",
                self.generator, tally.vectors
            ));
        }
        Ok(tally)
    }
}

/// The option sets that make a difference to `function`.
fn variants(function: Function) -> Vec<Vec<&'static str>> {
    let (rounds, tininess) = function.depends_on();
    // TestFloat rounds to integers toward zero when asked for odd.
    let to_integer = matches!(function, Function::ToInt(..) | Function::RoundToInt(_));
    let roundings = match (rounds, to_integer) {
        (false, _) => 1,
        (true, true) => 5,
        (true, false) => 6,
    };
    let exactness: &[&str] =
        if matches!(function, Function::RoundToInt(_)) { &["exact", "notexact"] } else { &["exact"] };
    let tininess: &[&str] = if tininess { &["tininessafter", "tininessbefore"] } else { &["tininessafter"] };
    let mut runs = Vec::new();
    for (rounding, _) in &ROUNDINGS[..roundings] {
        for exact in exactness {
            runs.extend(tininess.iter().map(|tininess| vec![*rounding, *exact, *tininess]));
        }
    }
    runs
}

fn run(mut args: impl Iterator<Item = String>) -> Result<Tally, String> {
    let name =
        args.next().ok_or("usage: testfloat FUNCTION [OPTION]... | --all TESTFLOAT_GEN [--level N]")?;
    if name == "--all" {
        return Matrix::parse(args)?.run();
    }
    let function = Function::parse(&name).ok_or(format!("unknown function '{name}'"))?;
    let mut setting = Setting::new(GUESTS[0].1);
    args.try_for_each(|option| setting.set(option.trim_start_matches('-')))?;
    check(function, &setting, io::stdin().lock())
}

fn main() -> ExitCode {
    match run(std::env::args().skip(1)) {
        Ok(Tally { vectors, failures }) => {
            println!("{vectors} vectors, {failures} failures");
            ExitCode::from(u8::from(failures != 0))
        }
        Err(message) => {
            eprintln!("testfloat: {message}");
            ExitCode::from(2)
        }
    }
}
