//! Tercel itself, through its own command.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::child::{self, Finished};
use super::http;
use super::load::{Load, Wire};
use super::metric::{CHATS, Job, Metric};
use super::peer::{HOME, Peer, Reading, shown};
use super::subject::Subject;
use super::{PROMPT, RUN};
use crate::process;
use crate::workspace::Workspace;

/// The release build of the command.
pub(crate) struct Tercel {
    program: PathBuf,
    version: String,
    /// Where it would find settings.
    home: PathBuf,
}

/// A run of `tercel bench`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bench {
    prompt: u32,
    tokens: u32,
    depth: u32,
    chats: u32,
}

impl Bench {
    /// One chat.
    fn alone(prompt: u32, tokens: u32, depth: u32) -> Self {
        Self {
            prompt,
            tokens,
            depth,
            chats: 1,
        }
    }
}

impl Tercel {
    /// Builds the command, from the tree as it is.
    ///
    /// # Errors
    /// When it cannot be built.
    pub(crate) fn provide(workspace: &Workspace) -> Result<Self> {
        const BUILD: Duration = Duration::from_secs(1800);
        let args = ["build", "--release", "--package=tercel-cli"];
        process::run(&mut process::cargo(workspace.root(), &args), BUILD)?;
        let program = workspace.tercel();
        let version = commit(workspace).unwrap_or_else(|_| "of no commit".to_owned());
        Ok(Self {
            program,
            version,
            home: workspace.target().join("peers/home"),
        })
    }

    /// The command with its defaults: a home that has no settings of the user's.
    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env(HOME, &self.home);
        command
    }

    fn bench(
        &self,
        bench: Bench,
        subject: &Subject,
        threads: u32,
    ) -> Result<(Report, Finished, String)> {
        let mut command = self.command();
        command.arg("bench").arg(&subject.path);
        for (flag, number) in [
            ("--prompt-tokens", bench.prompt),
            ("--max-new-tokens", bench.tokens),
            ("--depth", bench.depth),
            ("--concurrency", bench.chats),
            ("--threads", threads),
            // The first request of all never counts, so it has warmed up already.
            ("--runs", 1),
            ("--warmup", 0),
        ] {
            command.args([flag, &number.to_string()]);
        }
        command.arg("--json");
        let finished = child::measure(&mut command, RUN)?;
        let report = Report::read(&finished.stdout, bench)?;
        Ok((report, finished, shown(&command, subject)))
    }

    /// What a user would type, and a run for the load time, which only `bench` tells.
    fn start(&self, subject: &Subject, threads: u32) -> Result<Reading> {
        let mut command = self.command();
        command
            .args(["run", "--raw", "--quiet", "-m"])
            .arg(&subject.path);
        command.args(["-p", PROMPT, "--max-new-tokens", "1", "--temperature", "0"]);
        command.args(["--max-context", "2048", "--threads", &threads.to_string()]);
        let finished = child::measure(&mut command, RUN)?;
        let (report, ..) = self.bench(Bench::alone(1, 1, 0), subject, threads)?;
        Ok(Reading {
            values: vec![
                (Metric::FirstToken, finished.first_output_seconds),
                (Metric::Load, report.load_seconds()?),
            ],
            peak_bytes: finished.peak_bytes,
            command: shown(&command, subject),
        })
    }

    /// `tercel serve` under load.
    fn serve(&self, subject: &Subject, threads: u32, load: Load) -> Result<Reading> {
        let address = http::free_address()?;
        let mut model = std::ffi::OsString::from("model=");
        model.push(&subject.path);
        let mut command = self.command();
        command.arg("serve").arg(model);
        command.args(["--threads", &threads.to_string()]);
        command.args(["--max-sequences", &load.clients.to_string()]);
        let shown = "tercel serve model=MODEL --threads N --max-sequences CLIENTS".to_owned();
        command.args(["--port", &address.port().to_string()]);
        let server = http::start(&mut command, address, "/readyz")?;
        let wire = Wire {
            path: "/v1/completions",
            body: &|prompt, tokens| {
                json!({
                    "model": "model",
                    "prompt": prompt,
                    "max_tokens": tokens,
                    "temperature": 0,
                    "ignore_eos": true,
                    "stream": true,
                    "stream_options": {"include_usage": true},
                })
            },
            tokens: &|event| event["usage"]["completion_tokens"].as_u64(),
            has_text: &|event| {
                let text = event["choices"][0]["text"].as_str();
                text.is_some_and(|text| !text.is_empty())
            },
        };
        Ok(Reading {
            values: load.run(address, &wire)?,
            peak_bytes: child::peak_of(server.0.id()),
            command: format!("{shown}, {load}"),
        })
    }
}

