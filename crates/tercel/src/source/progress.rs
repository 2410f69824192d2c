//! How a load reports where it stands: four phases and one fraction that only grows.

use std::fmt;

/// The stage of a load. The order of the variants is the order in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Bytes arrive: fraction 0.00 to 0.70.
    Downloading,
    /// Packages are unpacked, files joined, checked and put in place: 0.70 to 0.85.
    Extracting,
    /// The engine reads the model: 0.85 to 0.99.
    Loading,
    /// The model can be used: 1.00. Never reported by a load that failed.
    Ready,
}

impl Phase {
    /// The name in lower case, as events and logs give it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Downloading => "downloading",
            Self::Extracting => "extracting",
            Self::Loading => "loading",
            Self::Ready => "ready",
        }
    }

    /// The part of the whole load that the phase covers.
    fn span(self) -> (f64, f64) {
        match self {
            Self::Downloading => (0.0, 0.70),
            Self::Extracting => (0.70, 0.85),
            Self::Loading => (0.85, 0.99),
            Self::Ready => (1.0, 1.0),
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One report. Its `Display` is one plain line.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// The stage of the load; it never goes back.
    pub phase: Phase,
    /// 0 to 1 over the whole load; it never shrinks.
    pub fraction: f64,
    /// The model as the catalog or the reference names it.
    pub model: String,
    /// Bytes done in this phase by the source in use; 0 where the phase does not count bytes.
    pub done_bytes: u64,
    /// Bytes of this phase, where known.
    pub total_bytes: Option<u64>,
    /// Something the user should be told: a failover, a wait, a choice that was made.
    pub note: Option<String>,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let megabytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        write!(f, "{} {}", self.phase, self.model)?;
        if self.phase != Phase::Ready {
            write!(f, ": {:.0} %", (self.fraction * 100.0).floor())?;
        }
        match (self.done_bytes, self.total_bytes) {
            (done, Some(total)) if total > 0 => {
                write!(f, " ({:.1} of {:.1} MB)", megabytes(done), megabytes(total))?;
            }
            (0, _) => {}
            (done, _) => write!(f, " ({:.1} MB)", megabytes(done))?,
        }
        match &self.note {
            Some(note) => write!(f, ", {note}"),
            None => Ok(()),
        }
    }
}

/// Turns what the stages of a load know into reports that keep the promises of [`Progress`].
///
/// Phases and fractions only move forward, whatever is reported; small steps are swallowed so that
/// a sink is called some thousand times at most; after [`ProgressTracker::ready`] nothing follows.
pub struct ProgressTracker<'a> {
    sink: Option<&'a mut (dyn FnMut(Progress) + 'a)>,
    model: String,
    last: Option<Progress>,
}

