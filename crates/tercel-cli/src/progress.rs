//! How a load is shown: a bar on a terminal, plain lines elsewhere, events with `--json`.

use std::collections::VecDeque;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tercel::{Phase, Progress};

use crate::context::Context;
use crate::format;
use crate::output::{Line, Output, stderr_line};

/// Shows the reports of one load.
pub(crate) struct Display {
    kind: Kind,
    out: Output,
    started: Instant,
    /// What arrived, and when the first of it did.
    fetched: Option<Fetched>,
}

enum Kind {
    Quiet,
    Events(Events),
    Lines(Lines),
    Bar(Bar),
}

#[derive(Clone, Copy)]
struct Fetched {
    since: Instant,
    bytes: u64,
}

impl Display {
    pub(crate) fn new(context: &Context) -> Self {
        let kind = if context.out.is_json() {
            Kind::Events(Events::default())
        } else if context.quiet {
            Kind::Quiet
        } else if io::stderr().is_terminal() {
            Kind::Bar(Bar::new())
        } else {
            Kind::Lines(Lines::default())
        };
        Self {
            kind,
            out: context.out,
            started: Instant::now(),
            fetched: None,
        }
    }

    /// Shows one report.
    pub(crate) fn report(&mut self, progress: &Progress) {
        let now = Instant::now();
        if progress.phase == Phase::Downloading {
            let fetched = self.fetched.get_or_insert(Fetched {
                since: now,
                bytes: 0,
            });
            fetched.bytes = fetched.bytes.max(progress.done_bytes);
        }
        let took = now - self.started;
        let is_long = |short| self.fetched.is_some() || took > short;
        match &mut self.kind {
            Kind::Quiet => {}
            Kind::Events(events) => events.report(progress, self.out),
            Kind::Lines(lines) => lines.report(progress, is_long(SHORT_FOR_LINES), self.out),
            Kind::Bar(bar) => bar.report(progress, is_long(SHORT_FOR_BAR), self.out),
        }
    }

    /// Ends the display of a load that succeeded: a line stays where a bar showed a fetch.
    pub(crate) fn done(&mut self, name: &str) {
        self.clear();
        if let (Some(fetched), Kind::Bar(_)) = (self.fetched, &self.kind) {
            let took = format::seconds(fetched.since.elapsed().as_secs_f64());
            let size = match fetched.bytes {
                0 => String::new(),
                bytes => format!(", {}", format::bytes(bytes)),
            };
            self.out.aside(&format!("fetched {name}{size} in {took}"));
        }
    }

    /// Takes the bar off the screen.
    pub(crate) fn clear(&self) {
        if let Kind::Bar(bar) = &self.kind {
            bar.bar.finish_and_clear();
        }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        self.clear();
    }
}

/// A load that is over in no time is not worth a bar,
const SHORT_FOR_BAR: Duration = Duration::from_millis(300);
/// and lines, which stay, are for loads that someone waits for.
const SHORT_FOR_LINES: Duration = Duration::from_secs(2);
/// Between two plain lines of one phase.
const BETWEEN_LINES: Duration = Duration::from_secs(5);

/// One event a percent.
#[derive(Default)]
struct Events {
    last: Option<(Phase, f64)>,
}

impl Events {
    const STEP: f64 = 0.01;

    fn report(&mut self, progress: &Progress, out: Output) {
        if let Some(note) = &progress.note {
            out.note(note);
            return;
        }
        let is_due = self.last.is_none_or(|(phase, fraction)| {
            phase != progress.phase || progress.fraction - fraction >= Self::STEP
        });
        if is_due {
            self.last = Some((progress.phase, progress.fraction));
            // A closed pipe shows when the reply is written.
            let _ = out.json(&Line::load(progress));
        }
    }
}

#[derive(Default)]
struct Lines {
    last: Option<(Phase, Instant)>,
}

