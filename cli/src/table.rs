//! Columns of text.

use std::fmt;

use anstyle::Style;

use crate::ui::one_line;

/// Which side of its column a cell stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Left,
    Right,
}

/// A table with a heading. Cells may carry a style, which takes no width.
pub struct Table {
    sides: Vec<Side>,
    rows: Vec<Vec<Cell>>,
}

/// Text with a style, made safe for a terminal: it may come from a file.
#[derive(Debug, Clone, Default)]
pub struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    pub fn styled(text: impl Into<String>, style: Style) -> Self {
        Self {
            text: one_line(&text.into()),
            style,
        }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::styled(text, Style::new())
    }
}

impl Table {
    /// A table with these headings.
    pub fn new(columns: &[(&str, Side)]) -> Self {
        let head = columns
            .iter()
            .map(|&(name, _)| Cell::styled(name, crate::ui::BOLD));
        Self {
            sides: columns.iter().map(|&(_, side)| side).collect(),
            rows: vec![head.collect()],
        }
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells
                .map(|cell| cell.text.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<_> = (0..self.sides.len()).map(width).collect();
        for row in &self.rows {
            let last = row
                .iter()
                .rposition(|cell| !cell.text.is_empty())
                .unwrap_or(0);
            for (column, cell) in row.iter().enumerate().take(last + 1) {
                let gap = if column > 0 { "  " } else { "" };
                let space = widths[column] - cell.text.chars().count();
                let (left, right) = match self.sides[column] {
                    Side::Right => (space, 0),
                    Side::Left if column == last => (0, 0),
                    Side::Left => (0, space),
                };
                let (text, style) = (&cell.text, cell.style);
                write!(f, "{gap}{:left$}{style}{text}{style:#}{:right$}", "", "")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// A number with its digits in groups of three: `1,035,473,760`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number with its noun.
pub fn counted(number: usize, noun: &str) -> String {
    let ending = match (number, noun.ends_with('s')) {
        (1, _) => "",
        (_, true) => "es",
        (_, false) => "s",
    };
    format!("{} {noun}{ending}", grouped(number as u64))
}

/// A size in bytes for people: `20.7 MB`.
pub fn bytes(count: u64) -> String {
    match count {
        0..1_000 => format!("{count} bytes"),
        1_000..1_000_000 => format!("{:.1} kB", count as f64 / 1e3),
        _ => format!("{:.1} MB", count as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_whatever_the_style() {
        let mut table = Table::new(&[("name", Side::Left), ("n", Side::Right)]);
        table.row([Cell::styled("a", crate::ui::GOOD), "1234".into()]);
        table.row(["longer".into(), "5".into()]);
        table.row(["end".into(), Cell::default()]);
        let plain = anstream::adapter::strip_str(&table.to_string()).to_string();
        assert_eq!(plain, "name       n\na       1234\nlonger     5\nend\n");
    }

    #[test]
    fn numbers() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_035_473_760, "1,035,473,760"),
        ] {
            assert_eq!(grouped(number), text);
        }
        assert_eq!(counted(1, "class"), "1 class");
        assert_eq!(counted(1000, "class"), "1,000 classes");
        assert_eq!(counted(2, "thread"), "2 threads");
        assert_eq!(bytes(512), "512 bytes");
        assert_eq!(bytes(20_712_345), "20.7 MB");
    }
}
