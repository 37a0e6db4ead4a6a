//! OpenMetrics text, read strictly: what is not of the format fails the test.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::support::PATIENCE;

/// The answer to a question by HTTP: its status and its body.
pub(crate) fn get(address: SocketAddr, path: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_lowercase(), body.to_owned())
}

/// All metrics of one name.
#[derive(Debug, Default)]
pub(crate) struct Family {
    pub(crate) kind: String,
    pub(crate) help: String,
    pub(crate) unit: Option<String>,
    pub(crate) samples: Vec<Sample>,
}

#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

/// Families by name.
#[derive(Debug)]
pub(crate) struct Exposition(pub(crate) BTreeMap<String, Family>);

impl Exposition {
    pub(crate) fn parse(text: &str) -> Self {
        let body = text.strip_suffix("# EOF\n").expect("the end is said");
        let mut families: BTreeMap<String, Family> = BTreeMap::new();
        let mut current = String::new();
        for line in body.lines() {
            let Some(comment) = line.strip_prefix("# ") else {
                let sample = Sample::parse(line);
                let family = families.get_mut(&current).expect("a sample has a family before it");
                assert!(!family.kind.is_empty(), "{line}: its kind was not said");
                assert!(sample.name.starts_with(&current), "{line} is not of {current}");
                family.samples.push(sample);
                continue;
            };
            let [word, name, rest] = comment.splitn(3, ' ').collect::<Vec<_>>()[..] else {
                panic!("{line}")
            };
            if word == "HELP" {
                assert!(
                    families.insert(name.to_owned(), Family::default()).is_none(),
                    "{name} twice"
                );
                current = name.to_owned();
            }
            assert_eq!(name, current, "{line} comes in between");
            let family = families.get_mut(&current).unwrap();
            match word {
                "HELP" => family.help = rest.to_owned(),
                "TYPE" => family.kind = rest.to_owned(),
                "UNIT" => family.unit = Some(rest.to_owned()),
                _ => panic!("{line}"),
            }
        }
        Self(families)
    }

    /// Names of samples without labels and without what a histogram adds, as queries and people
    /// write them.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        let name = |(name, family): (&String, &Family)| match family.kind.as_str() {
            "counter" => format!("{name}_total"),
            "info" => format!("{name}_info"),
            _ => name.clone(),
        };
        self.0.iter().map(name).collect()
    }

    /// The value of the one sample of this name with these labels at least; 0 where there is none.
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let fits = |sample: &&Sample| {
            sample.name == name
                && labels.iter().all(|(label, value)| {
                    sample.labels.get(*label).is_some_and(|found| found == value)
                })
        };
        let found: Vec<_> =
            self.0.values().flat_map(|family| &family.samples).filter(fits).collect();
        assert!(found.len() <= 1, "{name} {labels:?}: {found:?}");
        found.first().map_or(0.0, |sample| sample.value)
    }

    /// All values of a label.
    pub(crate) fn label_values(&self, label: &str) -> BTreeSet<String> {
        let samples = self.0.values().flat_map(|family| &family.samples);
        samples.filter_map(|sample| sample.labels.get(label).cloned()).collect()
    }
}

impl Sample {
    /// `name{label="value",...} 1.0`; none of ours has a time or an exemplar.
    fn parse(line: &str) -> Self {
        let (name, rest) = line.split_at(line.find(['{', ' ']).expect("a value"));
        let mut labels = BTreeMap::new();
        let mut rest = rest;
        if let Some(inside) = rest.strip_prefix('{') {
            let mut left = inside;
            loop {
                let (label, after) = left.split_once("=\"").expect("a label");
                let end = after.find('"').expect("the end of a value");
                assert!(!after[..end].contains('\\'), "{line}: none of ours is escaped");
                assert!(labels.insert(label.to_owned(), after[..end].to_owned()).is_none());
                left = &after[end + 1..];
                match left.strip_prefix(',') {
                    Some(more) => left = more,
                    None => break,
                }
            }
            rest = left.strip_prefix('}').expect("the end of the labels");
        }
        let value = rest.strip_prefix(' ').expect("a space").parse().expect("a number");
        Self { name: name.to_owned(), labels, value }
    }
}
