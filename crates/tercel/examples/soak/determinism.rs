//! One seed, one text: the same token ids under every setting that must not change them.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tercel::{Engine, KvType, PrefixCache, Reply, Request};
use tercel_nn::NnError;

use crate::Problem;
use crate::arguments::kv_name;
use crate::subject::Subject;

/// Requests at work together.
const CROWD: usize = 8;
/// Differences that are told in full.
const TOLD: usize = 20;

/// An engine's settings, and how often it is asked for everything.
struct Case {
    what: &'static str,
    threads: usize,
    chunk: usize,
    speculation: bool,
    cache: bool,
    /// Whether the model guesses for itself.
    draft: bool,
    /// What each round is, and how many requests are at work at once in it.
    rounds: &'static [(&'static str, usize)],
    /// One request in so many, of small and of large models.
    one_in: [usize; 2],
}

const CASES: [Case; 6] = [
    Case {
        what: "1 thread, chunks of 512, guesses",
        threads: 1,
        chunk: 512,
        speculation: true,
        cache: true,
        draft: false,
        rounds: &[("cold", CROWD), ("cached", CROWD)],
        one_in: [1, 1],
    },
    Case {
        what: "2 threads, chunks of 64, no guesses",
        threads: 2,
        chunk: 64,
        speculation: false,
        cache: true,
        draft: false,
        rounds: &[("cold", CROWD), ("cached", CROWD)],
        one_in: [1, 1],
    },
    Case {
        what: "2 threads, chunks of 16, guesses",
        threads: 2,
        chunk: 16,
        speculation: true,
        cache: true,
        draft: false,
        rounds: &[("cold", CROWD), ("cached, alone", 1)],
        one_in: [1, 1],
    },
    Case {
        what: "2 threads, chunks of 256, no guesses, no cache",
        threads: 2,
        chunk: 256,
        speculation: false,
        cache: false,
        draft: false,
        rounds: &[("cold", CROWD)],
        one_in: [1, 1],
    },
    // Twice the work, and most guesses are right.
    Case {
        what: "2 threads, chunks of 64, a draft model",
        threads: 2,
        chunk: 64,
        speculation: true,
        cache: true,
        draft: true,
        rounds: &[("cold", CROWD), ("cached, alone", 1)],
        one_in: [2, 10],
    },
    // A pass for each token of a prompt is slow.
    Case {
        what: "1 thread, chunks of 1, guesses",
        threads: 1,
        chunk: 1,
        speculation: true,
        cache: true,
        draft: false,
        rounds: &[("cold", CROWD), ("cached", CROWD)],
        one_in: [4, 10],
    },
];

/// Checks all of `subjects` with `requests` requests each.
///
/// # Errors
/// When any token differs, with the number of such replies; when a model does not load or a
/// request fails.
pub(crate) fn run(subjects: &[Subject], requests: usize, seed: u64) -> Result<(), Problem> {
    let mut report = Report::new(subjects);
    for subject in subjects {
        for kv_type in [KvType::F16, KvType::Q8_0] {
            let n = scaled(requests, subject, kv_type);
            check(subject, n, kv_type, seed, &mut report)
                .map_err(|problem| format!("{} {}: {problem}", subject.name, kv_name(kv_type)))?;
        }
    }
    report.judge()
}

/// The other process of a restart: prints the token ids of all replies as JSON.
///
/// # Errors
/// When the model does not load or a request fails.
pub(crate) fn restarted(
    subject: &Subject,
    requests: usize,
    kv_type: KvType,
    seed: u64,
) -> Result<(), Problem> {
    let builder = subject.builder().max_sequences(CROWD).kv_type(kv_type);
    let engine = builder.threads(2).load()?;
    let requests = subject.requests(requests, seed);
    let ids = ids(&replies(&engine, &requests, CROWD)?);
    say!("{}", serde_json::to_string(&ids)?);
    Ok(())
}

/// Keys and values of 8 bits get a quarter of the requests on large models, to bound the time.
fn scaled(requests: usize, subject: &Subject, kv_type: KvType) -> usize {
    if subject.is_large() && kv_type == KvType::Q8_0 {
        requests.div_ceil(4)
    } else {
        requests
    }
}

