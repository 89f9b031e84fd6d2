//! `operators.tsv`: what TensorRT's ONNX parser takes.

use std::{collections::BTreeMap, fmt, str::FromStr, sync::LazyLock};

use serde::{Deserialize, Serialize};

/// A version of TensorRT, as far as its parser's abilities depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version {
    /// 10 of 10.15.
    pub major: u32,
    /// 15 of 10.15.
    pub minor: u32,
}

impl Version {
    /// Such a version.
    pub const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('.');
        let parts =
            parts.and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
        let (major, minor) =
            parts.ok_or_else(|| format!("`{text}` is no version such as 10.15"))?;
        Ok(Self { major, minor })
    }
}

impl TryFrom<String> for Version {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.to_string()
    }
}

/// What is known of an operator.
#[derive(Debug)]
pub(super) struct Operator {
    /// None for an operator that is not taken.
    pub(super) support: Option<Support>,
    /// Restrictions in words; may be empty.
    pub(super) note: &'static str,
}

#[derive(Debug)]
pub(super) struct Support {
    pub(super) since: Version,
    pub(super) types: Vec<&'static str>,
    /// Whether all inputs have one of the types, and the same; else the first has.
    pub(super) all: bool,
    pub(super) form: Vec<Condition>,
}

/// What a node must be like.
#[derive(Debug, PartialEq)]
pub(super) enum Condition {
    Constant(usize),
    Zero(usize),
    Inputs(usize),
    Outputs(usize),
    Attribute(&'static str, Vec<&'static str>),
    Only(&'static str),
    Ones(&'static str),
    Spatial(usize, usize),
}

/// The table.
pub(super) struct Table {
    operators: BTreeMap<&'static str, Operator>,
    /// First and last operator set, and since when.
    opsets: Vec<(i64, i64, Version)>,
}

/// The table, read once.
pub(super) static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let table = Table::read(include_str!("operators.tsv"));
    table.unwrap_or_else(|line| panic!("operators.tsv: {line}"))
});

impl Table {
    pub(super) fn get(&self, operator: &str) -> Option<&Operator> {
        self.operators.get(operator)
    }

    /// The version that takes files of this operator set.
    pub(super) fn opset(&self, opset: i64) -> Option<Version> {
        let rows = self.opsets.iter();
        let taken = rows.filter(|(first, last, _)| (*first..=*last).contains(&opset));
        taken.map(|(_, _, since)| *since).min()
    }

    /// The first and the last operator set that any version takes.
    pub(super) fn opsets(&self) -> (i64, i64) {
        let first = self.opsets.iter().map(|row| row.0).min();
        let last = self.opsets.iter().map(|row| row.1).max();
        (first.unwrap_or(0), last.unwrap_or(0))
    }

    /// Errors are the line that is not understood.
    fn read(text: &'static str) -> Result<Self, String> {
        let mut table = Self {
            operators: BTreeMap::new(),
            opsets: Vec::new(),
        };
        let lines = text.lines();
        for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let cells: Vec<&str> = line.split('\t').collect();
            let read = match *cells {
                ["opset", first, last, since] => {
                    opset(first, last, since).map(|row| table.opsets.push(row))
                }
                [name, since, types, typed, form, note] => {
                    operator(since, types, typed, form, note)
                        .filter(|_| !table.operators.contains_key(name))
                        .map(|row| drop(table.operators.insert(name, row)))
                }
                _ => None,
            };
            read.ok_or_else(|| line.to_owned())?;
        }
        Ok(table)
    }
}

fn opset(first: &str, last: &str, since: &str) -> Option<(i64, i64, Version)> {
    Some((
        first.strip_prefix("first=")?.parse().ok()?,
        last.strip_prefix("last=")?.parse().ok()?,
        since.strip_prefix("since=")?.parse().ok()?,
    ))
}

fn operator(
    since: &str,
    types: &'static str,
    typed: &str,
    form: &'static str,
    note: &'static str,
) -> Option<Operator> {
    let note = if note == "-" { "" } else { note };
    if since == "-" {
        return Some(Operator {
            support: None,
            note,
        });
    }
    let support = Support {
        since: since.parse().ok()?,
        types: types.split(',').collect(),
        all: match typed {
            "all" => true,
            "first" => false,
            _ => return None,
        },
        form: match form {
            "-" => Vec::new(),
            form => form.split(' ').map(condition).collect::<Option<_>>()?,
        },
    };
    Some(Operator {
        support: Some(support),
        note,
    })
}

fn condition(text: &'static str) -> Option<Condition> {
    let (name, value) = text.split_once('=')?;
    Some(match name {
        "constant" => Condition::Constant(value.parse().ok()?),
        "zero" => Condition::Zero(value.parse().ok()?),
        "inputs" => Condition::Inputs(value.parse().ok()?),
        "outputs" => Condition::Outputs(value.parse().ok()?),
        "only" => Condition::Only(value),
        "dilations" if value == "1" => Condition::Ones(name),
        "spatial" => {
            let (low, high) = value.split_once("..")?;
            Condition::Spatial(low.parse().ok()?, high.parse().ok()?)
        }
        _ => Condition::Attribute(name.strip_prefix("attr:")?, value.split('|').collect()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_what_is_known() {
        let since = |name: &str| {
            TABLE
                .get(name)
                .and_then(|row| row.support.as_ref())
                .map(|s| s.since)
        };
        assert_eq!(since("LayerNormalization"), Some(Version::new(8, 6)));
        assert_eq!(since("Gelu"), Some(Version::new(10, 0)));
        assert_eq!(since("QLinearConv"), None);
        assert!(TABLE.get("NoSuchOperator").is_none());
        assert_eq!(TABLE.opset(20), Some(Version::new(10, 0)));
        assert_eq!(TABLE.opset(23), Some(Version::new(10, 15)));
        assert_eq!(TABLE.opset(8), None);
        assert_eq!(TABLE.opsets(), (9, 24));
    }

    #[test]
    fn slips_in_the_table_are_found() {
        for line in [
            "Add\t8.0\tFP32\tall\t-",
            "Add\t8\tFP32\tall\t-\t-",
            "Add\t8.0\tFP32\tmost\t-\t-",
            "Add\t8.0\tFP32\tall\tconstant\t-",
            "Add\t8.0\tFP32\tall\tconst=1\t-",
            "Add\t-\t-\t-\t-\t-\nAdd\t-\t-\t-\t-\t-",
        ] {
            let read = Table::read(line).map(|_| ());
            assert_eq!(
                read.as_ref()
                    .map_err(|found| line.ends_with(found.as_str())),
                Err(true),
                "{line}"
            );
        }
    }
}
