//! llama.cpp, through its own programs.

mod build;
mod server;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::child::{self, Finished};
use super::metric::{Job, Metric};
use super::peer::{Peer, Reading, shown};
use super::subject::Subject;
use super::{PROMPT, RUN};

/// llama.cpp as built.
pub(crate) struct LlamaCpp {
    programs: PathBuf,
    version: String,
}

impl LlamaCpp {
    /// Finds the programs in a folder, or builds them there.
    ///
    /// # Errors
    /// When they are not there and cannot be built, or may not be.
    pub(crate) fn provide(cache: &Path, is_build_forbidden: bool) -> Result<Self> {
        let (programs, version) = build::provide(cache, is_build_forbidden)?;
        Ok(Self { programs, version })
    }

    /// A program that a build by hand may lack.
    fn program(&self, name: &str) -> Result<Command> {
        let path = self
            .programs
            .join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
        if !path.is_file() {
            bail!("{name} is not built");
        }
        Ok(Command::new(path))
    }

    /// One test of `llama-bench`, which warms up by itself.
    fn bench(
        &self,
        test: [u32; 3],
        subject: &Subject,
        threads: u32,
    ) -> Result<(f64, Finished, String)> {
        let [prompt, tokens, depth] = test.map(|number| number.to_string());
        let threads = threads.to_string();
        let mut command = self.program("llama-bench")?;
        command.arg("-m").arg(&subject.path);
        command.args(["-p", &prompt, "-n", &tokens, "-d", &depth]);
        command.args(["-t", &threads, "-r", "1", "-o", "json"]);
        let finished = child::measure(&mut command, RUN)?;
        let rate = rate(&finished.stdout, test)?;
        Ok((rate, finished, shown(&command, subject)))
    }

    /// `llama-server` takes many things into memory that this one does without.
    fn start(&self, subject: &Subject, threads: u32) -> Result<Reading> {
        let mut command = self.program("llama-completion")?;
        command.arg("-m").arg(&subject.path).args(["-p", PROMPT]);
        command.args(["-n", "1", "-c", "2048", "-t", &threads.to_string()]);
        command.args([
            "--temp",
            "0",
            "-no-cnv",
            "--no-warmup",
            "--no-display-prompt",
        ]);
        let finished = child::measure(&mut command, RUN)?;
        let load = load_seconds(&finished.stderr).map(|seconds| (Metric::Load, seconds));
        let first = (Metric::FirstToken, finished.first_output_seconds);
        Ok(Reading {
            values: [first].into_iter().chain(load).collect(),
            peak_bytes: finished.peak_bytes,
            command: shown(&command, subject),
        })
    }
}

impl Peer for LlamaCpp {
    fn name(&self) -> &'static str {
        "llama.cpp"
    }

    fn version(&self) -> String {
        self.version.clone()
    }

    fn measure(&self, job: Job, subject: &Subject, threads: u32) -> Result<Reading> {
        let (test, metric) = match job {
            Job::Prefill { tokens } => ([tokens, 0, 0], Metric::Prefill { tokens }),
            Job::Decode { depth, tokens } => ([0, tokens, depth], Metric::Decode { depth }),
            // The context is as long as the test.
            Job::Memory { context } => ([context, 0, 0], Metric::PeakMemory { context }),
            Job::Start => return self.start(subject, threads),
            Job::Chats { prompt, tokens } => {
                let command = self.program("llama-server")?;
                return server::chats(command, subject, threads, prompt, tokens);
            }
            Job::Serve(load) => {
                let command = self.program("llama-server")?;
                return server::serve(command, subject, threads, load);
            }
            Job::Limits => bail!("it has no word about the machine"),
        };
        let (rate, finished, command) = self.bench(test, subject, threads)?;
        let value = match metric {
            Metric::PeakMemory { .. } => {
                let peak = finished.peak_bytes.context("this system does not tell")?;
                peak as f64
            }
            _ => rate,
        };
        Ok(Reading {
            values: vec![(metric, value)],
            peak_bytes: finished.peak_bytes,
            command,
        })
    }
}