fn check(
    subject: &Subject,
    n: usize,
    kv_type: KvType,
    seed: u64,
    report: &mut Report,
) -> Result<(), Problem> {
    let started = Instant::now();
    let requests = subject.requests(n, seed);
    let builder = || {
        let builder = subject.builder().max_sequences(CROWD);
        builder.kv_type(kv_type).queue_capacity(CROWD)
    };
    let without = PrefixCache {
        enabled: false,
        ..PrefixCache::default()
    };
    let alone = builder().threads(1).speculation(false);
    let alone = match alone.prefix_cache(without.clone()).load() {
        // Heads of some shapes have no blocks of 8 bits.
        Err(tercel::Error::Model {
            error: error @ NnError::KvType { .. },
            ..
        }) => {
            report.leave_out(subject, kv_type, &error);
            return Ok(());
        }
        other => other?,
    };
    let want = ids(&replies(&alone, &requests, 1)?);
    drop(alone);
    report.begin(subject, kv_type, n);
    for case in &CASES {
        let one_in = case.one_in[usize::from(subject.is_large())];
        let chosen: Vec<usize> = (0..n).step_by(one_in).collect();
        let requests: Vec<Request> = chosen.iter().map(|i| requests[*i].clone()).collect();
        let mut engine = builder()
            .threads(case.threads)
            .prefill_chunk(case.chunk)
            .speculation(case.speculation);
        if !case.cache {
            engine = engine.prefix_cache(without.clone());
        }
        if case.draft {
            engine = engine.draft(subject.path());
        }
        let engine = match engine.load() {
            // Recurrent layers cannot take back what proves wrong.
            Err(tercel::Error::InvalidParameter { field: "draft", .. }) => continue,
            other => other?,
        };
        for (round, at_once) in case.rounds {
            let replies = replies(&engine, &requests, *at_once)?;
            for reply in &replies {
                report.cached += reply.usage.cached_tokens;
                report.guesses += reply.usage.drafted_tokens;
                report.right_guesses += reply.usage.accepted_draft_tokens;
            }
            let got = ids(&replies);
            let what = format!("{}, {round}, {at_once} at once", case.what);
            report.compare(&what, &chosen, &requests, &got, &want);
        }
    }
    let chosen: Vec<usize> = (0..n).collect();
    let got = in_another_process(subject, n, kv_type, seed)?;
    report.compare("after a restart", &chosen, &requests, &got, &want);
    report.end(started.elapsed());
    Ok(())
}

/// The replies to `requests`, so many of which are at work at any time.
fn replies(engine: &Engine, requests: &[Request], at_once: usize) -> Result<Vec<Reply>, Problem> {
    let next = AtomicUsize::new(0);
    let work = || -> Result<Vec<(usize, Reply)>, tercel::Error> {
        let mut done = Vec::new();
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let Some(request) = requests.get(i) else {
                return Ok(done);
            };
            done.push((i, engine.generate(request.clone())?));
        }
    };
    let mut all = Vec::with_capacity(requests.len());
    thread::scope(|scope| {
        let workers: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            all.extend(worker.join().map_err(|_| "a reader panicked")??);
        }
        Ok::<_, Problem>(())
    })?;
    all.sort_by_key(|(i, _)| *i);
    Ok(all.into_iter().map(|(_, reply)| reply).collect())
}

fn ids(replies: &[Reply]) -> Vec<Vec<u32>> {
    replies.iter().map(|reply| reply.tokens.clone()).collect()
}

