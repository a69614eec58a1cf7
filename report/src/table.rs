//! Tables of text cells, for pages and for the terminal.

use std::fmt::Write;

use crate::escape;

/// A table of text cells; the first two columns are names.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// Head.
    pub columns: Vec<String>,
    /// Cells.
    pub rows: Vec<Row>,
}

/// One row.
#[derive(Clone, Debug)]
pub struct Row {
    /// Cells.
    pub cells: Vec<String>,
    /// Shown in bold.
    pub mean: bool,
}

impl Table {
    /// As HTML.
    pub fn html(&self) -> String {
        let mut html = String::from("<div class=\"card scroll\"><table><thead><tr>");
        for column in &self.columns {
            let _ = write!(html, "<th>{}</th>", escape(column));
        }
        html.push_str("</tr></thead><tbody>");
        for row in &self.rows {
            html.push_str(if row.mean { "<tr class=\"mean\">" } else { "<tr>" });
            for cell in &row.cells {
                let _ = write!(html, "<td>{}</td>", escape(cell));
            }
            html.push_str("</tr>");
        }
        html.push_str("</tbody></table></div>");
        html
    }

    /// As Markdown.
    pub fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | ").replace('\n', " "));
        let rule: String =
            self.columns.iter().enumerate().map(|(at, _)| if at < 2 { "|---" } else { "|--:" }).collect();
        let rows = self.rows.iter().map(|row| {
            let bold = |cell: &String| if row.mean && !cell.is_empty() { format!("**{cell}**") } else { cell.clone() };
            line(&row.cells.iter().map(bold).collect::<Vec<_>>())
        });
        format!("{}{rule}|\n{}", line(&self.columns), rows.collect::<String>())
    }

    /// As aligned text.
    pub fn text(&self) -> String {
        let cells = || std::iter::once(&self.columns).chain(self.rows.iter().map(|row| &row.cells));
        let widths: Vec<usize> =
            (0..self.columns.len()).map(|at| cells().map(|row| row[at].chars().count()).max().unwrap_or(0)).collect();
        let mut text = String::new();
        for row in cells() {
            for (at, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                let gap = if at == 0 { "" } else { "  " };
                let padded = if at < 2 { format!("{cell:<width$}") } else { format!("{cell:>width$}") };
                text.push_str(gap);
                text.push_str(&padded);
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_tables_are_aligned() {
        let row = |a: &str, b: &str, c: &str| Row { cells: [a, b, c].map(String::from).to_vec(), mean: false };
        let table = Table {
            columns: ["modality", "organ", "Dice"].map(String::from).to_vec(),
            rows: vec![row("ct", "liver", "0.9"), row("mr", "right kidney", "0.91")],
        };
        assert_eq!(
            table.text(),
            "modality  organ         Dice\nct        liver          0.9\nmr        right kidney  0.91\n"
        );
    }

    #[test]
    fn markdown_has_a_rule_and_bold_means() {
        let row = |mean| Row { cells: ["a", "b", "1"].map(String::from).to_vec(), mean };
        let table = Table { columns: ["x", "y", "z"].map(String::from).to_vec(), rows: vec![row(false), row(true)] };
        assert_eq!(table.markdown(), "| x | y | z |\n|---|---|--:|\n| a | b | 1 |\n| **a** | **b** | **1** |\n");
    }

    #[test]
    fn cells_are_escaped() {
        let table = Table { columns: vec!["a<b".into()], rows: vec![Row { cells: vec!["\"&".into()], mean: true }] };
        let html = table.html();
        assert!(html.contains("<th>a&lt;b</th>") && html.contains("<tr class=\"mean\"><td>&quot;&amp;</td>"), "{html}");
    }
}
