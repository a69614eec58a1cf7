//! A study's report: `study.md`, `study.html`, `study.json`, and the boxplots as files of their own.

use std::{fmt::Write, path::Path};

use anyhow::Result;
use report::escape;

use super::{
    figures::{boxes, differences, means},
    summary::Summary,
    write,
};

/// How the numbers came about.
const METHOD: &[&str] = &[
    "Means and standard deviations are over seeds, of each seed's mean over test cases.",
    "An organ that only one of truth and result has scores Dice 0 and has no distance: 'no distance' counts such cases times \
     seeds, and the mean distances leave them out. 'all organs' is the mean over organs, case by case; it has no distance \
     where one organ has none.",
    "Differences are paired by test case: a case's scores are averaged over the seeds that both arms have, and cases without \
     a score in one of those runs are left out and counted.",
    "p: Wilcoxon's signed-rank test over cases, two-sided; differences of zero are dropped, ties share their mean rank; exact \
     up to 50 differences, beyond that the normal approximation with tie correction. Not adjusted for the number of tests.",
    "Boxes: quartiles and median over test cases (averaged over seeds), whiskers to the furthest case within 1.5 times the \
     box's height.",
];

/// Writes all files.
///
/// # Errors
/// One cannot be written, or a chart cannot be drawn.
pub fn write_all(out: &Path, summary: &Summary) -> Result<()> {
    let charts = boxes(summary);
    let (means, differences) = (means(summary, false), differences(summary, false));
    let mut html = format!("<h1>{}</h1>", escape(&title(out)));
    let mut markdown = format!("# {}\n\n{}\n", title(out), state(summary));
    write!(html, "<p>{}</p>", escape(&state(summary)))?;
    if !summary.missing.is_empty() {
        write!(markdown, "\nNot finished: {}\n", summary.missing.join(", "))?;
        write!(html, "<p>Not finished: {}</p>", escape(&summary.missing.join(", ")))?;
    }
    write!(
        markdown,
        "\n## Scores\n\n{}\n## Differences\n\n{}\n## Boxplots\n\n",
        means.markdown(),
        differences.markdown()
    )?;
    write!(html, "<h2>Scores</h2>{}<h2>Differences</h2>{}", means.html(), differences.html())?;
    html.push_str("<h2>Boxplots</h2><div class=\"pair\">");
    for (name, chart) in &charts {
        let svg = chart.svg()?;
        write(&out.join(name), &report::svg_file(&svg))?;
        writeln!(markdown, "![{}, {}]({name})", chart.caption, chart.unit)?;
        write!(html, "<div class=\"card\">{svg}</div>")?;
    }
    html.push_str("</div><h2>Method</h2>");
    markdown.push_str("\n## Method\n\n");
    for line in METHOD {
        writeln!(markdown, "* {line}")?;
        write!(html, "<p class=\"quiet\">{}</p>", escape(line))?;
    }
    write(&out.join("study.json"), &serde_json::to_string_pretty(summary)?)?;
    write(&out.join("study.md"), &markdown)?;
    write(&out.join("study.html"), &report::shell(&title(out), &html))
}

/// What is shown on the terminal: the means over organs.
pub fn terminal(summary: &Summary) -> String {
    let missing: String = summary.missing.iter().map(|name| format!("  missing: {name}\n")).collect();
    let (means, differences) = (means(summary, true).text(), differences(summary, true).text());
    format!("\n{means}\n{differences}\n{}\n{missing}", state(summary))
}

fn title(out: &Path) -> String {
    format!("Study {}", out.file_name().unwrap_or_default().to_string_lossy())
}

fn state(summary: &Summary) -> String {
    let Summary { finished, missing, baseline, .. } = summary;
    format!("{finished} of {} runs are finished; differences are to {baseline}.", finished + missing.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::summary::tests::example;

    #[test]
    fn the_report_says_what_is_missing_and_names_its_charts() {
        let folder = tempfile::tempdir().unwrap();
        write_all(folder.path(), &example()).unwrap();
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        let (markdown, html) = (read("study.md"), read("study.html"));
        assert!(markdown.contains("3 of 4 runs are finished") && markdown.contains("ummkd-nall-s1"), "{markdown}");
        assert!(
            markdown.contains("| all | CT | liver | joint | 0.610 ± 0.014 |") && markdown.contains("| 2 of 6 |"),
            "{markdown}"
        );
        assert!(markdown.contains("(dice-ct-nall.svg)") && read("dice-ct-nall.svg").contains("<style>"));
        assert!(html.contains("Wilcoxon") && !html.contains("src=") && !html.contains("href="), "no outside asset");
        let json: serde_json::Value = serde_json::from_str(&read("study.json")).unwrap();
        assert_eq!(json["pairs"][0]["wilcoxon"]["p"], 0.25);
        assert!(terminal(&example()).contains("missing: ummkd-nall-s1"));
    }
}
