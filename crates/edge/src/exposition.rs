//! Numbers in Prometheus' text format (version 0.0.4), and who adds to them.
//!
//! Names follow Prometheus' conventions: `rejoin_` first, the unit last,
//! `_total` for what only grows. Labels have few values, known in advance:
//! never a channel, a user or anything else that somebody outside chooses.

use std::fmt::Write;
use std::sync::Arc;

use delivery::stats::Histogram;
use parking_lot::Mutex;

/// The media type of [`Exposition::into_text`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Metrics being written.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
}

/// One metric, which gets its samples.
#[derive(Debug)]
pub struct Family<'a> {
    text: &'a mut String,
    name: &'static str,
}

/// One histogram, which gets its samples.
#[derive(Debug)]
pub struct HistogramFamily<'a> {
    text: &'a mut String,
    name: &'static str,
    per_unit: f64,
}

/// A sample's value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// Written exactly.
    Whole(u64),
    /// May be negative or a fraction.
    Real(f64),
}

impl Exposition {
    /// A metric that only grows; its name ends in `_total`. Each name is
    /// begun once.
    pub fn counter(&mut self, name: &'static str, help: &'static str) -> Family<'_> {
        debug_assert!(name.ends_with("_total"), "{name}");
        self.family(name, help, "counter")
    }

    /// A metric that goes up and down.
    pub fn gauge(&mut self, name: &'static str, help: &'static str) -> Family<'_> {
        self.family(name, help, "gauge")
    }

    /// How often something was how large. `per_unit` of what was observed
    /// are one unit of the metric: 1e6 where microseconds become seconds.
    pub fn histogram(
        &mut self,
        name: &'static str,
        help: &'static str,
        per_unit: f64,
    ) -> HistogramFamily<'_> {
        let Family { text, name } = self.family(name, help, "histogram");
        HistogramFamily {
            text,
            name,
            per_unit,
        }
    }

    fn family(&mut self, name: &'static str, help: &'static str, kind: &'static str) -> Family<'_> {
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Family {
            text: &mut self.text,
            name,
        }
    }

    /// Everything that was written.
    pub fn into_text(self) -> String {
        self.text
    }
}

impl Family<'_> {
    /// Adds the metric's only sample.
    pub fn value(&mut self, value: impl Into<Value>) {
        self.sample(&[], value);
    }

    /// Adds a sample; no two have the same labels.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl Into<Value>) -> &mut Self {
        write_sample(self.text, self.name, labels, value.into());
        self
    }
}

impl HistogramFamily<'_> {
    /// Adds a histogram; no two have the same labels.
    pub fn sample(&mut self, labels: &[(&str, &str)], histogram: &Histogram) -> &mut Self {
        let state = histogram.state();
        let name = format!("{}_bucket", self.name);
        let cumulative = state.cumulative.iter();
        let buckets = cumulative
            .map(|(bound, count)| ((*bound as f64 / self.per_unit).to_string(), *count))
            .chain([("+Inf".to_owned(), state.count)]);
        for (bound, count) in buckets {
            let labels = [labels, &[("le", &bound)]].concat();
            write_sample(self.text, &name, &labels, count.into());
        }
        let sum = state.sum as f64 / self.per_unit;
        write_sample(self.text, &format!("{}_sum", self.name), labels, sum.into());
        let name = format!("{}_count", self.name);
        write_sample(self.text, &name, labels, state.count.into());
        self
    }
}

fn write_sample(text: &mut String, name: &str, labels: &[(&str, &str)], value: Value) {
    text.push_str(name);
    for (index, (name, label)) in labels.iter().enumerate() {
        text.push(if index == 0 { '{' } else { ',' });
        let label = label
            .replace('\\', r"\\")
            .replace('"', r#"\""#)
            .replace('\n', r"\n");
        let _ = write!(text, "{name}=\"{label}\"");
    }
    if !labels.is_empty() {
        text.push('}');
    }
    let _ = match value {
        Value::Whole(value) => writeln!(text, " {value}"),
        Value::Real(value) => writeln!(text, " {value}"),
    };
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Whole(value)
    }
}

impl From<usize> for Value {
    fn from(value: usize) -> Self {
        Self::Whole(value as u64)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Whole(value.into())
    }
}

type Source = Box<dyn Fn(&mut Exposition) + Send + Sync>;

/// A cheap handle through which the parts of a process show their numbers.
#[derive(Clone, Default)]
pub struct Metrics {
    sources: Arc<Mutex<Vec<Source>>>,
}

impl Metrics {
    /// Adds a part's numbers, for as long as the process lives. `source` is
    /// called for each request to `/metrics` and must not block.
    pub fn add(&self, source: impl Fn(&mut Exposition) + Send + Sync + 'static) {
        self.sources.lock().push(Box::new(source));
    }

    pub(crate) fn write(&self, out: &mut Exposition) {
        for source in self.sources.lock().iter() {
            source(out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_as_prometheus_reads_it() {
        let mut out = Exposition::default();
        out.gauge("rejoin_lag_seconds", "How late.").value(0.25);
        out.counter("rejoin_odd_total", "Odd things.")
            .sample(&[("what", "a\\b\"c\nd"), ("n", "1")], u64::MAX)
            .sample(&[("what", ""), ("n", "2")], 7_usize);
        let expected = r#"# HELP rejoin_lag_seconds How late.
# TYPE rejoin_lag_seconds gauge
rejoin_lag_seconds 0.25
# HELP rejoin_odd_total Odd things.
# TYPE rejoin_odd_total counter
rejoin_odd_total{what="a\\b\"c\nd",n="1"} 18446744073709551615
rejoin_odd_total{what="",n="2"} 7
"#;
        assert_eq!(out.into_text(), expected);
    }

    #[test]
    fn a_histogram_is_cumulative_and_in_the_metrics_unit() {
        let histogram = Histogram::new(&[500, 2_000_000]);
        histogram.observe(100);
        histogram.observe(500_000);
        histogram.observe(3_000_000);
        let mut out = Exposition::default();
        out.histogram("rejoin_x_seconds", "How long.", 1e6)
            .sample(&[("source", "a")], &histogram);
        let expected = r#"# HELP rejoin_x_seconds How long.
# TYPE rejoin_x_seconds histogram
rejoin_x_seconds_bucket{source="a",le="0.0005"} 1
rejoin_x_seconds_bucket{source="a",le="2"} 2
rejoin_x_seconds_bucket{source="a",le="+Inf"} 3
rejoin_x_seconds_sum{source="a"} 3.5001
rejoin_x_seconds_count{source="a"} 3
"#;
        assert_eq!(out.into_text(), expected);
    }
}
