//! One self-contained page: what the demo trained, how it went, and what the int8 runtime sees.

use std::fmt::Write;

use anyhow::Result;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use contract::LabelMap;
use report::{Chart, Table, escape};

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

/// The page as HTML without any outside asset.
pub fn page(report: &Report) -> Result<String> {
    let mut html = String::from("<h1>One network, CT and MRI, in int8</h1>");
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
    html.push_str(&report.dice.html());
    html.push_str("<h2>Latency per slice</h2>");
    html.push_str(&report.latency.html());
    html.push_str("<h2>Training</h2>");
    html.push_str(&report::cards(&report.charts)?);
    html.push_str("<p class=\"quiet\">Synthetic subjects; research use, not a medical device.</p>");
    Ok(report::shell("Gantry demo", &html))
}

#[cfg(test)]
mod tests {
    use super::*;
    use report::Row;

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
}
