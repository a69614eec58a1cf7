//! Matrices of probabilities as pictures: one square per entry, the fuller the larger, and the number in it.

use std::fmt::Write;

use crate::escape;

/// Side of a square, room for the row names, for the column names, and for title and axis: pixels.
const CELL: usize = 46;
const LEFT: usize = 104;
const TOP: usize = 74;

/// A matrix `[true class][class]` of values in [0, 1] as SVG, one row per name; a row is `None` where the class was not
/// there. `color` is one of the page's line colours.
pub fn heat_map(title: &str, names: &[String], rows: &[Option<Vec<f64>>], color: usize) -> String {
    let (width, height) = (LEFT + CELL * names.len() + 48, TOP + CELL * rows.len() + 8);
    let mut svg = format!(
        "<svg class=\"heat\" viewBox=\"0 0 {width} {height}\" style=\"max-width:{width}px\" role=\"img\" \
         aria-label=\"{0}\" xmlns=\"http://www.w3.org/2000/svg\" font-family=\"sans-serif\" font-size=\"12\" \
         fill=\"var(--ink)\"><text x=\"4\" y=\"18\" font-size=\"15\" font-weight=\"bold\">{0}</text>",
        escape(title)
    );
    for (column, name) in names.iter().enumerate() {
        let (x, y) = (LEFT + column * CELL + CELL / 2, TOP - 8);
        let _ = write!(svg, "<text transform=\"translate({x},{y}) rotate(-24)\">{}</text>", escape(&short(name)));
    }
    for (index, (name, row)) in names.iter().zip(rows).enumerate() {
        let top = TOP + index * CELL;
        let middle = top + CELL / 2 + 4;
        let _ =
            write!(svg, "<text x=\"{}\" y=\"{middle}\" text-anchor=\"end\">{}</text>", LEFT - 8, escape(&short(name)));
        match row {
            Some(values) => {
                values.iter().enumerate().for_each(|(at, &value)| cell(&mut svg, LEFT + at * CELL, top, value, color));
            }
            None => {
                let _ = write!(svg, "<text x=\"{LEFT}\" y=\"{middle}\" fill=\"var(--quiet)\">not in the batch</text>");
            }
        }
    }
    svg.push_str("</svg>");
    svg
}

fn cell(svg: &mut String, x: usize, y: usize, value: f64, color: usize) {
    let opacity = value.clamp(0., 1.);
    // On a full square the paper's colour reads better than the ink's.
    let text = if opacity > 0.55 { "var(--card)" } else { "var(--ink)" };
    let _ = write!(
        svg,
        "<rect x=\"{x}\" y=\"{y}\" width=\"{0}\" height=\"{0}\" rx=\"3\" fill=\"var(--line-{color})\" \
         fill-opacity=\"{opacity:.3}\" stroke=\"var(--rule)\"/><text x=\"{1}\" y=\"{2}\" text-anchor=\"middle\" \
         fill=\"{text}\">{value:.2}</text>",
        CELL - 2,
        x + CELL / 2 - 1,
        y + CELL / 2 + 4
    );
}

/// Names that fit beside the squares.
fn short(name: &str) -> String {
    if name.chars().count() <= 14 { name.into() } else { name.chars().take(13).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_drawn_and_an_absent_row_says_so() {
        let names = ["background", "liver & more", "a name that is long"].map(String::from);
        let svg = heat_map("CT", &names, &[Some(vec![0.9, 0.1, 0.]), None, Some(vec![0., 0., 1.])], 0);
        assert_eq!(svg.matches("<rect").count(), 6);
        assert!(svg.contains(">0.90<") && svg.contains("fill-opacity=\"0.900\""));
        assert!(svg.contains("liver &amp; more") && svg.contains("a name that i…") && svg.contains("not in the batch"));
    }
}