impl Lines {
    fn report(&mut self, progress: &Progress, is_long: bool, out: Output) {
        if let Some(note) = &progress.note {
            out.note(note);
            return;
        }
        let is_due = match self.last {
            None => is_long && progress.phase != Phase::Ready,
            Some((phase, at)) => phase != progress.phase || at.elapsed() >= BETWEEN_LINES,
        };
        if is_due {
            self.last = Some((progress.phase, Instant::now()));
            stderr_line(&crate::terminal::one_line(&progress.to_string()));
        }
    }
}

struct Bar {
    bar: ProgressBar,
    rate: Rate,
    shown: bool,
}

impl Bar {
    const STEPS: u64 = 1000;

    fn new() -> Self {
        let bar = ProgressBar::with_draw_target(Some(Self::STEPS), ProgressDrawTarget::hidden());
        // Without a style of its own the bar still works.
        if let Ok(style) =
            ProgressStyle::with_template("{spinner} {prefix} [{bar:24}] {percent:>3}% {msg}")
        {
            bar.set_style(style.progress_chars("=> ").tick_chars("|/-\\ "));
        }
        Self {
            bar,
            rate: Rate::default(),
            shown: false,
        }
    }

    fn report(&mut self, progress: &Progress, is_long: bool, out: Output) {
        if let Some(note) = &progress.note {
            self.bar.suspend(|| out.note(note));
        }
        if progress.phase == Phase::Ready {
            self.bar.finish_and_clear();
            return;
        }
        if is_long && !self.shown {
            self.shown = true;
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
            self.bar.enable_steady_tick(Duration::from_millis(120));
        }
        self.bar
            .set_prefix(format!("{} {}", progress.phase, progress.model));
        self.bar
            .set_position((progress.fraction * Self::STEPS as f64) as u64);
        let amount = self.amount(progress);
        self.bar.set_message(amount);
    }

    /// Such as `40.2 of 93.8 MB, 5.1 MB/s`.
    fn amount(&mut self, progress: &Progress) -> String {
        if progress.done_bytes == 0 {
            self.rate = Rate::default();
            return String::new();
        }
        let amount = match progress.total_bytes {
            Some(total) => {
                format!(
                    "{} of {}",
                    format::bytes(progress.done_bytes),
                    format::bytes(total)
                )
            }
            None => format::bytes(progress.done_bytes),
        };
        match self.rate.add(Instant::now(), progress.done_bytes) {
            Some(rate) if progress.phase == Phase::Downloading => {
                format!("{amount}, {}/s", format::bytes(rate))
            }
            _ => amount,
        }
    }
}

/// Bytes per second over the last seconds.
#[derive(Default)]
struct Rate {
    seen: VecDeque<(Instant, u64)>,
}

impl Rate {
    const WINDOW: Duration = Duration::from_secs(4);

    /// Adds a count and gives the rate, once there is enough to tell.
    fn add(&mut self, now: Instant, bytes: u64) -> Option<u64> {
        // Another source starts from nothing.
        if self.seen.back().is_some_and(|(_, before)| *before > bytes) {
            self.seen.clear();
        }
        self.seen.push_back((now, bytes));
        while self.seen.len() > 2
            && self
                .seen
                .front()
                .is_some_and(|(at, _)| now - *at > Self::WINDOW)
        {
            self.seen.pop_front();
        }
        let (first, start) = *self.seen.front()?;
        let elapsed = (now - first).as_secs_f64();
        (elapsed > 0.5).then(|| ((bytes - start) as f64 / elapsed) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_of_the_last_seconds_and_starts_again_with_another_source() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut rate = Rate::default();
        assert_eq!(rate.add(at(0), 0), None);
        assert_eq!(rate.add(at(1), 100), Some(100));
        assert_eq!(rate.add(at(10), 1000), Some(100));
        assert_eq!(rate.add(at(12), 3000), Some(1000));
        assert_eq!(rate.add(at(13), 10), None);
        assert_eq!(rate.add(at(14), 60), Some(50));
    }
}
