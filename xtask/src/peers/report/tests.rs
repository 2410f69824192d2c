use std::path::PathBuf;

use super::*;
use crate::peers::peer::Reading;
use crate::peers::record::Gap;
use crate::peers::subject::Facts;

const PREFILL: Job = Job::Prefill { tokens: 512 };
const DECODE: Job = Job::Decode {
    depth: 0,
    tokens: 64,
};
const PEERS: [&str; 3] = [OURS, RIVAL, limits::NAME];

fn record() -> Record {
    let mut record = Record::default();
    let prefill = Metric::Prefill { tokens: 512 };
    let decode = Metric::Decode { depth: 0 };
    for (round, slow) in [(1, 1.0), (2, 0.5)] {
        for (peer, job, values) in [
            (OURS, PREFILL, vec![(prefill, 1000.0 * slow)]),
            (RIVAL, PREFILL, vec![(prefill, 500.0 * slow)]),
            (OURS, DECODE, vec![(decode, 240.0 * slow)]),
            (RIVAL, DECODE, vec![(decode, 120.0 * slow)]),
            (
                limits::NAME,
                Job::Limits,
                vec![
                    (Metric::Bandwidth, 24.08e9 * slow),
                    (Metric::IntegerPeak, 80e9 * slow),
                ],
            ),
        ] {
            let reading = Reading {
                values,
                peak_bytes: Some(5),
                command: format!("{peer} MODEL"),
            };
            record.add((0, 2), round, peer, job, reading);
        }
    }
    record.give_up(Gap {
        setting: (0, 2),
        peer: OURS,
        job: Job::Start,
        reason: "no time".to_owned(),
    });
    record
}

fn with_report<T>(jobs: &[Job], see: impl FnOnce(Report<'_>) -> T) -> T {
    let machine = Machine {
        processor: "Some CPU".to_owned(),
        cores: 2,
        extensions: vec!["avx2".to_owned(), "fma".to_owned()],
        memory_bytes: Some(3 << 29),
        system: "linux 6.1".to_owned(),
        load_average: Some(0.5),
    };
    let subject = Subject {
        name: "smollm2:135m".to_owned(),
        path: PathBuf::from("/secret/place.gguf"),
        // 10^8 bytes and as many multiply-adds a token, 10^4 bytes of cache behind each.
        facts: Facts::of_kind("llama", 134_515_008, "Q4_1"),
    };
    let mut peers: Vec<_> = PEERS
        .map(|peer| (peer, Ok("version 1".to_owned())))
        .to_vec();
    peers.push(("candle", Err("no compiler".to_owned())));
    see(Report {
        machine: &machine,
        subjects: &[subject],
        threads: &[2],
        jobs,
        rounds: 2,
        peers: &peers,
        record: &record(),
        command: "cargo xtask bench-peers",
    })
}

#[test]
fn the_markdown_has_figures_ratios_goals_limits_and_gaps() {
    let jobs = [Job::Limits, PREFILL, DECODE, Job::Start];
    let text = with_report(&jobs, |report| report.markdown());
    let want = "\
# Tercel beside its peers

`cargo xtask bench-peers`, complete rounds: 2. In each, every program ran once for every row, in \
turn. A figure is the median of its rounds, with the least and the most; a ratio is the median of \
the ratios within each round. Load times are what each program reports: Tercel and llama.cpp until \
they can take a prompt, candle its weights alone. The first token of candle is without a \
tokenizer.

- machine: Some CPU, 2 cores (avx2 fma), 1.5 GiB, linux 6.1
- load average at the start: 0.5
- tercel: version 1
- llama.cpp: version 1
- the machine: version 1
- candle: missing, no compiler

## smollm2:135m, 2 threads

| | tercel | llama.cpp | the machine | tercel / llama.cpp |
| --- | --- | --- | --- | --- |
| prefill 512, tok/s | 750 (500..1000) | 375 (250..500) | - | 2.00 (2.00..2.00) |
| decode at depth 0, tok/s | 180 (120..240) | 90.0 (60.0..120) | - | 2.00 (2.00..2.00) |
| read bandwidth, GB/s | - | - | 18.1 (12.0..24.1) | - |
| integer peak, G multiply-adds/s | - | - | 60.0 (40.0..80.0) | - |

## Goals

| Ratios of Tercel | | goal | found | |
| --- | --- | --- | --- | --- |
| smollm2:135m, 2 threads | prefill 512 | at least 4.00 | 2.00 (2.00..2.00) | not reached |
| smollm2:135m, 2 threads | decode at depth 0 | at least 1.90 | 2.00 (2.00..2.00) | reached |
| smollm2:135m, 2 threads | process start to first token | at most 0.60 | - | not measured |

## Limits

| Shares that Tercel reaches | | goal | found | |
| --- | --- | --- | --- | --- |
| smollm2:135m, 2 threads | prefill 512, of the integer peak | at least 0.50 | \
0.62 (0.62..0.62) | reached |
| smollm2:135m, 2 threads | decode at depth 0, of the read bandwidth | at least 0.85 | \
1.00 (1.00..1.00) | reached |

## Not measured

- tercel, smollm2:135m, 2 threads, start: no time

## Commands

MODEL is the file of the model.

- tercel, prefill 512: `tercel MODEL`
- llama.cpp, prefill 512: `llama.cpp MODEL`
- tercel, decode 64 at depth 0: `tercel MODEL`
- llama.cpp, decode 64 at depth 0: `llama.cpp MODEL`
- the machine, limits of the machine: `the machine MODEL`
";
    assert_eq!(text, want);
}

#[test]
fn a_run_without_limits_has_no_shares() {
    let text = with_report(&[DECODE], |report| report.markdown());
    assert!(
        text.contains("## Goals") && !text.contains("## Limits"),
        "{text}"
    );
}

#[test]
fn the_json_has_the_same_for_programs() {
    let json = with_report(&[Job::Limits, PREFILL, DECODE], |report| report.json());
    assert_eq!(json["machine"]["processor"], "Some CPU");
    assert_eq!(json["peers"][3]["missing"], "no compiler");
    assert_eq!(json["goals"][0]["verdict"], "not reached");
    assert_eq!(json["limits"][1]["verdict"], "reached");
    assert_eq!(json["samples"].as_array().unwrap().len(), 12);
    assert_eq!(json["not_measured"][0]["reason"], "no time");
    let figures = json["figures"].as_array().unwrap();
    let is_it = |row: &&Value| row["peer"] == RIVAL && row["metric"] == "decode at depth 0";
    let decode = figures.iter().find(is_it).unwrap();
    assert_eq!(decode["value"]["median"], 90.0);
    assert_eq!(decode["ratio_of_tercel"]["median"], 2.0);
    assert!(!json.to_string().contains("/secret"));
}
