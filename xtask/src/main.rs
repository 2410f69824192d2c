//! The project's own chores: everything that is more than one cargo command.
#![forbid(unsafe_code)]
#![expect(clippy::print_stderr, reason = "a command talks to the terminal")]

/// Writes a line to stdout; a reader that has gone is no reason to fail.
macro_rules! say {
    ($($part:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stdout(), $($part)*);
    }};
}

mod arm64;
mod budget;
mod ci;
mod clients;
mod counts;
mod direction;
mod documents;
mod format;
mod fuzz;
mod loom;
mod models;
mod peers;
mod process;
mod soak;
mod test;
mod tokenizers;
mod unsafe_code;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;

use workspace::Workspace;

const USAGE: &str = "\
usage: cargo xtask <task>

tasks:
  test [-- ARGS]                  every test, the real models included; ARGS go to the test
                                  runner (`-- -p tercel-text`, `-- name_of_a_test`)
  ci                              formatting, lints, the rules of the workspace, documentation,
                                  licences, then `loom`, `arm64` and `test`
  clients [-- ARGS]               the public clients of the server's protocols, unchanged, against
                                  `tercel serve`; ARGS go to pytest (`-- test_openai.py`, `-- -m slow`)
  loom                            what threads share, in every order of events
  arm64                           the kernels' tests, built for aarch64 and run by qemu
  fuzz [TARGET] [--seconds N]     each fuzz target, or one, for N seconds (default 60)
  soak [--minutes N | --hours N]  mixed load on an engine, both models in turn (default 10 minutes):
                                  flat memory, nothing left behind, right replies
  soak --determinism [--requests N]
                                  N requests (default 200) to both models and every family: the
                                  same tokens under every setting, and after a restart
       [--seed N] [--model M]...  both: another load; only these models, each by its name, as a
                                  file, or as one of test-data/checkpoints
  counts [--check]                instructions of the hot kernels, by valgrind: written to
                                  docs/instruction-counts.md, or compared with what it has
  bench-peers                     Tercel beside llama.cpp and candle, interleaved: speed, start,
                                  memory, ratios, goals; a report in target/peers
       [--model M]... [--threads N,..] [--rounds N] [--quick]
                                  models by name or file; threads (default 2); rounds (default 5);
                                  two rounds of few points, to see that all works
       [--only P,..] [--without P,..] [--no-build]
                                  of tercel, llama.cpp and candle; those two only if built already
       [--what W,..] [--limits] [--out DIR]
                                  of prefill, decode, start, memory, chats, and serve, which takes
                                  minutes and must be named; what the machine could do, too;
                                  where the report goes
                                  TERCEL_PEERS_DIR is where the others are built, once (default:
                                  tercel-peers in the user's cache directory)";

/// What to do, as the command line says it.
#[derive(Debug, PartialEq, Eq)]
enum Task {
    Help,
    Test {
        args: Vec<String>,
    },
    Ci,
    Clients {
        args: Vec<String>,
    },
    Loom,
    Arm64,
    Fuzz {
        target: Option<String>,
        seconds: u64,
    },
    Soak(soak::Soak),
    Counts(counts::Counts),
    BenchPeers {
        args: peers::Args,
        /// The command line, for the report.
        command: String,
    },
}

fn main() -> ExitCode {
    let task = match parse(std::env::args().skip(1)) {
        Ok(task) => task,
        Err(problem) => {
            eprintln!("error: {problem}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    match task {
        Task::Help => {
            say!("{USAGE}");
            Ok(())
        }
        Task::Test { args } => test::run(&args, test::is_gate()),
        Task::Ci => ci::run(),
        Task::Clients { args } => clients::run(&Workspace::load()?, &args),
        Task::Loom => loom::run(&Workspace::load()?),
        Task::Arm64 => arm64::run(&Workspace::load()?),
        Task::Fuzz { target, seconds } => fuzz::run(target.as_deref(), seconds),
        Task::Soak(soak) => soak.run(),
        Task::Counts(counts) => counts.run(&Workspace::load()?),
        Task::BenchPeers { args, command } => peers::run(&args, &command),
    }
}

fn parse(args: impl Iterator<Item = String>) -> Result<Task, String> {
    let args: Vec<String> = args.collect();
    let (task, rest) = args.split_first().ok_or("no task given")?;
    match (task.as_str(), rest) {
        ("help" | "--help" | "-h", _) => Ok(Task::Help),
        (_, [flag, ..]) if flag == "--help" || flag == "-h" => Ok(Task::Help),
        ("test", []) => Ok(Task::Test { args: Vec::new() }),
        ("test", [dashes, args @ ..]) if dashes == "--" => Ok(Task::Test {
            args: args.to_vec(),
        }),
        ("clients", []) => Ok(Task::Clients { args: Vec::new() }),
        ("clients", [dashes, args @ ..]) if dashes == "--" => Ok(Task::Clients {
            args: args.to_vec(),
        }),
        (task @ ("test" | "clients"), [other, ..]) => {
            Err(format!("`{other}` comes after `--`: {task} -- {other}"))
        }
        ("ci", []) => Ok(Task::Ci),
        ("ci", [other, ..]) => Err(format!("ci takes no arguments, found `{other}`")),
        ("loom", []) => Ok(Task::Loom),
        ("arm64", []) => Ok(Task::Arm64),
        (task @ ("loom" | "arm64"), [other, ..]) => {
            Err(format!("{task} takes no arguments, found `{other}`"))
        }
        ("fuzz", rest) => parse_fuzz(rest),
        ("soak", rest) => soak::Soak::parse(rest).map(Task::Soak),
        ("counts", rest) => counts::Counts::parse(rest).map(Task::Counts),
        ("bench-peers", rest) => Ok(Task::BenchPeers {
            args: peers::Args::parse(rest)?,
            command: format!("cargo xtask {}", args.join(" ")),
        }),
        (other, _) => Err(format!("unknown task `{other}`")),
    }
}

fn parse_fuzz(args: &[String]) -> Result<Task, String> {
    const SECONDS: u64 = 60;
    let (mut target, mut seconds) = (None, SECONDS);
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if arg == "--seconds" {
            let value = args.next().ok_or("`--seconds` needs a number")?;
            seconds = match value.parse() {
                Ok(seconds) if seconds > 0 => seconds,
                _ => return Err(format!("`--seconds` is `{value}`, must be 1 or more")),
            };
        } else if arg.starts_with('-') || target.is_some() {
            return Err(format!("unexpected `{arg}`"));
        } else {
            target = Some(arg.clone());
        }
    }
    Ok(Task::Fuzz { target, seconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Task, String> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn command_lines_are_read_or_refused_by_name() {
        let test = |args: &[&str]| Task::Test {
            args: args.iter().map(ToString::to_string).collect(),
        };
        let clients = |args: &[&str]| Task::Clients {
            args: args.iter().map(ToString::to_string).collect(),
        };
        let fuzz = |target: Option<&str>, seconds| Task::Fuzz {
            target: target.map(str::to_owned),
            seconds,
        };
        for (line, want) in [
            ("test", test(&[])),
            ("test --", test(&[])),
            ("test -- -p tercel-text", test(&["-p", "tercel-text"])),
            ("test --help", Task::Help),
            ("arm64", Task::Arm64),
            ("ci", Task::Ci),
            ("clients", clients(&[])),
            ("clients -- -m slow", clients(&["-m", "slow"])),
            ("loom", Task::Loom),
            ("fuzz", fuzz(None, 60)),
            ("fuzz gguf --seconds 5", fuzz(Some("gguf"), 5)),
            ("fuzz --seconds 5", fuzz(None, 5)),
            ("--help", Task::Help),
        ] {
            assert_eq!(parsed(line), Ok(want), "{line}");
        }
        for (line, part) in [
            ("", "no task"),
            ("tests", "`tests`"),
            ("test -p x", "test -- -p"),
            ("clients -m slow", "clients -- -m"),
            ("ci fast", "`fast`"),
            ("loom pool", "`pool`"),
            ("arm64 neon", "`neon`"),
            ("fuzz a b", "`b`"),
            ("fuzz --seconds", "needs a number"),
            ("fuzz --seconds 0", "`0`"),
            ("fuzz --jobs", "`--jobs`"),
            ("soak --fast", "`--fast`"),
            ("counts --fast", "`--fast`"),
            ("bench-peers --fast", "`--fast`"),
        ] {
            let problem = parsed(line).expect_err(line);
            assert!(problem.contains(part), "{line}: {problem}");
        }
    }
}
