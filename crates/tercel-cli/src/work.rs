//! How work of a known length is shown: a bar on a terminal, plain lines elsewhere.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::context::Context;
use crate::output::stderr_line;

/// Shows how far a piece of work has come.
pub(crate) struct Work {
    name: &'static str,
    kind: Kind,
}

enum Kind {
    Quiet,
    Lines(Instant),
    Bar(ProgressBar),
}

const STEPS: u64 = 1000;
/// Between two plain lines.
const BETWEEN_LINES: Duration = Duration::from_secs(5);

impl Work {
    /// `name` says what is done, such as `converting`.
    pub(crate) fn new(name: &'static str, context: &Context) -> Self {
        let kind = if context.quiet || context.out.is_json() {
            Kind::Quiet
        } else if io::stderr().is_terminal() {
            let bar = ProgressBar::with_draw_target(Some(STEPS), ProgressDrawTarget::stderr());
            // Without a style of its own the bar still works.
            if let Ok(style) = ProgressStyle::with_template("{prefix} [{bar:24}] {percent:>3}%") {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.set_prefix(name);
            Kind::Bar(bar)
        } else {
            Kind::Lines(Instant::now())
        };
        Self { name, kind }
    }

    /// Shows that `share` of it is done, in 0..=1.
    pub(crate) fn report(&mut self, share: f64) {
        match &mut self.kind {
            Kind::Bar(bar) => bar.set_position((share * STEPS as f64) as u64),
            Kind::Lines(last) if last.elapsed() >= BETWEEN_LINES => {
                *last = Instant::now();
                stderr_line(&format!("{}: {:.0} %", self.name, share * 100.0));
            }
            Kind::Quiet | Kind::Lines(_) => {}
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if let Kind::Bar(bar) = &self.kind {
            bar.finish_and_clear();
        }
    }
}
