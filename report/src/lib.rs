//! Pages that people read after a training or a demo: charts, heat maps and tables in one file without outside assets,
//! in the reader's light or dark theme.
//!
//! A package of its own, because the trainer and the demo both write pages, and neither may stand on the other.

mod boxes;
mod chart;
mod heat;
mod history;
mod table;
mod training;

use std::fmt::Write;

pub use boxes::{BoxSeries, Boxes};
pub use chart::{Chart, Series};
pub use heat::heat_map;
pub use history::{History, charts};
pub use table::{Row, Table};
pub use training::page as training_page;

/// Why a page cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The drawing library refused.
    #[error("cannot draw the chart '{caption}': {reason}")]
    Draw {
        /// Title of the chart.
        caption: String,
        /// Why.
        reason: String,
    },
    /// A history that nobody wrote like this.
    #[error("line {line} of {lines} of the metrics is not a JSON object: {error}")]
    History {
        /// From 1.
        line: usize,
        /// In all.
        lines: usize,
        /// Why.
        error: serde_json::Error,
    },
}

/// A whole page around `body`, which is HTML; `title` is text.
pub fn shell(title: &str, body: &str) -> String {
    let style = include_str!("page.css");
    let title = escape(title);
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title}</title><style>{style}</style><main>{body}</main></html>\n"
    )
}

/// A chart's SVG as a file of its own, which brings the page's colours along.
pub fn svg_file(svg: &str) -> String {
    let style = include_str!("page.css");
    svg.replacen('>', &format!("><style>{style} text {{ fill: var(--ink); }}</style>"), 1)
}

/// Charts side by side, as HTML.
pub fn cards(charts: &[Chart]) -> Result<String, ReportError> {
    let mut html = String::from("<div class=\"pair\">");
    for chart in charts {
        let _ = write!(html, "<div class=\"card\">{}</div>", chart.svg()?);
    }
    html.push_str("</div>");
    Ok(html)
}

/// Text as it may stand between tags and in attributes.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
