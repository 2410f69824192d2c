//! Runs kernels at fixed sizes, for `cargo xtask counts` under callgrind.
//!
//! There, [`boundary`] parts what is counted from what is not: before it each kernel ran once, so
//! that nothing is left to be made ready; up to the next it runs once more, and no more than that.
#![forbid(unsafe_code)]

mod attention;
mod data;
mod layers;
mod products;

use std::hint::black_box;
use std::io::Write;
use std::process::ExitCode;

use tercel_kernels::{Isa, Pool};

const USAGE: &str = "\
usage: counts                   each case once between two boundaries
       counts --list            a line for each case: name, how much it computes, and of what
       counts CASE REPEATS      one case so many times, for a profiler";

/// What went wrong, in one line.
type Problem = Box<dyn std::error::Error>;

/// Makes the inputs of a case.
type Prepare = Box<dyn Fn(&mut Pool) -> Result<Repeat, Problem>>;

/// A case with its inputs at hand.
type Repeat = Box<dyn FnMut(&mut Pool, Isa) -> Result<(), Problem>>;

/// A kernel at one size.
struct Case {
    /// Parts with slashes between them, without blanks.
    name: String,
    /// How much one repeat computes.
    amount: usize,
    /// What it computes so many of.
    unit: &'static str,
    prepare: Prepare,
}

impl Case {
    fn new(
        name: String,
        (amount, unit): (usize, &'static str),
        prepare: impl Fn(&mut Pool) -> Result<Repeat, Problem> + 'static,
    ) -> Self {
        Self {
            name,
            amount,
            unit,
            prepare: Box::new(prepare),
        }
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args[..] {
        [] => all(),
        ["--list"] => list(),
        [name, repeats] => one(name, repeats),
        _ => Err(USAGE.into()),
    };
    let Err(problem) = done else {
        return ExitCode::SUCCESS;
    };
    let _ = writeln!(std::io::stderr(), "error: {problem}");
    ExitCode::FAILURE
}

fn cases() -> impl Iterator<Item = Case> {
    products::cases()
        .chain(attention::cases())
        .chain(layers::cases())
}

fn all() -> Result<(), Problem> {
    let (mut pool, isa) = (Pool::new(1)?, Isa::detect()?);
    for case in cases() {
        let mut repeat = (case.prepare)(&mut pool)?;
        repeat(&mut pool, isa)?;
        boundary();
        repeat(&mut pool, isa)?;
        boundary();
    }
    Ok(())
}

/// Where callgrind writes what it counted since the last time. It knows the place by this name.
#[inline(never)]
fn boundary() {
    black_box(());
}

fn list() -> Result<(), Problem> {
    let mut out = std::io::stdout().lock();
    for case in cases() {
        writeln!(out, "{} {} {}", case.name, case.amount, case.unit)?;
    }
    Ok(())
}

fn one(name: &str, repeats: &str) -> Result<(), Problem> {
    let repeats: u32 = repeats
        .parse()
        .map_err(|_| format!("REPEATS is `{repeats}`, must be a whole number"))?;
    let case = cases().find(|case| case.name == name);
    let case = case.ok_or_else(|| format!("no case `{name}`: `--list` has their names"))?;
    let (mut pool, isa) = (Pool::new(1)?, Isa::detect()?);
    let mut repeat = (case.prepare)(&mut pool)?;
    for _ in 0..repeats {
        repeat(&mut pool, isa)?;
    }
    Ok(())
}
