//! The command line of `bench-peers`.

use std::path::PathBuf;

use super::load::Load;
use super::metric::Job;

/// The programs that are compared, as `--only` and `--without` name them.
pub(crate) const PEERS: [&str; 3] = ["tercel", "llama.cpp", "candle"];
const WORDS: [&str; 6] = ["prefill", "decode", "start", "memory", "chats", "serve"];

/// What to measure, and how often.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Args {
    /// As the user names them; none means all that `xtask` knows.
    pub(crate) models: Vec<String>,
    pub(crate) threads: Vec<u32>,
    pub(crate) rounds: u32,
    pub(crate) jobs: Vec<Job>,
    pub(crate) peers: Vec<&'static str>,
    /// Use other programs as they are built, and leave out those that are not.
    pub(crate) is_build_forbidden: bool,
    /// None means a folder of its own below `target/`.
    pub(crate) out: Option<PathBuf>,
}

impl Args {
    /// Reads what follows `bench-peers`.
    ///
    /// # Errors
    /// With the argument that is wrong.
    pub(crate) fn parse(args: &[String]) -> Result<Self, String> {
        let (mut models, mut threads, mut rounds, mut out) = (Vec::new(), None, None, None);
        let (mut is_quick, mut has_limits, mut is_build_forbidden) = (false, false, false);
        let (mut only, mut without, mut words) = (Vec::new(), Vec::new(), Vec::new());
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || {
                let value = args.next().map(String::as_str);
                value.ok_or_else(|| format!("`{arg}` needs a value"))
            };
            match arg.as_str() {
                "--model" => models.push(value()?.to_owned()),
                "--threads" => threads = Some(numbers(arg, value()?)?),
                "--rounds" => rounds = Some(number(arg, value()?)?),
                "--out" => out = Some(PathBuf::from(value()?)),
                "--only" => only.extend(chosen(arg, value()?, &PEERS)?),
                "--without" => without.extend(chosen(arg, value()?, &PEERS)?),
                "--what" => words.extend(chosen(arg, value()?, &WORDS)?),
                "--quick" => is_quick = true,
                "--limits" => has_limits = true,
                "--no-build" => is_build_forbidden = true,
                _ => return Err(format!("unexpected `{arg}`")),
            }
        }
        let is_chosen = |peer: &&str| {
            let is_listed = only.is_empty() || only.contains(peer);
            is_listed && !without.contains(peer)
        };
        let peers: Vec<&str> = PEERS.into_iter().filter(is_chosen).collect();
        if peers.is_empty() {
            return Err("nothing is left to measure".to_owned());
        }
        let mut jobs = if is_quick { quick() } else { full() };
        if words.contains(&"serve") {
            jobs.extend(serve(if is_quick { 5 } else { 60 }));
        }
        jobs.retain(|job| words.is_empty() || words.contains(&job.word()));
        if has_limits {
            jobs.insert(0, Job::Limits);
        }
        Ok(Self {
            models,
            threads: threads.unwrap_or_else(|| vec![2]),
            rounds: rounds.unwrap_or(if is_quick { 2 } else { 5 }),
            jobs,
            peers,
            is_build_forbidden,
            out,
        })
    }
}

/// The points of the goals.
fn full() -> Vec<Job> {
    let prefill = [128, 512, 2048].map(|tokens| Job::Prefill { tokens });
    let decode = [0, 2048, 7000].map(|depth| Job::Decode { depth, tokens: 64 });
    let rest = [
        Job::Start,
        Job::Memory { context: 2048 },
        Job::Chats {
            prompt: 128,
            tokens: 64,
        },
    ];
    [prefill, decode, rest].concat()
}

/// Servers under load, which take minutes and are measured where they are named only.
fn serve(seconds: u32) -> [Job; 4] {
    [1, 4, 8, 32].map(|clients| {
        Job::Serve(Load {
            clients,
            seconds,
            prompt: 128,
            tokens: 64,
        })
    })
}