impl<'a> ProgressTracker<'a> {
    /// A tracker for one load of `model`. Without a sink it costs nothing.
    pub fn new(model: impl Into<String>, sink: Option<&'a mut (dyn FnMut(Progress) + 'a)>) -> Self {
        Self {
            sink,
            model: model.into(),
            last: None,
        }
    }

    /// Reports bytes of a phase that counts them.
    pub fn bytes(&mut self, phase: Phase, done_bytes: u64, total_bytes: Option<u64>) {
        let within = match total_bytes {
            Some(total) if total > 0 => done_bytes as f64 / total as f64,
            _ => 0.0,
        };
        self.emit(phase, within, done_bytes, total_bytes, None);
    }

    /// Reports the part, 0 to 1, of a phase that does not count bytes.
    pub fn part(&mut self, phase: Phase, within: f64) {
        self.emit(phase, within, 0, None, None);
    }

    /// Tells the user something without moving.
    pub fn note(&mut self, note: impl Into<String>) {
        let (phase, done, total) = self
            .last
            .as_ref()
            .map_or((Phase::Downloading, 0, None), |at| {
                (at.phase, at.done_bytes, at.total_bytes)
            });
        self.emit(phase, 0.0, done, total, Some(note.into()));
    }

    /// Reports the end of a load that succeeded.
    pub fn ready(&mut self) {
        self.emit(Phase::Ready, 1.0, 0, None, None);
    }

    /// Passes on the report of another tracker, such as the one of a fetch within a load.
    pub fn relay(&mut self, progress: Progress) {
        let (start, end) = progress.phase.span();
        let within = if end > start {
            (progress.fraction - start) / (end - start)
        } else {
            1.0
        };
        let Progress {
            phase,
            done_bytes,
            total_bytes,
            note,
            ..
        } = progress;
        self.emit(phase, within, done_bytes, total_bytes, note);
    }

    fn emit(
        &mut self,
        phase: Phase,
        within: f64,
        done_bytes: u64,
        total_bytes: Option<u64>,
        note: Option<String>,
    ) {
        const SMALLEST_STEP: f64 = 0.001;
        const SMALLEST_STEP_BYTES: u64 = 4 << 20;

        let Some(sink) = self.sink.as_mut() else {
            return;
        };
        let (start, end) = phase.span();
        // `clamp` would keep a NaN; a NaN here is no progress.
        let within = if within.is_nan() {
            0.0
        } else {
            within.clamp(0.0, 1.0)
        };
        let mut next = Progress {
            phase,
            fraction: start + (end - start) * within,
            model: self.model.clone(),
            done_bytes,
            total_bytes,
            note,
        };
        if let Some(last) = &self.last {
            if last.phase == Phase::Ready {
                return;
            }
            next.phase = next.phase.max(last.phase);
            next.fraction = next.fraction.max(last.fraction);
            let moved = next.phase != last.phase
                || next.fraction - last.fraction >= SMALLEST_STEP
                || (next.fraction > last.fraction && next.fraction >= next.phase.span().1)
                || next.done_bytes.abs_diff(last.done_bytes) >= SMALLEST_STEP_BYTES;
            if !moved && next.note.is_none() {
                return;
            }
        }
        self.last = Some(next.clone());
        sink(next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(steps: impl FnOnce(&mut ProgressTracker<'_>)) -> Vec<Progress> {
        let mut seen = Vec::new();
        let mut sink = |progress| seen.push(progress);
        steps(&mut ProgressTracker::new("m", Some(&mut sink)));
        seen
    }

    #[test]
    fn whatever_is_reported_only_moves_forward_and_ends_with_ready() {
        let seen = record(|tracker| {
            tracker.bytes(Phase::Downloading, 50, Some(100));
            tracker.bytes(Phase::Downloading, 10, Some(100));
            tracker.part(Phase::Extracting, 0.5);
            tracker.bytes(Phase::Downloading, 90, Some(100));
            tracker.part(Phase::Loading, f64::NAN);
            tracker.note("a note");
            tracker.part(Phase::Loading, 7.0);
            tracker.ready();
            tracker.note("too late");
            tracker.part(Phase::Loading, 1.0);
        });
        for pair in seen.windows(2) {
            assert!(pair[1].fraction >= pair[0].fraction && pair[1].phase >= pair[0].phase);
        }
        let last = seen.last().expect("there are reports");
        assert_eq!((last.phase, last.fraction), (Phase::Ready, 1.0));
        assert_eq!(seen.iter().filter(|at| at.note.is_some()).count(), 1);
        assert!(seen.iter().any(|at| at.fraction == 0.99));
    }

    #[test]
    fn small_steps_are_swallowed() {
        let total = 1 << 30;
        let seen = record(|tracker| {
            for done in (0..=total).step_by(1 << 12) {
                tracker.bytes(Phase::Downloading, done, Some(total));
            }
        });
        assert!(seen.len() < 1_000, "{} reports", seen.len());
        assert_eq!(seen.last().map(|at| at.fraction), Some(0.70));
    }

    #[test]
    fn a_relayed_report_keeps_its_place() {
        let inner = record(|tracker| {
            tracker.bytes(Phase::Downloading, 1, Some(2));
            tracker.part(Phase::Extracting, 1.0);
        });
        let outer = record(|tracker| inner.iter().cloned().for_each(|at| tracker.relay(at)));
        assert_eq!(inner, outer);
    }

    #[test]
    fn a_report_is_one_plain_line() {
        let at = Progress {
            phase: Phase::Downloading,
            fraction: 0.356,
            model: "smollm2:135m".into(),
            done_bytes: 50 << 20,
            total_bytes: Some(100 << 20),
            note: Some("a note".into()),
        };
        assert_eq!(
            at.to_string(),
            "downloading smollm2:135m: 35 % (50.0 of 100.0 MB), a note"
        );
        let ready = Progress {
            phase: Phase::Ready,
            fraction: 1.0,
            done_bytes: 0,
            total_bytes: None,
            note: None,
            ..at
        };
        assert_eq!(ready.to_string(), "ready smollm2:135m");
    }
}
