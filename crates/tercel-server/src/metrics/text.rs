//! The text format of Prometheus, version 0.0.4:
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use std::fmt::{Display, Write};

use super::series::{Series, percentile};

/// What a page is sent as.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A page of metrics; every name gets `tercel_` in front.
#[derive(Default)]
pub(super) struct Page {
    text: String,
}

/// A metric whose samples are to follow.
pub(super) struct Family<'a> {
    text: &'a mut String,
    name: String,
}

impl Page {
    /// Counts up; `_total` is put behind its name.
    pub(super) fn counter(&mut self, name: &str, help: &str) -> Family<'_> {
        self.family(format!("tercel_{name}_total"), help, "counter")
    }

    /// Goes up and down.
    pub(super) fn gauge(&mut self, name: &str, help: &str) -> Family<'_> {
        self.family(format!("tercel_{name}"), help, "gauge")
    }

    /// A histogram of all values, and percentiles of the latest under the same name with
    /// `_window`.
    pub(super) fn series(&mut self, name: &str, help: &str, series: &Series, percents: &[u32]) {
        let histogram = series.histogram();
        let mut family = self.family(format!("tercel_{name}"), help, "histogram");
        let of = family.name.clone();
        family.name = format!("{of}_bucket");
        for (bound, count) in &histogram.cumulative {
            family.sample(&[("le", &bound.to_string())], count);
        }
        family.sample(&[("le", "+Inf")], histogram.count);
        family.name = format!("{of}_sum");
        family.sample(&[], histogram.sum);
        family.name = format!("{of}_count");
        family.sample(&[], histogram.count);

        let help = format!("Percentiles of nearest rank of the latest 5000 of tercel_{name}.");
        let mut gauge = self.gauge(&format!("{name}_window"), &help);
        let window = series.window();
        for percent in percents {
            if let Some(value) = percentile(&window, *percent) {
                let quantile = format!("{}", f64::from(*percent) / 100.0);
                gauge.sample(&[("quantile", &quantile)], value);
            }
        }
    }

    pub(super) fn finish(self) -> String {
        self.text
    }

    fn family(&mut self, name: String, help: &str, kind: &str) -> Family<'_> {
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Family {
            text: &mut self.text,
            name,
        }
    }
}

impl Family<'_> {
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(&self.name);
        for (index, (label, of)) in labels.iter().enumerate() {
            self.text.push(if index == 0 { '{' } else { ',' });
            let _ = write!(self.text, "{label}=\"{}\"", escaped(of));
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }
}

/// A label's value, without what would end it.
fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_what_prometheus_reads() {
        let mut page = Page::default();
        page.counter("seen", "What was seen.")
            .sample(&[("a", "x\"\\\n"), ("b", "")], 3);
        let series = Series::new(&[0.5, 1.0]);
        series.add(0.25, 1);
        series.add(0.75, 1);
        page.series("wait_seconds", "A wait.", &series, &[50]);
        let expected = "\
# HELP tercel_seen_total What was seen.
# TYPE tercel_seen_total counter
tercel_seen_total{a=\"x\\\"\\\\\\n\",b=\"\"} 3
# HELP tercel_wait_seconds A wait.
# TYPE tercel_wait_seconds histogram
tercel_wait_seconds_bucket{le=\"0.5\"} 1
tercel_wait_seconds_bucket{le=\"1\"} 2
tercel_wait_seconds_bucket{le=\"+Inf\"} 2
tercel_wait_seconds_sum 1
tercel_wait_seconds_count 2
# HELP tercel_wait_seconds_window Percentiles of nearest rank of the latest 5000 of tercel_wait_seconds.
# TYPE tercel_wait_seconds_window gauge
tercel_wait_seconds_window{quantile=\"0.5\"} 0.25
";
        assert_eq!(page.finish(), expected);
    }
}
