//! Long checks of an engine, run by `cargo xtask soak`.
//!
//! Mixed load for minutes or hours, which must leave memory as flat as it found it; and, with
//! `--determinism`, the token ids of many requests under every setting that must not change them.
#![expect(unsafe_code, reason = "an allocator that counts")]

/// Writes a line to stdout; a reader that has gone is no reason to fail.
macro_rules! say {
    ($($part:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stdout(), $($part)*);
    }};
}

mod arguments;
mod determinism;
#[path = "../../tests/families/mod.rs"]
mod families;
mod heap;
mod load;
#[path = "../../tests/families/names.rs"]
mod names;
mod random;
mod subject;

use std::process::ExitCode;

use arguments::{Arguments, Chosen, Task, USAGE};
use subject::Subject;

/// What went wrong, in one line.
type Problem = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(problem) => {
            say!("error: {problem}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let subjects = arguments.subjects.into_iter();
    let subjects = subjects.flat_map(Chosen::each).map(Subject::open);
    let subjects: Vec<Subject> = subjects.collect();
    let seed = arguments.seed;
    let outcome = match arguments.task {
        Task::Load { time } => load::run(&subjects, time, seed),
        Task::Determinism { requests } => determinism::run(&subjects, requests, seed),
        Task::Restarted { requests, kv_type } => subjects
            .iter()
            .try_for_each(|subject| determinism::restarted(subject, requests, kv_type, seed)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            say!("FAILED: {problem}");
            ExitCode::FAILURE
        }
    }
}
