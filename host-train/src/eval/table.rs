//! Scores as an aligned table for people, one row per modality and organ.

use std::fmt;

use super::scores::{Scores, Spread};

const HEAD: [&str; 6] = ["modality", "organ", "cases", "Dice", "HD95 mm", "ASSD mm"];

impl fmt::Display for Scores {
    /// Mean and standard deviation over the cases; `-` where no case has a value, and the number of cases that have
    /// one in brackets where it is not all of them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows = vec![HEAD.map(String::from)];
        for row in &self.summary {
            let cases = self.cases.iter().filter(|case| case.modality == row.modality).count();
            rows.push([
                row.modality.to_string(),
                row.organ.clone(),
                cases.to_string(),
                cell(row.dice, 4, cases),
                cell(row.hd95_mm, 2, cases),
                cell(row.assd_mm, 2, cases),
            ]);
        }
        let widths = [0, 1, 2, 3, 4, 5].map(|column| rows.iter().map(|row| width(&row[column])).max().unwrap_or(0));
        for row in rows {
            let words = row[..2].iter().zip(&widths[..2]).map(|(cell, &width)| format!("{cell:width$}"));
            let numbers = row[2..].iter().zip(&widths[2..]).map(|(cell, &width)| format!("{cell:>width$}"));
            writeln!(f, "{}", words.chain(numbers).collect::<Vec<_>>().join("  "))?;
        }
        Ok(())
    }
}

fn width(text: &str) -> usize {
    text.chars().count()
}

fn cell(spread: Option<Spread>, digits: usize, cases: usize) -> String {
    match spread {
        None => "-".into(),
        Some(Spread { mean, sd, n }) => {
            let some = if n == cases { String::new() } else { format!(" ({n})") };
            format!("{mean:.digits$} ± {sd:.digits$}{some}")
        }
    }
}

#[cfg(test)]
mod tests {
    use contract::Modality;

    use super::super::scores::tests::case;
    use super::*;

    #[test]
    fn columns_stand_below_each_other() {
        let cases = [[Some(0.9), None], [Some(0.7), Some(0.)]].map(|dices| case(Modality::Ct, "a", dices));
        let expected = "\
modality  organ       cases             Dice      HD95 mm  ASSD mm
ct        liver           2  0.8000 ± 0.1414  2.00 ± 1.41        -
ct        spleen          2  0.0000 ± 0.0000 (1)            -        -
";
        let table = Scores::of(cases.to_vec()).to_string();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 4);
        assert!(lines.iter().all(|line| width(line) == width(lines[0])), "{table}");
        let squeeze = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        for (line, expected) in lines.iter().zip(expected.lines()) {
            assert_eq!(squeeze(line), squeeze(expected));
        }
    }
}
