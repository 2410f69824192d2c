//! The report of a run, for people and for programs.

use std::fmt::Write;

use serde_json::{Value, json};

use super::goals::{self, Goal, RIVAL};
use super::limits;
use super::load::Load;
use super::machine::Machine;
use super::metric::{Job, Metric};
use super::record::{Record, Setting};
use super::stats::Spread;
use super::subject::Subject;

/// The peer that is compared to the others.
pub(crate) const OURS: &str = "tercel";

/// What a reader must know to compare figures that the programs themselves report.
const NOTES: &str = "Load times are what each program reports: Tercel and llama.cpp until they can \
    take a prompt, candle its weights alone. The first token of candle is without a tokenizer.";

/// A run and what surrounds it.
pub(crate) struct Report<'a> {
    pub(crate) machine: &'a Machine,
    pub(crate) subjects: &'a [Subject],
    pub(crate) threads: &'a [u32],
    pub(crate) jobs: &'a [Job],
    /// Rounds that are complete.
    pub(crate) rounds: u32,
    /// Every peer that was asked for, with its version or why it is missing.
    pub(crate) peers: &'a [(&'static str, Result<String, String>)],
    pub(crate) record: &'a Record,
    /// As the run was asked for.
    pub(crate) command: &'a str,
}

/// A goal, and how far it was reached.
struct Verdict {
    setting: Setting,
    what: String,
    goal: Goal,
    /// None where it was not measured.
    found: Option<Spread>,
}

impl Verdict {
    fn word(&self) -> &'static str {
        match self.found {
            Some(found) if self.goal.is_reached(found.median) => "reached",
            Some(_) => "not reached",
            None => "not measured",
        }
    }
}