/// What a process that is started for it replies.
fn in_another_process(
    subject: &Subject,
    requests: usize,
    kv_type: KvType,
    seed: u64,
) -> Result<Vec<Vec<u32>>, Problem> {
    let (requests, seed) = (requests.to_string(), seed.to_string());
    let output = Command::new(std::env::current_exe()?)
        .args(["--restarted", kv_name(kv_type), "--requests", &requests])
        .args(["--seed", &seed])
        .args(subject.chosen.arguments())
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stdout);
        return Err(format!("the other process failed: {}", said.trim_end()).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// What has been compared, and how long the rest will take.
struct Report {
    started: Instant,
    /// Pairs of a model and a kind of keys and values: of large and of small models.
    left: [usize; 2],
    /// Such pairs that do not exist.
    left_out: usize,
    /// The same, done, with the time they took.
    done: [(u32, Duration); 2],
    now: String,
    is_large: bool,
    compared: usize,
    differences: usize,
    cached: usize,
    guesses: usize,
    right_guesses: usize,
    /// Of all subjects: comparisons and cached tokens, guesses and right ones.
    total: [usize; 4],
}

impl Report {
    fn new(subjects: &[Subject]) -> Self {
        let large = subjects.iter().filter(|it| it.is_large()).count();
        let kinds = 2;
        Self {
            started: Instant::now(),
            left: [(subjects.len() - large) * kinds, large * kinds],
            left_out: 0,
            done: [(0, Duration::ZERO); 2],
            now: String::new(),
            is_large: false,
            compared: 0,
            differences: 0,
            cached: 0,
            guesses: 0,
            right_guesses: 0,
            total: [0; 4],
        }
    }

    /// Tells what cannot be checked, and why.
    fn leave_out(&mut self, subject: &Subject, kv_type: KvType, why: &NnError) {
        self.left[usize::from(subject.is_large())] -= 1;
        self.left_out += 1;
        say!("{} {}: left out: {why}", subject.name, kv_name(kv_type));
    }

    fn begin(&mut self, subject: &Subject, kv_type: KvType, requests: usize) {
        self.is_large = subject.is_large();
        self.now = format!("{} {}: {requests} requests", subject.name, kv_name(kv_type));
        (self.compared, self.cached) = (0, 0);
        (self.guesses, self.right_guesses) = (0, 0);
    }

    /// Compares the replies to `requests`, which are those numbered `chosen`, with all of `want`.
    fn compare(
        &mut self,
        what: &str,
        chosen: &[usize],
        requests: &[Request],
        got: &[Vec<u32>],
        want: &[Vec<u32>],
    ) {
        if got.len() != chosen.len() {
            self.differences += 1;
            say!(
                "{}, {what}: {} replies to {} requests",
                self.now,
                got.len(),
                chosen.len()
            );
        }
        if self.is_large {
            let seconds = self.started.elapsed().as_secs();
            say!(
                "{}, {what}: {} replies after {seconds} s",
                self.now,
                got.len()
            );
        }
        for ((i, got), request) in chosen.iter().zip(got).zip(requests) {
            self.compared += 1;
            let Some(at) = first_difference(got, &want[*i]) else {
                continue;
            };
            self.differences += 1;
            if self.differences <= TOLD {
                let token = |ids: &[u32]| ids.get(at).map_or("end".to_owned(), u32::to_string);
                say!(
                    "DIFFERENT: {}, {what}, request {i}: token {at} is {}, alone it is {}\n  {request:?}",
                    self.now,
                    token(got),
                    token(&want[*i])
                );
            }
        }
    }

    fn end(&mut self, took: Duration) {
        let kind = usize::from(self.is_large);
        self.left[kind] -= 1;
        self.done[kind].0 += 1;
        self.done[kind].1 += took;
        let now = [self.compared, self.cached, self.guesses, self.right_guesses];
        for (total, now) in self.total.iter_mut().zip(now) {
            *total += now;
        }
        let remaining = match self.remaining() {
            Some(left) => format!("about {:.0} s left", left.as_secs_f64()),
            None => "time left unknown".to_owned(),
        };
        say!(
            "{}, {} replies compared, {} tokens cached, {} of {} guesses right, {:.1} s; {remaining}",
            self.now,
            self.compared,
            self.cached,
            self.right_guesses,
            self.guesses,
            took.as_secs_f64()
        );
    }

    /// What is left at the mean of what is done; unknown until there is something of each kind.
    fn remaining(&self) -> Option<Duration> {
        let mut total = Duration::ZERO;
        for (left, (n, took)) in self.left.into_iter().zip(self.done) {
            if left > 0 {
                total += took.checked_div(n)? * u32::try_from(left).ok()?;
            }
        }
        Some(total)
    }

    fn judge(self) -> Result<(), Problem> {
        let [compared, cached, guesses, right] = self.total;
        let seconds = self.started.elapsed().as_secs_f64();
        if self.differences > 0 {
            return Err(format!("{} of {compared} replies differ", self.differences).into());
        }
        // What was never exercised was not checked.
        if cached == 0 || right == 0 {
            return Err(format!(
                "nothing was tested: {cached} tokens cached, {right} guesses right"
            )
            .into());
        }
        say!(
            "one seed, one text: {compared} replies are as they are alone \
             ({cached} tokens cached, {right} of {guesses} guesses right, {} left out), \
             {seconds:.0} s",
            self.left_out
        );
        Ok(())
    }
}

/// Where two replies go apart, if they do.
fn first_difference(a: &[u32], b: &[u32]) -> Option<usize> {
    let same = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    (same < a.len().max(b.len())).then_some(same)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_go_apart_at_their_first_different_token_or_at_an_end() {
        for (a, b, want) in [
            (&[1, 2, 3][..], &[1, 2, 3][..], None),
            (&[1, 2, 3], &[1, 5, 3], Some(1)),
            (&[1, 2], &[1, 2, 3], Some(2)),
            (&[1], &[], Some(0)),
            (&[], &[], None),
        ] {
            assert_eq!(first_difference(a, b), want, "{a:?} {b:?}");
        }
    }
}
