//! JSON that a person can read too.

use emoc_ir::{Diagnostic, Result};
use serde::{Serialize, de::DeserializeOwned};

use crate::ui::Ui;

/// Lists of numbers and words up to this length stand in one line.
const WIDTH: usize = 90;

/// Indented JSON with a final newline.
///
/// # Errors
/// Never, for the types of this crate.
pub fn text<T: Serialize + ?Sized>(value: &T) -> Result<String> {
    let pretty = serde_json::to_string_pretty(value).map_err(|error| fault(&error))?;
    let lines: Vec<&str> = pretty.lines().collect();
    let mut text = String::with_capacity(pretty.len());
    let mut next = 0;
    while next < lines.len() {
        let (line, taken) = one_line_list(&lines[next..]).unwrap_or((lines[next].to_owned(), 1));
        text.push_str(&line);
        text.push('\n');
        next += taken;
    }
    Ok(text)
}

/// The list that begins in the first line, if it holds nothing nested and is short, and the
/// number of lines it took. A line that opens something ends with its bracket, a string never
/// does.
fn one_line_list(lines: &[&str]) -> Option<(String, usize)> {
    let open = lines.first().filter(|line| line.ends_with('['))?;
    let mut line = (*open).to_owned();
    for (index, item) in lines.iter().enumerate().skip(1) {
        let trimmed = item.trim_start();
        if matches!(trimmed, "]" | "],") {
            line.push_str(trimmed);
            return Some((line, index + 1));
        }
        if trimmed.ends_with(['[', '{']) || line.len() + trimmed.len() > WIDTH {
            return None;
        }
        line.push_str(trimmed);
        if trimmed.ends_with(',') {
            line.push(' ');
        }
    }
    None
}

/// A value as another type of the same JSON.
///
/// # Errors
/// Their JSON differs.
pub fn convert<T: Serialize, U: DeserializeOwned>(value: &T) -> Result<U> {
    let json = serde_json::to_value(value).map_err(|error| fault(&error))?;
    serde_json::from_value(json).map_err(|error| fault(&error))
}

/// JSON in one line.
///
/// # Errors
/// Never, for the types of this crate.
pub fn line<T: Serialize + ?Sized>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|error| fault(&error))
}

/// Prints a result for programs.
///
/// # Errors
/// Those of [`Ui::print`].
pub fn print<T: Serialize + ?Sized>(value: &T, ui: &Ui) -> Result<()> {
    ui.print(text(value)?)
}

/// Shows a result to whom it is for: to programs as JSON, to people as text, and to those who want
/// to hear only of what went wrong not at all.
///
/// # Errors
/// Those of [`Ui::print`].
pub fn show<T: Serialize + ?Sized>(
    result: &T,
    text: impl FnOnce() -> String,
    ui: &Ui,
) -> Result<()> {
    match (ui.json(), ui.quiet()) {
        (true, _) => print(result, ui),
        (false, true) => Ok(()),
        (false, false) => ui.print_prose(text()),
    }
}

fn fault(error: &serde_json::Error) -> Box<Diagnostic> {
    Diagnostic::internal(format!("a result is no JSON: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn short_lists_stand_in_a_line_and_nothing_changes() {
        let long = vec!["a long word"; 20];
        let value = json!({
            "shape": [1, 3, 224, 224],
            "empty": [],
            "nested": [[1, 2], {"a": ["]", "[", "{,"]}],
            "long": long,
            "text": "ends with [",
        });
        let text = text(&value).expect("JSON");
        assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON"), value);
        for line in [
            "  \"shape\": [1, 3, 224, 224],",
            "    [1, 2],",
            "  \"empty\": [],",
        ] {
            let found = text
                .lines()
                .any(|found| found.trim_end_matches(',') == line.trim_end_matches(','));
            assert!(found, "{line}\n{text}");
        }
    }
}
