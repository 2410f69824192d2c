//! Tercel side by side with other programs: the same files, the same threads, in turn.

mod args;
mod candle;
mod child;
mod goals;
mod http;
mod limits;
mod llama_cpp;
mod load;
mod machine;
mod metric;
mod peer;
mod record;
mod report;
mod stats;
mod subject;
mod tercel;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

pub(crate) use args::Args;

use crate::workspace::Workspace;
use machine::Machine;
use metric::Job;
use peer::Peer;
use record::{Gap, Record};
use report::{OURS, Report};
use subject::Subject;

/// The folder where the others are built, once for all runs; it may be anywhere.
const FOLDER: &str = "TERCEL_PEERS_DIR";
/// A process that takes longer is ended.
const RUN: Duration = Duration::from_secs(1800);
/// What is asked for a first token.
const PROMPT: &str = "The capital of France is";

/// Builds what is missing, measures, and writes the report after every round.
///
/// # Errors
/// When Tercel or a model cannot be had, or Tercel fails at something; what the others cannot do
/// is part of the report.
pub(crate) fn run(args: &Args, command: &str) -> Result<()> {
    let workspace = Workspace::load()?;
    let machine = Machine::here();
    let peers = Peers::provide(args, &workspace)?;
    let subjects = Subject::all(&workspace, &args.models)?;
    let out = args.out.clone();
    let out = out.unwrap_or_else(|| workspace.target().join("peers"));
    fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;

    let mut record = Record::default();
    let mut markdown = String::new();
    for round in 1..=args.rounds {
        eprintln!("round {round} of {}", args.rounds);
        peers.measure(args, &subjects, round, &mut record);
        let report = Report {
            machine: &machine,
            subjects: &subjects,
            threads: &args.threads,
            jobs: &args.jobs,
            rounds: round,
            peers: &peers.versions,
            record: &record,
            command,
        };
        markdown = report.markdown();
        fs::write(out.join("peers.md"), &markdown)?;
        fs::write(out.join("peers.json"), format!("{:#}\n", report.json()))?;
    }
    say!("{markdown}");
    eprintln!("written to {}/peers.md and peers.json", out.display());
    match record.gaps().iter().find(|gap| gap.peer == OURS) {
        Some(gap) => bail!("tercel failed at {}: {}", gap.job, gap.reason),
        None => Ok(()),
    }
}

/// The programs that are there.
struct Peers {
    present: Vec<Box<dyn Peer>>,
    /// All that were asked for, with why some are missing.
    versions: Vec<(&'static str, Result<String, String>)>,
}

impl Peers {
    fn provide(args: &Args, workspace: &Workspace) -> Result<Self> {
        let cache = cache()?;
        fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
        let forbidden = args.is_build_forbidden;
        let mut peers = Self {
            present: Vec::new(),
            versions: Vec::new(),
        };
        // Models are looked at by it too, so it is built even if it is not measured.
        let tercel = tercel::Tercel::provide(workspace)?;
        for name in &args.peers {
            match *name {
                OURS => continue,
                "candle" => peers.add(name, candle::Candle::provide(&cache, forbidden)),
                _ => peers.add(name, llama_cpp::LlamaCpp::provide(&cache, forbidden)),
            }
        }
        if args.peers.contains(&OURS) {
            let tercel: Box<dyn Peer> = Box::new(tercel);
            peers.versions.insert(0, (OURS, Ok(tercel.version())));
            peers.present.insert(0, tercel);
        }
        if args.jobs.contains(&Job::Limits) {
            peers.add(limits::NAME, limits::Limits::provide(workspace, &cache));
        }
        Ok(peers)
    }

    fn add(&mut self, name: &'static str, peer: Result<impl Peer + 'static>) {
        match peer {
            Ok(peer) => {
                self.versions.push((name, Ok(peer.version())));
                self.present.push(Box::new(peer));
            }
            Err(problem) => {
                eprintln!("{name} is left out: {problem:#}");
                self.versions.push((name, Err(format!("{problem:#}"))));
            }
        }
    }

    /// Every job of every setting once, by all in turn. Who is first changes with the round.
    fn measure(&self, args: &Args, subjects: &[Subject], round: u32, record: &mut Record) {
        let mut order: Vec<&dyn Peer> = self.present.iter().map(|peer| &**peer).collect();
        if !order.is_empty() {
            let first = round as usize % order.len();
            order.rotate_left(first);
        }
        for (index, subject) in subjects.iter().enumerate() {
            for threads in &args.threads {
                let setting = (index, *threads);
                for job in &args.jobs {
                    for peer in &order {
                        let is_limits = peer.name() == limits::NAME;
                        if is_limits != (*job == Job::Limits)
                            || record.is_given_up(setting, peer.name(), *job)
                        {
                            continue;
                        }
                        one(*peer, *job, subject, setting, round, record);
                    }
                }
            }
        }
    }
}

/// One process, into the record.
fn one(
    peer: &dyn Peer,
    job: Job,
    subject: &Subject,
    setting: record::Setting,
    round: u32,
    record: &mut Record,
) {
    let (name, threads) = (peer.name(), setting.1);
    let head = format!("  {}, {job}, {name}:", report::title(subject, threads));
    match peer.measure(job, subject, threads) {
        Ok(reading) => {
            let figures = reading.values.iter();
            let figures: Vec<String> = figures
                .map(|(metric, value)| {
                    format!("{metric} {} {}", metric.number(*value), metric.unit())
                })
                .collect();
            eprintln!("{head} {}", figures.join(", "));
            record.add(setting, round, name, job, reading);
        }
        Err(problem) => {
            eprintln!("{head} not measured: {problem:#}");
            record.give_up(Gap {
                setting,
                peer: name,
                job,
                reason: format!("{problem:#}"),
            });
        }
    }
}

/// Where the others are built.
fn cache() -> Result<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(folder) = variable(FOLDER) {
        return Ok(std::path::absolute(Path::new(&folder))?);
    }
    let caches = variable("XDG_CACHE_HOME").or_else(|| variable("LOCALAPPDATA"));
    let caches = caches.map(PathBuf::from);
    let caches = caches.or_else(|| Some(PathBuf::from(variable("HOME")?).join(".cache")));
    let caches = caches.with_context(|| format!("no folder for caches: set {FOLDER}"))?;
    Ok(caches.join("tercel-peers"))
}
