//! Texts with `@{placeholders}`.

use std::{collections::BTreeMap, fmt::Display};

/// Values by the name of their placeholder.
#[derive(Debug, Clone, Default)]
pub struct Template(BTreeMap<&'static str, String>);

impl Template {
    pub fn set(&mut self, name: &'static str, value: impl Display) {
        self.0.insert(name, value.to_string());
    }

    /// The text with every placeholder replaced. Values are not searched for placeholders, except
    /// that a text may be one of the values: it is filled first.
    ///
    /// # Panics
    /// At a placeholder without a value: a slip in a template, which every test would meet.
    pub fn fill(&self, text: &str) -> String {
        let mut filled = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("@{") {
            let (name, after) = after.split_once('}').expect("a placeholder's end");
            let value = self.0.get(name);
            filled.push_str(before);
            filled.push_str(value.unwrap_or_else(|| panic!("no value for {name:?}")));
            rest = after;
        }
        filled + rest
    }
}