/// One or two cheap points of each kind, which show that all works.
fn quick() -> Vec<Job> {
    vec![
        Job::Prefill { tokens: 128 },
        Job::Decode {
            depth: 0,
            tokens: 16,
        },
        Job::Decode {
            depth: 256,
            tokens: 16,
        },
        Job::Start,
        Job::Memory { context: 512 },
        Job::Chats {
            prompt: 32,
            tokens: 16,
        },
    ]
}

fn chosen(flag: &str, value: &str, known: &[&'static str]) -> Result<Vec<&'static str>, String> {
    let found = value.split(',').map(|word| {
        let known_word = known.iter().copied().find(|known| *known == word);
        known_word.ok_or_else(|| {
            let known = known.join(", ");
            format!("`{flag}` is `{word}`, must be among {known}")
        })
    });
    found.collect()
}

fn numbers(flag: &str, value: &str) -> Result<Vec<u32>, String> {
    value.split(',').map(|value| number(flag, value)).collect()
}

fn number(flag: &str, value: &str) -> Result<u32, String> {
    match value.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(format!("`{flag}` is `{value}`, must be 1 or more")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Args, String> {
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Args::parse(&args)
    }

    #[test]
    fn without_arguments_all_goals_are_measured() {
        let args = parsed("").unwrap();
        assert_eq!(args.models, Vec::<String>::new());
        assert_eq!((&args.threads[..], args.rounds), (&[2][..], 5));
        assert_eq!(args.peers, PEERS);
        assert_eq!(args.jobs, full());
        assert!(!args.is_build_forbidden && args.out.is_none());
    }

    #[test]
    fn a_run_is_narrowed_by_peers_and_by_what_is_measured() {
        for (line, peers, words) in [
            ("--without candle", "tercel llama.cpp", ""),
            ("--without candle,llama.cpp", "tercel", ""),
            ("--only candle --only tercel", "tercel candle", ""),
            ("--only tercel,candle --without candle", "tercel", ""),
            (
                "--what start,chats",
                "tercel llama.cpp candle",
                "start chats",
            ),
            (
                "--what start --limits",
                "tercel llama.cpp candle",
                "limits start",
            ),
            ("--what start --quick", "tercel llama.cpp candle", "start"),
        ] {
            let args = parsed(line).expect(line);
            assert_eq!(args.peers.join(" "), peers, "{line}");
            if !words.is_empty() {
                let found: Vec<&str> = args.jobs.iter().map(Job::word).collect();
                assert_eq!(found.join(" "), words, "{line}");
            }
        }
        let args = parsed("--quick --threads 1,2 --model a --model b --out x --no-build").unwrap();
        assert_eq!((&args.threads[..], args.rounds), (&[1, 2][..], 2));
        assert_eq!(
            (&args.models[..], &args.jobs),
            (&["a".to_owned(), "b".to_owned()][..], &quick())
        );
        assert_eq!(args.out, Some(PathBuf::from("x")));
        assert!(args.is_build_forbidden);
        assert_eq!(parsed("--quick --rounds 7").unwrap().rounds, 7);
        assert_eq!(parsed("--what serve").unwrap().jobs, serve(60));
        assert_eq!(parsed("--what serve --quick").unwrap().jobs, serve(5));
    }

    #[test]
    fn wrong_arguments_are_refused_by_name() {
        for (line, part) in [
            ("--fast", "`--fast`"),
            ("--model", "`--model` needs a value"),
            ("--rounds 0", "`0`"),
            ("--threads 1,x", "`x`"),
            (
                "--only vllm",
                "`vllm`, must be among tercel, llama.cpp, candle",
            ),
            ("--what speed", "`speed`"),
            ("--only candle --without candle", "nothing is left"),
        ] {
            let problem = parsed(line).expect_err(line);
            assert!(problem.contains(part), "{line}: {problem}");
        }
    }
}
