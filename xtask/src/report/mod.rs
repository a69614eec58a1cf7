//! One self-contained page: what the demo trained, how it went, and what the int8 runtime sees.

mod chart;

use std::fmt::Write;

use anyhow::Result;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use contract::LabelMap;

pub use chart::Series;

/// Everything the page shows; [`page`] only lays it out.
pub struct Report {
    /// Below the title: what was run, where, when.
    pub summary: Vec<String>,
    /// Headline numbers: value and what it is.
    pub figures: Vec<(String, String)>,
    /// Column names and rows; a row is a mean where its flag says so.
    pub dice: Table,
    /// Latency per modality.
    pub latency: Table,
    /// Training curves.
    pub charts: Vec<Chart>,
    /// Pictures: PNG and caption.
    pub pictures: Vec<(Vec<u8>, String)>,
    /// Legend of the pictures.
    pub labels: LabelMap,
}

/// A table of text cells; the first two columns are names.
#[derive(Default)]
pub struct Table {
    /// Head.
    pub columns: Vec<String>,
    /// Cells.
    pub rows: Vec<Row>,
}

/// One row.
pub struct Row {
    /// Cells.
    pub cells: Vec<String>,
    /// Shown in bold.
    pub mean: bool,
}

/// A chart to draw.
pub struct Chart {
    /// Title.
    pub caption: String,
    /// Vertical axis.
    pub unit: String,
    /// Lines.
    pub series: Vec<Series>,
    /// Fixed vertical range.
    pub range: Option<(f64, f64)>,
}

/// The page as HTML without any outside asset.
pub fn page(report: &Report) -> Result<String> {
    let mut html = String::new();
    let style = include_str!("page.css");
    write!(
        html,
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>Gantry demo</title><style>{style}</style><main><h1>One network, CT and MRI, in int8</h1>"
    )?;
    for line in &report.summary {
        write!(html, "<p class=\"quiet\">{}</p>", escape(line))?;
    }
    html.push_str("<div class=\"figures\">");
    for (value, name) in &report.figures {
        write!(html, "<div class=\"figure\"><b>{}</b><span>{}</span></div>", escape(value), escape(name))?;
    }
    html.push_str("</div><h2>What the int8 runtime sees on held-out subjects</h2><p class=\"quiet\">");
    for (_, label) in report.labels.organs() {
        let [r, g, b] = label.color;
        write!(html, "<i class=\"swatch\" style=\"background:rgb({r},{g},{b})\"></i>{}", escape(&label.name))?;
    }
    html.push_str("</p><div class=\"pair\">");
    for (png, caption) in &report.pictures {
        let data = STANDARD.encode(png);
        write!(
            html,
            "<figure class=\"card\"><img alt=\"{0}\" src=\"data:image/png;base64,{data}\"><figcaption>{0}</figcaption></figure>",
            escape(caption)
        )?;
    }
    html.push_str("</div><h2>Dice on held-out subjects, from training to the edge</h2>");
    table(&mut html, &report.dice)?;
    html.push_str("<h2>Latency per slice</h2>");
    table(&mut html, &report.latency)?;
    html.push_str("<h2>Training</h2><div class=\"pair\">");
    for chart in &report.charts {
        let svg = chart::lines(&chart.caption, &chart.unit, &chart.series, chart.range)?;
        write!(html, "<div class=\"card\">{svg}</div>")?;
    }
    html.push_str(
        "</div><p class=\"quiet\">Synthetic subjects; research use, not a medical device.</p></main></html>\n",
    );
    Ok(html)
}

fn table(html: &mut String, table: &Table) -> Result<()> {
    html.push_str("<div class=\"card scroll\"><table><thead><tr>");
    for column in &table.columns {
        write!(html, "<th>{}</th>", escape(column))?;
    }
    html.push_str("</tr></thead><tbody>");
    for row in &table.rows {
        html.push_str(if row.mean { "<tr class=\"mean\">" } else { "<tr>" });
        for cell in &row.cells {
            write!(html, "<td>{}</td>", escape(cell))?;
        }
        html.push_str("</tr>");
    }
    html.push_str("</tbody></table></div>");
    Ok(())
}

/// The table as aligned text, for the terminal.
pub fn text(table: &Table) -> String {
    let cells = || std::iter::once(&table.columns).chain(table.rows.iter().map(|row| &row.cells));
    let widths: Vec<usize> =
        (0..table.columns.len()).map(|at| cells().map(|row| row[at].chars().count()).max().unwrap_or(0)).collect();
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

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_needs_nothing_from_outside_and_escapes_what_it_shows() {
        let cells = vec!["CT".to_string(), "a<b".to_string()];
        let dice = Table { columns: cells.clone(), rows: vec![Row { cells, mean: true }] };
        let report = Report {
            summary: vec!["5 < 6 & \"quoted\"".into()],
            figures: vec![],
            dice,
            latency: Table::default(),
            charts: vec![],
            pictures: vec![(vec![1, 2, 3], "a slice".into())],
            labels: LabelMap::abdomen(),
        };
        let html = page(&report).unwrap();
        assert!(html.contains("5 &lt; 6 &amp; &quot;quoted&quot;") && html.contains("a&lt;b"));
        assert!(!html.contains("http"), "no outside asset");
        assert!(html.contains("data:image/png;base64,AQID"));
    }

    #[test]
    fn text_tables_are_aligned() {
        let row = |a: &str, b: &str, c: &str| Row { cells: [a, b, c].map(String::from).to_vec(), mean: false };
        let table = Table {
            columns: ["modality", "organ", "Dice"].map(String::from).to_vec(),
            rows: vec![row("ct", "liver", "0.9"), row("mr", "right kidney", "0.91")],
        };
        assert_eq!(
            text(&table),
            "modality  organ         Dice\nct        liver          0.9\nmr        right kidney  0.91\n"
        );
    }
}
