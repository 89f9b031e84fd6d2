//! Lines of prose for a terminal: broken between words, which terminals do not do.

use std::io::IsTerminal;

/// What every terminal has; prose does not get easier to read when it is wider.
const WIDTH: usize = 80;

/// The text as this stream should get it: folded on a terminal, and untouched for programs.
pub fn suited(stream: &impl IsTerminal, text: String) -> String {
    match stream.is_terminal() {
        true => fold(&text),
        false => text,
    }
}

/// Breaks lines that are too wide at spaces. They go on below the text that follows a label
/// (`input    224x224 ...`), or indented by two.
fn fold(text: &str) -> String {
    let lines = text.split('\n').map(|line| match width(line) > WIDTH {
        true => fold_line(line),
        false => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn fold_line(line: &str) -> String {
    let plain = anstream::adapter::strip_str(line).to_string();
    let indent = " ".repeat(indent(&plain));
    let mut folded = String::new();
    let mut column = 0;
    for (index, word) in line.split(' ').enumerate() {
        let length = width(word);
        let begins = folded.trim_start().is_empty();
        if !begins && column + 1 + length > WIDTH {
            folded.truncate(folded.trim_end_matches(' ').len());
            folded.push('\n');
            folded.push_str(&indent);
            column = indent.len();
        } else if index > 0 {
            folded.push(' ');
            column += 1;
        }
        folded.push_str(word);
        column += length;
    }
    folded
}

/// Columns that a line takes, styles aside.
fn width(text: &str) -> usize {
    anstream::adapter::strip_str(text)
        .map(|part| part.chars().count())
        .sum()
}

fn indent(line: &str) -> usize {
    let leading = line.len() - line.trim_start_matches(' ').len();
    let text = &line[leading..];
    let label = text.find("  ").map(|gap| {
        let after = &text[gap..];
        let label = text[..gap].chars().count();
        leading + label + after.len() - after.trim_start_matches(' ').len()
    });
    label
        .filter(|&label| label < WIDTH / 2)
        .unwrap_or(leading + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_between_words() {
        let check = |text: &str, expected: &str| assert_eq!(fold(text), expected);
        let fits = "x".repeat(WIDTH);
        check(&fits, &fits);
        check("short\n\n  lines\n", "short\n\n  lines\n");
        let words = ["word"; 20].join(" ");
        let first = ["word"; 16].join(" ");
        check(
            &format!("{words}\nend\n"),
            &format!("{first}\n  word word word word\nend\n"),
        );
        check(
            &format!("  {words}"),
            &format!(
                "  {}\n    {}",
                ["word"; 15].join(" "),
                ["word"; 5].join(" ")
            ),
        );
        let styled = format!("\u{1b}[1mnote\u{1b}[0m {words}");
        check(
            &styled,
            &format!(
                "\u{1b}[1mnote\u{1b}[0m {}\n  {}",
                ["word"; 15].join(" "),
                ["word"; 5].join(" ")
            ),
        );
        check(
            &format!("label    {words}"),
            &format!(
                "label    {}\n         {}",
                ["word"; 14].join(" "),
                ["word"; 6].join(" ")
            ),
        );
        // A path is never broken, and nothing is lost for it.
        let path = "/p".repeat(50);
        check(
            &format!("wrote {path} now"),
            &format!("wrote\n  {path}\n  now"),
        );
        check(&path, &path);
    }
}
