//! The page of a training: what was asked for, what CT and MRI know of each other, and the curves.

use std::fmt::Write;

use contract::{LabelMap, Modality};
use serde_json::Value;

use crate::{History, ReportError, cards, escape, heat_map, history, shell};

/// The page of a training from its metrics; `summary` are lines of text below the title.
pub fn page(summary: &[String], history: &History, labels: &LabelMap) -> Result<String, ReportError> {
    let mut html = String::from("<h1>Training on unpaired CT and MRI</h1>");
    for line in summary {
        let _ = write!(html, "<p class=\"quiet\">{}</p>", escape(line));
    }
    let diagnoses = history.of_kind("diagnosis");
    if let (Some(first), Some(last)) = (diagnoses.first(), diagnoses.last()) {
        html.push_str(
            "<h2>What the network confuses, in CT and in MRI</h2><p class=\"quiet\">Row: the true class. Entries: the \
             softened mean answer over its pixels (the matrices q of the distillation), on the same training slices each \
             time.</p>",
        );
        matrices(&mut html, last);
        if first["step"] != last["step"] {
            html.push_str("<details><summary>The same at the first diagnosis</summary>");
            matrices(&mut html, first);
            html.push_str("</details>");
        }
        html.push_str("<h2>Agreement between the modalities</h2>");
        html.push_str(&cards(&history::agreement(&diagnoses, &classes(last)))?);
    }
    html.push_str("<h2>Losses and Dice</h2>");
    html.push_str(&cards(&history::charts(history, labels))?);
    Ok(shell("Gantry training", &html))
}

fn matrices(html: &mut String, diagnosis: &Value) {
    html.push_str("<div class=\"pair\">");
    for modality in Modality::ALL {
        let name = modality.name();
        let title = format!("{}, step {}", name.to_uppercase(), diagnosis["step"]);
        let rows = diagnosis[format!("q_{name}")].as_array().into_iter().flatten();
        let rows: Vec<_> =
            rows.map(|row| row.as_array().map(|row| row.iter().filter_map(Value::as_f64).collect())).collect();
        let map = heat_map(&title, &classes(diagnosis), &rows, modality.index());
        let _ = write!(html, "<div class=\"card\">{map}</div>");
    }
    html.push_str("</div>");
}

fn classes(diagnosis: &Value) -> Vec<String> {
    let names = diagnosis["classes"].as_array().into_iter().flatten();
    names.filter_map(|name| name.as_str().map(String::from)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_shows_matrices_and_curves_and_needs_nothing_from_outside() {
        let diagnosis = |step: u64, cosine: &str| {
            format!(
                "{{\"kind\":\"diagnosis\",\"step\":{step},\"classes\":[\"background\",\"liver\"],\"q_ct\":[[0.75,0.25],\
                 null],\"q_mr\":[[0.5,0.5],[0.125,0.875]],\"kl\":{{\"background\":0.5,\"liver\":null}},\
                 \"cosine\":{cosine}}}\n"
            )
        };
        let page = |text: &str| page(&["a < b".into()], &History::parse(text).unwrap(), &LabelMap::abdomen()).unwrap();
        let html = page(&(diagnosis(0, "0.5") + &diagnosis(5, "-0.25")));
        assert!(html.contains("a &lt; b") && html.contains("CT, step 5") && html.contains("MR, step 0"));
        assert!(html.contains(">0.88<") && html.contains("not in the batch") && html.contains("cosine"));
        // The name of SVG's namespace is no address that anybody fetches.
        let outside = html.replace("http://www.w3.org/2000/svg", "");
        assert!(!outside.contains("http") && !outside.contains("url("));
        assert!(!page(&diagnosis(0, "null")).contains("shared kernels"), "nothing shared, no chart of it");
        assert!(!page("").contains("confuses"));
    }
}
