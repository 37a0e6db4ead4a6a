//! What a process says of its own steps at `/metrics`, and whether it is ready.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use anyhow::Context;

/// A histogram of seconds with a label that names the step.
#[derive(Clone, Copy)]
pub(crate) struct StepMetric {
    /// Without `_sum`.
    pub(crate) name: &'static str,
    pub(crate) label: &'static str,
}

/// Seconds that a process has spent on each step, and how often.
pub(crate) struct Steps(BTreeMap<String, (f64, f64)>);

impl Steps {
    /// Asks a process.
    pub(crate) fn of(address: SocketAddr, metric: StepMetric) -> anyhow::Result<Self> {
        Self::read(&ask(address, "/metrics")?, metric)
    }

    fn read(text: &str, StepMetric { name, label }: StepMetric) -> anyhow::Result<Self> {
        let mut steps = BTreeMap::<_, (f64, f64)>::new();
        let label = format!("{{{label}=\"");
        for line in text.lines() {
            let rest = line.strip_prefix(name).and_then(|rest| rest.strip_prefix('_'));
            let Some((kind, rest)) = rest.and_then(|rest| rest.split_once(&label)) else {
                continue;
            };
            let Some((step, value)) = rest.split_once("\"} ") else { continue };
            let entry = steps.entry(step.to_owned()).or_default();
            match kind {
                "sum" => entry.0 = value.parse()?,
                "count" => entry.1 = value.parse()?,
                _ => {}
            }
        }
        Ok(Self(steps))
    }

    /// Mean milliseconds of a step since then.
    pub(crate) fn since(&self, before: &Self, step: &str) -> anyhow::Result<f64> {
        let of = |steps: &Self| steps.0.get(step).copied();
        let (now, then) = of(self).zip(of(before)).with_context(|| format!("no step {step}"))?;
        Ok(1e3 * (now.0 - then.0) / (now.1 - then.1).max(1.0))
    }
}

/// What a process answers, head and body.
pub(crate) fn ask(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_means_between_two_looks() {
        let metric = StepMetric { name: "a_seconds", label: "stage" };
        let look = |sum: f64, count: u32| {
            let text = format!(
                "# TYPE a_seconds histogram\na_seconds_sum{{stage=\"sink\"}} {sum}\n\
                 a_seconds_count{{stage=\"sink\"}} {count}\n\
                 a_seconds_bucket{{le=\"1.0\",stage=\"sink\"}} 5\nb_seconds_sum{{stage=\"x\"}} 1\n"
            );
            Steps::read(&text, metric).expect("numbers")
        };
        let mean = look(3.0, 6).since(&look(1.0, 2), "sink").expect("a step");
        assert!((mean - 500.0).abs() < 1e-9);
        assert!(look(3.0, 6).since(&look(1.0, 2), "x").is_err());
    }
}
