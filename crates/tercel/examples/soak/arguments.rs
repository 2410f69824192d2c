//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use tercel::KvType;

use crate::Problem;

pub(crate) const USAGE: &str = "\
usage: soak [--minutes N | --determinism [--requests N]] [--seed N] [--model FILE | --family NAME]...

  --minutes N      mixed load for so long, all models together (default 10)
  --determinism    token ids under every setting that must not change them
  --requests N     how many requests of each model (default 200)
  --seed N         what the load is made of (default 1)
  --model FILE     a model file
  --family NAME    one of test-data/checkpoints; `all` for each";

/// What to do, with which models.
#[derive(Debug, PartialEq)]
pub(crate) struct Arguments {
    pub(crate) task: Task,
    pub(crate) seed: u64,
    pub(crate) subjects: Vec<Chosen>,
}

#[derive(Debug, PartialEq)]
pub(crate) enum Task {
    Load {
        time: Duration,
    },
    Determinism {
        requests: usize,
    },
    /// The other process of a restart: prints token ids.
    Restarted {
        requests: usize,
        kv_type: KvType,
    },
}

/// A model, as the command line names it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Chosen {
    File(PathBuf),
    Family(String),
}

impl Chosen {
    /// What it stands for: `all` is every family.
    pub(crate) fn each(self) -> Vec<Self> {
        match self {
            Self::Family(name) if name == "all" => crate::names::names()
                .into_iter()
                .map(Self::Family)
                .collect(),
            one => vec![one],
        }
    }

    /// The arguments that choose it.
    pub(crate) fn arguments(&self) -> [std::ffi::OsString; 2] {
        match self {
            Self::File(path) => ["--model".into(), path.into()],
            Self::Family(name) => ["--family".into(), name.into()],
        }
    }
}

impl Arguments {
    pub(crate) fn parse(args: impl Iterator<Item = String>) -> Result<Self, Problem> {
        let (mut minutes, mut requests, mut seed) = (None, None, 1);
        let (mut is_determinism, mut kv_type) = (false, None);
        let mut subjects = Vec::new();
        let mut args = args;
        while let Some(arg) = args.next() {
            let (flag, attached) = match arg.split_once('=') {
                Some((flag, value)) => (flag.to_owned(), Some(value.to_owned())),
                None => (arg, None),
            };
            let value = || {
                let value = attached.or_else(|| args.next());
                value.ok_or_else(|| format!("`{flag}` needs a value"))
            };
            match flag.as_str() {
                "--minutes" => minutes = Some(above_zero(&flag, &value()?)?),
                "--requests" => requests = Some(above_zero(&flag, &value()?)?),
                "--seed" => seed = value()?.parse().map_err(|_| "`--seed` is no number")?,
                "--determinism" => is_determinism = true,
                "--restarted" => kv_type = Some(kv_named(&value()?)?),
                "--model" => subjects.push(Chosen::File(value()?.into())),
                "--family" => subjects.push(Chosen::Family(value()?)),
                _ => return Err(format!("unexpected `{flag}`").into()),
            }
        }
        if subjects.is_empty() {
            return Err("no model given".into());
        }
        let requests_or_default = requests.unwrap_or(200.0) as usize;
        let task = match kv_type {
            Some(kv_type) => Task::Restarted {
                requests: requests_or_default,
                kv_type,
            },
            None if is_determinism && minutes.is_some() => {
                return Err("`--minutes` does not go with `--determinism`".into());
            }
            None if is_determinism => Task::Determinism {
                requests: requests_or_default,
            },
            None if requests.is_some() => return Err("`--requests` needs `--determinism`".into()),
            None => Task::Load {
                time: Duration::from_secs_f64(minutes.unwrap_or(10.0) * 60.0),
            },
        };
        Ok(Self {
            task,
            seed,
            subjects,
        })
    }
}

/// The name of a kind of keys and values on the command line.
pub(crate) fn kv_name(kv_type: KvType) -> &'static str {
    match kv_type {
        KvType::Q8_0 => "q8_0",
        _ => "f16",
    }
}

fn kv_named(name: &str) -> Result<KvType, Problem> {
    let known = [KvType::F16, KvType::Q8_0].into_iter();
    let mut named = known.filter(|kv_type| kv_name(*kv_type) == name);
    let found = named.next();
    found.ok_or_else(|| format!("`{name}` is neither f16 nor q8_0").into())
}

fn above_zero(flag: &str, value: &str) -> Result<f64, Problem> {
    match value.parse() {
        Ok(number) if number > 0.0 && number < 1e6 => Ok(number),
        _ => Err(format!("`{flag}` is `{value}`, must be above 0").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_are_read_or_refused_by_name() {
        let parsed = |line: &str| Arguments::parse(line.split_whitespace().map(str::to_owned));
        let read = parsed("--minutes=0.5 --seed 7 --model a.gguf --family llama").expect("read");
        let want = Arguments {
            task: Task::Load {
                time: Duration::from_secs(30),
            },
            seed: 7,
            subjects: vec![
                Chosen::File("a.gguf".into()),
                Chosen::Family("llama".into()),
            ],
        };
        assert_eq!(read, want);
        for (line, task) in [
            ("--determinism", Task::Determinism { requests: 200 }),
            (
                "--determinism --requests 9",
                Task::Determinism { requests: 9 },
            ),
            (
                "--restarted q8_0 --requests 9",
                Task::Restarted {
                    requests: 9,
                    kv_type: KvType::Q8_0,
                },
            ),
        ] {
            let line = format!("{line} --family llama");
            assert_eq!(parsed(&line).expect("read").task, task, "{line}");
        }
        for (line, part) in [
            ("", "no model"),
            ("--model", "needs a value"),
            ("--minutes 0 --family x", "`0`"),
            ("--fast", "`--fast`"),
            ("--requests 5 --family x", "--determinism"),
            ("--determinism --minutes 5 --family x", "--minutes"),
            ("--restarted f32 --family x", "`f32`"),
        ] {
            let problem = parsed(line).expect_err(line).to_string();
            assert!(problem.contains(part), "{line}: {problem}");
        }
    }
}