/// Tokens a second of the test with these tokens of prompt, reply and depth.
fn rate(json: &str, test: [u32; 3]) -> Result<f64> {
    let rows: Value = serde_json::from_str(json).context("`llama-bench` gave no JSON")?;
    let is_it = |row: &&Value| {
        let names = ["n_prompt", "n_gen", "n_depth"];
        names
            .iter()
            .zip(test)
            .all(|(name, number)| row[name] == number)
    };
    let row = rows.as_array().into_iter().flatten().find(is_it);
    let row = row.with_context(|| format!("`llama-bench` has no test {test:?}"))?;
    let rate = row["avg_ts"].as_f64().filter(|rate| *rate > 0.0);
    rate.context("`llama-bench` has no `avg_ts`")
}

/// Seconds from the line that says the model is being loaded to the next stage. The `load time`
/// that it prints at the end is another thing, which covers the first pass.
fn load_seconds(log: &str) -> Option<f64> {
    let stamp = |part: &str| {
        let line = log.lines().find(|line| line.contains(part))?;
        seconds(line.split_whitespace().next()?)
    };
    Some(stamp("threadpool init")? - stamp("load the model")?)
}

/// A time stamp of the log: minutes, seconds, milliseconds and microseconds.
fn seconds(stamp: &str) -> Option<f64> {
    let mut parts = stamp
        .split('.')
        .map(|part| part.parse::<u32>().ok().map(f64::from));
    let (minutes, seconds) = (parts.next()??, parts.next()??);
    let (milliseconds, microseconds) = (parts.next()??, parts.next()??);
    Some(minutes * 60.0 + seconds + milliseconds * 1e-3 + microseconds * 1e-6)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What llama-bench of llama-cpp-python 0.3.36 wrote, less the fields nobody reads.
    const RECORDED: &str = r#"[
      {
        "build_commit": "0c1e570",
        "model_type": "llama 256M Q4_1",
        "model_size": 96576768,
        "n_threads": 2,
        "n_prompt": 32,
        "n_gen": 0,
        "n_depth": 0,
        "avg_ns": 2555984539,
        "stddev_ns": 0,
        "avg_ts": 12.519638,
        "stddev_ts": 0.000000,
        "samples_ts": [ 12.5196 ]
      },
      {
        "build_commit": "0c1e570",
        "n_threads": 2,
        "n_prompt": 0,
        "n_gen": 8,
        "n_depth": 64,
        "avg_ts": 1.290433,
        "samples_ts": [ 1.29043 ]
      }
    ]"#;

    #[test]
    fn the_rate_of_a_test_is_found_among_others() {
        assert_eq!(rate(RECORDED, [32, 0, 0]).unwrap(), 12.519638);
        assert_eq!(rate(RECORDED, [0, 8, 64]).unwrap(), 1.290433);
        for (text, test, part) in [
            (RECORDED, [0, 8, 0], "no test [0, 8, 0]"),
            ("", [0, 8, 0], "no JSON"),
            ("{}", [0, 8, 0], "no test"),
            (
                r#"[{"n_prompt": 1, "n_gen": 0, "n_depth": 0}]"#,
                [1, 0, 0],
                "avg_ts",
            ),
        ] {
            let error = format!("{:#}", rate(text, test).unwrap_err());
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn the_load_time_is_that_of_the_model_alone() {
        let log = "0.00.007.500 I llama_completion: load the model and apply lora adapter, if any\n\
                   1.00.541.500 I cmn          init: llama threadpool init, n_threads = 2\n\
                   1.02.388.227 I common_perf_print:        load time =    1844.17 ms\n";
        let load = load_seconds(log).unwrap();
        assert!((load - 60.534).abs() < 1e-9, "{load}");
        assert_eq!(load_seconds("load the model\nthreadpool init"), None);
        assert_eq!(load_seconds("0.00.007.500 I load the model"), None);
    }
}
