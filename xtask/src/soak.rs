//! Long checks of an engine: an example of the library, built and run in release.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::workspace::Workspace;
use crate::{models, process};

const BUILD: Duration = Duration::from_secs(3600);
/// What a run of some minutes takes beyond them: models load, requests end.
const BEYOND: Duration = Duration::from_secs(900);
/// More than token ids of any number of requests take.
const DETERMINISM: Duration = Duration::from_secs(12 * 3600);

/// glibc keeps what was freed in an arena for each thread, and takes ever larger blocks from there:
/// tens of megabytes that wax and wane for minutes. Large blocks of their own go back at once, so
/// that what grows is what the engine holds.
const ALLOCATOR: [(&str, &str); 3] = [
    ("MALLOC_ARENA_MAX", "2"),
    ("MALLOC_MMAP_THRESHOLD_", "262144"),
    ("MALLOC_TRIM_THRESHOLD_", "262144"),
];

/// What to check, on which models.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Soak {
    what: What,
    seed: u64,
    /// As the user names them; none means all.
    models: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
enum What {
    Load { minutes: u64 },
    Determinism { requests: u64 },
}

impl Soak {
    /// Reads what follows `soak`.
    ///
    /// # Errors
    /// With the argument that is wrong.
    pub(crate) fn parse(args: &[String]) -> Result<Self, String> {
        let (mut minutes, mut requests, mut is_determinism) = (None, None, false);
        let (mut seed, mut models) = (1, Vec::new());
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let value = |args: &mut std::slice::Iter<'_, String>| {
                let value = args.next().cloned();
                value.ok_or_else(|| format!("`{arg}` needs a value"))
            };
            match arg.as_str() {
                "--minutes" => minutes = Some(number(arg, &value(&mut args)?)?),
                "--hours" => minutes = Some(number(arg, &value(&mut args)?)?.saturating_mul(60)),
                "--requests" => requests = Some(number(arg, &value(&mut args)?)?),
                "--seed" => seed = number(arg, &value(&mut args)?)?,
                "--model" => models.push(value(&mut args)?),
                "--determinism" => is_determinism = true,
                _ => return Err(format!("unexpected `{arg}`")),
            }
        }
        let what = match (is_determinism, minutes, requests) {
            (true, None, requests) => What::Determinism {
                requests: requests.unwrap_or(200),
            },
            (false, minutes, None) => What::Load {
                minutes: minutes.unwrap_or(10),
            },
            (true, Some(_), _) => return Err("`--determinism` takes no time".to_owned()),
            (false, _, Some(_)) => return Err("`--requests` needs `--determinism`".to_owned()),
        };
        Ok(Self { what, seed, models })
    }

    /// Builds the example and runs it.
    ///
    /// # Errors
    /// When a model cannot be had, or a check fails; what failed has been printed.
    pub(crate) fn run(&self) -> Result<()> {
        let workspace = Workspace::load()?;
        let subjects = self.subjects(&workspace)?;
        let example = ["--release", "--package=tercel", "--example=soak"];
        let cargo = |task: &str| {
            let mut command = process::cargo(workspace.root(), &[task]);
            command.args(example);
            command
        };
        process::run(&mut cargo("build"), BUILD)?;
        let (flags, limit) = match self.what {
            What::Load { minutes } => {
                let time = Duration::from_secs(minutes.saturating_mul(60));
                (vec![format!("--minutes={minutes}")], time + BEYOND)
            }
            What::Determinism { requests } => {
                let flags = vec!["--determinism".to_owned(), format!("--requests={requests}")];
                (flags, DETERMINISM)
            }
        };
        let mut command = cargo("run");
        command.envs(ALLOCATOR);
        command.arg("--quiet").arg("--").args(flags);
        command.arg(format!("--seed={}", self.seed)).args(subjects);
        process::run(&mut command, limit)
    }

    /// The models as the example takes them.
    fn subjects(&self, workspace: &Workspace) -> Result<Vec<String>> {
        if self.models.is_empty() {
            let files = models::provide(workspace)?;
            let files = files.iter().map(|(_, path)| file(path));
            let families = matches!(self.what, What::Determinism { .. });
            let families = families.then(|| "--family=all".to_owned());
            return Ok(files.chain(families).collect());
        }
        let mut subjects = Vec::new();
        for model in &self.models {
            let names = models::MODELS.map(|(name, _)| name);
            let checkpoint = workspace.root().join("test-data/checkpoints").join(model);
            if names.contains(&model.as_str()) {
                let files = models::provide_some(workspace, &[model])?;
                subjects.extend(files.iter().map(|(_, path)| file(path)));
            } else if Path::new(model).is_file() {
                subjects.push(file(&std::path::absolute(model)?));
            } else if checkpoint.join("config.json").is_file() {
                subjects.push(format!("--family={model}"));
            } else {
                bail!(
                    "`{model}` is no file, none of {}, and none of test-data/checkpoints",
                    names.join(", ")
                );
            }
        }
        Ok(subjects)
    }
}

fn file(path: &Path) -> String {
    format!("--model={}", path.display())
}

fn number(flag: &str, value: &str) -> Result<u64, String> {
    match value.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(format!("`{flag}` is `{value}`, must be 1 or more")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Soak, String> {
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Soak::parse(&args)
    }

    #[test]
    fn command_lines_are_read_or_refused_by_name() {
        let soak = |what, seed, models: &[&str]| Soak {
            what,
            seed,
            models: models.iter().map(ToString::to_string).collect(),
        };
        let load = |minutes| What::Load { minutes };
        let determinism = |requests| What::Determinism { requests };
        for (line, want) in [
            ("", soak(load(10), 1, &[])),
            ("--minutes 3 --seed 7", soak(load(3), 7, &[])),
            ("--hours 2 --model a", soak(load(120), 1, &["a"])),
            ("--determinism", soak(determinism(200), 1, &[])),
            (
                "--requests 5 --determinism --model a --model b",
                soak(determinism(5), 1, &["a", "b"]),
            ),
        ] {
            assert_eq!(parsed(line), Ok(want), "{line}");
        }
        for (line, part) in [
            ("--fast", "`--fast`"),
            ("--minutes", "needs a value"),
            ("--minutes 0", "`0`"),
            ("--requests 5", "needs `--determinism`"),
            ("--determinism --hours 1", "no time"),
        ] {
            let problem = parsed(line).expect_err(line);
            assert!(problem.contains(part), "{line}: {problem}");
        }
    }

    #[test]
    fn a_model_is_a_file_or_a_checkpoint() {
        let workspace = Workspace::load().unwrap();
        let subjects = |model: &str| {
            let soak = parsed(&format!("--model {model}")).unwrap();
            soak.subjects(&workspace)
        };
        assert_eq!(subjects("llama").unwrap(), ["--family=llama"]);
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        assert_eq!(subjects(file).unwrap(), [format!("--model={file}")]);
        let error = subjects("no-such-model").unwrap_err().to_string();
        assert!(error.contains("`no-such-model`"), "{error}");
        assert!(error.contains("smollm2:135m"), "{error}");
    }
}