impl Report<'_> {
    /// The report as Markdown, which reads well on a terminal too.
    pub(crate) fn markdown(&self) -> String {
        let mut text = String::from("# Tercel beside its peers\n\n");
        self.write(&mut text)
            .expect("a string takes all that is written");
        text
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        self.write_surroundings(text)?;
        for setting in self.settings() {
            self.write_figures(text, setting)?;
        }
        self.write_verdicts(text, "Goals", "Ratios of Tercel", &self.ratios())?;
        self.write_verdicts(text, "Limits", "Shares that Tercel reaches", &self.shares())?;
        self.write_gaps(text)?;
        writeln!(text, "\n## Commands\n\nMODEL is the file of the model.\n")?;
        for (peer, job, command) in self.record.commands() {
            writeln!(text, "- {peer}, {job}: `{command}`")?;
        }
        Ok(())
    }

    fn write_surroundings(&self, text: &mut String) -> std::fmt::Result {
        let machine = self.machine;
        writeln!(
            text,
            "`{}`, complete rounds: {}. In each, every program ran once for every row, in turn. A \
             figure is the median of its rounds, with the least and the most; a ratio is the \
             median of the ratios within each round. {NOTES}\n",
            self.command, self.rounds
        )?;
        let memory = machine.memory_bytes.map_or_else(String::new, |bytes| {
            format!(", {:.1} GiB", bytes as f64 / f64::from(1 << 30))
        });
        writeln!(
            text,
            "- machine: {}, {} cores ({}){memory}, {}",
            machine.processor,
            machine.cores,
            machine.extensions.join(" "),
            machine.system
        )?;
        if let Some(load) = machine.load_average {
            writeln!(text, "- load average at the start: {load}")?;
        }
        for (peer, version) in self.peers {
            match version {
                Ok(version) => writeln!(text, "- {peer}: {version}")?,
                Err(problem) => writeln!(text, "- {peer}: missing, {problem}")?,
            }
        }
        Ok(())
    }

    fn write_figures(&self, text: &mut String, setting: Setting) -> std::fmt::Result {
        let metrics = self.record.metrics(setting);
        if metrics.is_empty() {
            return Ok(());
        }
        writeln!(text, "\n## {}\n", self.name(setting))?;
        let peers: Vec<&str> = self.present().collect();
        let has_ours = peers.contains(&OURS);
        let rivals: Vec<&str> = peers
            .iter()
            .copied()
            .filter(|peer| has_ours && ![OURS, limits::NAME].contains(peer))
            .collect();
        let ratios = rivals.iter().map(|rival| format!("{OURS} / {rival}"));
        let heads: Vec<String> = peers
            .iter()
            .map(ToString::to_string)
            .chain(ratios)
            .collect();
        writeln!(text, "| | {} |", heads.join(" | "))?;
        writeln!(text, "| --- |{}", " --- |".repeat(heads.len()))?;
        for metric in metrics {
            let figures = peers.iter().map(|peer| {
                let spread = self.record.spread(setting, peer, metric);
                cell(spread, |value| metric.number(value))
            });
            let ratios = rivals.iter().map(|rival| {
                let ratio = self.record.ratio(setting, (OURS, metric), (rival, metric));
                cell(ratio, |value| format!("{value:.2}"))
            });
            let cells: Vec<String> = figures.chain(ratios).collect();
            let unit = metric.unit();
            writeln!(text, "| {metric}, {unit} | {} |", cells.join(" | "))?;
        }
        Ok(())
    }

    fn write_verdicts(
        &self,
        text: &mut String,
        title: &str,
        head: &str,
        verdicts: &[Verdict],
    ) -> std::fmt::Result {
        if verdicts.is_empty() {
            return Ok(());
        }
        writeln!(text, "\n## {title}\n\n| {head} | | goal | found | |")?;
        writeln!(text, "| --- | --- | --- | --- | --- |")?;
        for verdict in verdicts {
            let found = cell(verdict.found, |value| format!("{value:.2}"));
            let (name, what, goal) = (self.name(verdict.setting), &verdict.what, verdict.goal);
            let word = verdict.word();
            writeln!(text, "| {name} | {what} | {goal} | {found} | {word} |")?;
        }
        Ok(())
    }

    fn write_gaps(&self, text: &mut String) -> std::fmt::Result {
        if self.record.gaps().is_empty() {
            return Ok(());
        }
        writeln!(text, "\n## Not measured\n")?;
        for gap in self.record.gaps() {
            let (name, job) = (self.name(gap.setting), gap.job);
            writeln!(text, "- {}, {name}, {job}: {}", gap.peer, gap.reason)?;
        }
        Ok(())
    }

    /// The same for programs.
    pub(crate) fn json(&self) -> Value {
        let models: Vec<String> = self
            .subjects
            .iter()
            .map(|model| model.name.clone())
            .collect();
        let machine = self.machine;
        let peers = self.peers.iter().map(|(peer, version)| match version {
            Ok(version) => json!({"name": peer, "version": version}),
            Err(problem) => json!({"name": peer, "missing": problem}),
        });
        let commands = self.record.commands().iter();
        let commands = commands
            .map(|(peer, job, command)| json!({"peer": peer, "job": job, "command": command}));
        let gaps = self.record.gaps().iter().map(|gap| {
            json!({"peer": gap.peer, "model": models.get(gap.setting.0),
                   "threads": gap.setting.1, "job": gap.job.to_string(), "reason": gap.reason})
        });
        json!({
            "command": self.command,
            "rounds": self.rounds,
            "machine": {
                "processor": machine.processor,
                "cores": machine.cores,
                "extensions": machine.extensions,
                "memory_bytes": machine.memory_bytes,
                "system": machine.system,
                "load_average": machine.load_average,
            },
            "peers": peers.collect::<Value>(),
            "figures": self.figures_json(&models),
            "goals": verdicts_json(&self.ratios(), &models),
            "limits": verdicts_json(&self.shares(), &models),
            "not_measured": gaps.collect::<Value>(),
            "commands": commands.collect::<Value>(),
            "samples": self.record.samples_json(&models),
        })
    }

    fn figures_json(&self, models: &[String]) -> Value {
        let mut figures = Vec::new();
        for setting in self.settings() {
            for metric in self.record.metrics(setting) {
                for peer in self.present() {
                    let Some(spread) = self.record.spread(setting, peer, metric) else {
                        continue;
                    };
                    let ratio = self.record.ratio(setting, (OURS, metric), (peer, metric));
                    figures.push(json!({
                        "model": models.get(setting.0),
                        "threads": setting.1,
                        "metric": metric.to_string(),
                        "peer": peer,
                        "value": spread_json(Some(spread)),
                        "ratio_of_tercel": spread_json(ratio.filter(|_| peer != OURS)),
                    }));
                }
            }
        }
        Value::Array(figures)
    }

    /// The goals that are ratios to the rival, of all that was asked for.
    fn ratios(&self) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        for setting in self.settings() {
            for metric in self.asked() {
                let facts = &self.subjects[setting.0].facts;
                let Some(goal) = goals::ratio(facts, metric, setting.1) else {
                    continue;
                };
                verdicts.push(Verdict {
                    setting,
                    what: metric.to_string(),
                    goal,
                    found: self.record.ratio(setting, (OURS, metric), (RIVAL, metric)),
                });
            }
        }
        verdicts
    }

    /// The goals that are shares of what the machine could do.
    fn shares(&self) -> Vec<Verdict> {
        if !self.jobs.contains(&Job::Limits) {
            return Vec::new();
        }
        let mut verdicts = Vec::new();
        for setting in self.settings() {
            let facts = &self.subjects[setting.0].facts;
            for job in self.jobs {
                // One unit of the figure takes so much of the limit.
                let (metric, limit, cost) = match *job {
                    Job::Prefill { tokens } => {
                        let cost = facts.multiply_adds.map(|adds| adds / f64::from(setting.1));
                        (Metric::Prefill { tokens }, Metric::IntegerPeak, cost)
                    }
                    Job::Decode { depth, tokens } => {
                        let cost = facts.bytes_read(f64::from(depth) + f64::from(tokens) / 2.0);
                        (Metric::Decode { depth }, Metric::Bandwidth, cost)
                    }
                    _ => continue,
                };
                let Some((goal, cost)) = goals::share(facts, metric).zip(cost) else {
                    continue;
                };
                let ratio = self
                    .record
                    .ratio(setting, (OURS, metric), (limits::NAME, limit));
                verdicts.push(Verdict {
                    setting,
                    what: format!("{metric}, of the {limit}"),
                    goal,
                    found: ratio.map(|ratio| Spread {
                        median: ratio.median * cost,
                        min: ratio.min * cost,
                        max: ratio.max * cost,
                    }),
                });
            }
        }
        verdicts
    }

    /// The figures that the jobs ask for, as far as goals know them.
    fn asked(&self) -> impl Iterator<Item = Metric> {
        self.jobs.iter().flat_map(|job| match *job {
            Job::Prefill { tokens } => vec![Metric::Prefill { tokens }],
            Job::Decode { depth, .. } => vec![Metric::Decode { depth }],
            Job::Start => vec![Metric::FirstToken],
            Job::Memory { context } => vec![Metric::PeakMemory { context }],
            Job::Chats { .. } => vec![Metric::Chats],
            Job::Serve(Load { clients, .. }) => vec![
                Metric::Serve { clients },
                Metric::ServeFirstToken {
                    clients,
                    percent: 95,
                },
            ],
            Job::Limits => Vec::new(),
        })
    }

    fn settings(&self) -> impl Iterator<Item = Setting> {
        let models = 0..self.subjects.len();
        models.flat_map(|model| self.threads.iter().map(move |threads| (model, *threads)))
    }

    fn present(&self) -> impl Iterator<Item = &'static str> {
        let present = self.peers.iter().filter(|(_, version)| version.is_ok());
        present.map(|(peer, _)| *peer)
    }

    fn name(&self, (model, threads): Setting) -> String {
        title(&self.subjects[model], threads)
    }
}

/// A model and a number of threads.
pub(crate) fn title(subject: &Subject, threads: u32) -> String {
    let plural = if threads == 1 { "" } else { "s" };
    format!("{}, {threads} thread{plural}", subject.name)
}

fn cell(spread: Option<Spread>, shown: impl Fn(f64) -> String) -> String {
    let Some(Spread { median, min, max }) = spread else {
        return "-".to_owned();
    };
    format!("{} ({}..{})", shown(median), shown(min), shown(max))
}

fn verdicts_json(verdicts: &[Verdict], models: &[String]) -> Value {
    let rows = verdicts.iter().map(|verdict| {
        json!({
            "model": models.get(verdict.setting.0),
            "threads": verdict.setting.1,
            "what": verdict.what,
            "goal": verdict.goal.to_string(),
            "found": spread_json(verdict.found),
            "verdict": verdict.word(),
        })
    });
    rows.collect()
}

fn spread_json(spread: Option<Spread>) -> Value {
    spread.map_or(
        Value::Null,
        |spread| json!({"median": spread.median, "min": spread.min, "max": spread.max}),
    )
}

#[cfg(test)]
mod tests;