impl Peer for Tercel {
    fn name(&self) -> &'static str {
        "tercel"
    }

    fn version(&self) -> String {
        self.version.clone()
    }

    fn measure(&self, job: Job, subject: &Subject, threads: u32) -> Result<Reading> {
        let bench = match job {
            Job::Prefill { tokens } => Bench::alone(tokens, 1, 0),
            Job::Decode { depth, tokens } => Bench::alone(1, tokens, depth),
            Job::Memory { context } => Bench::alone(context.saturating_sub(1), 1, 0),
            Job::Chats { prompt, tokens } => Bench {
                chats: CHATS,
                ..Bench::alone(prompt, tokens, 0)
            },
            Job::Start => return self.start(subject, threads),
            Job::Serve(load) => return self.serve(subject, threads, load),
            Job::Limits => bail!("it has no word about the machine"),
        };
        let (report, finished, command) = self.bench(bench, subject, threads)?;
        let values = match job {
            Job::Prefill { tokens } => {
                let rate = report.value("prefill_tokens_per_second", "p50")?;
                vec![(Metric::Prefill { tokens }, rate)]
            }
            Job::Decode { depth, .. } => {
                let rate = report.value("tokens_per_second", "p50")?;
                vec![(Metric::Decode { depth }, rate)]
            }
            Job::Memory { context } => {
                let peak = finished.peak_bytes.context("this system does not tell")?;
                vec![(Metric::PeakMemory { context }, peak as f64)]
            }
            _ => vec![
                (
                    Metric::Chats,
                    report.value("total_tokens_per_second", "p50")?,
                ),
                (
                    Metric::ChatsFirstToken,
                    // What a client of a server sees: the time in the queue counts.
                    report.value("ttft_e2e_ms", "p95")? / 1e3,
                ),
            ],
        };
        Ok(Reading {
            values,
            peak_bytes: finished.peak_bytes,
            command,
        })
    }
}

/// A line of `tercel bench --json`. It has more than is read here.
struct Report(Value);

impl Report {
    /// The line about this configuration, among others.
    fn read(json: &str, bench: Bench) -> Result<Self> {
        let wanted = [
            ("prompt_tokens", bench.prompt),
            ("max_new_tokens", bench.tokens),
            ("depth", bench.depth),
            ("concurrency", bench.chats),
        ];
        for line in json.lines() {
            let line: Value = serde_json::from_str(line).context("`tercel bench` gave no JSON")?;
            let is_it = wanted.iter().all(|(name, number)| line[name] == *number);
            if line["event"] == "bench" && is_it {
                return Ok(Self(line));
            }
        }
        bail!("`tercel bench` has no line for {bench:?}")
    }

    fn value(&self, name: &str, which: &str) -> Result<f64> {
        let value = self.0[name][which].as_f64().filter(|value| *value > 0.0);
        value.with_context(|| format!("`tercel bench` has no {which} of `{name}`"))
    }

    fn load_seconds(&self) -> Result<f64> {
        let seconds = self.0["load_seconds"].as_f64();
        seconds.context("`tercel bench` has no `load_seconds`")
    }
}

/// The commit of the tree, and whether it has changes.
fn commit(workspace: &Workspace) -> Result<String> {
    const LIMIT: Duration = Duration::from_secs(60);
    let mut git = Command::new("git");
    git.args(["describe", "--always", "--dirty", "--abbrev=12"]);
    let text = process::output(git.current_dir(workspace.root()), LIMIT)?;
    Ok(format!("commit {}", text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = concat!(
        r#"{"event":"note","message":"warming up"}"#,
        "\n",
        r#"{"event":"bench","model":"m","prompt_tokens":512,"depth":0,"max_new_tokens":64,"#,
        r#""concurrency":1,"threads":2,"runs":5,"warmup":1,"#,
        r#""prefill_tokens_per_second":{"mean":900.5,"p50":901.0,"p95":950.0},"#,
        r#""tokens_per_second":{"p50":0.0},"ttft_e2e_ms":{"p95":12.5},"load_seconds":0.25,"#,
        r#""something_new":[1,2]}"#,
        "\n",
    );

    #[test]
    fn the_line_of_a_configuration_is_found_and_read() {
        let report = Report::read(LINES, Bench::alone(512, 64, 0)).unwrap();
        let value = |name: &str, which: &str| report.value(name, which);
        assert_eq!(value("prefill_tokens_per_second", "p50").unwrap(), 901.0);
        assert_eq!(value("ttft_e2e_ms", "p95").unwrap(), 12.5);
        assert_eq!(report.load_seconds().unwrap(), 0.25);
        for (name, which) in [
            ("tokens_per_second", "p50"),
            ("ttft_e2e_ms", "p50"),
            ("total_tokens_per_second", "p50"),
        ] {
            let error = value(name, which).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(which), "{error}");
        }
        let other = Report::read(LINES, Bench::alone(512, 64, 7)).err().unwrap();
        assert!(other.to_string().contains("depth: 7"), "{other}");
        let none = Report::read("no", Bench::alone(1, 1, 0)).err().unwrap();
        assert!(format!("{none:#}").contains("no JSON"), "{none:#}");
    }
}
