//! A study's tables and boxplots.

use contract::Modality;
use report::{BoxSeries, Boxes, Row as Line, Table};

use super::summary::{ALL, Metric, Pair, Row, Spread, Summary};

/// How CT and MR are called on pages.
fn title(modality: Modality) -> &'static str {
    match modality {
        Modality::Ct => "CT",
        Modality::Mr => "MRI",
    }
}

/// Means over seeds; only the means over organs where `brief`.
pub fn means(summary: &Summary, brief: bool) -> Table {
    let columns = ["cases", "scans", "organ", "arm", "Dice", "HD95, mm", "ASSD, mm", "no distance"];
    let row = |row: &Row| {
        let cells = vec![
            row.size.clone(),
            title(row.modality).into(),
            row.organ.clone(),
            row.arm.clone(),
            spread(row.dice, 3),
            spread(row.hd95_mm, 2),
            spread(row.assd_mm, 2),
            format!("{} of {}", row.undefined, row.scored),
        ];
        Line { cells, mean: row.organ == ALL && !brief }
    };
    let rows = summary.rows.iter().filter(|row| !brief || row.organ == ALL).map(row).collect();
    Table { columns: columns.map(String::from).to_vec(), rows }
}

/// Arms against their baseline; only the Dice over all organs where `brief`.
pub fn differences(summary: &Summary, brief: bool) -> Table {
    let columns = ["cases", "scans", "organ", "arm", "minus", "score", "difference", "p", "pairs", "left out", "seeds"];
    let row = |pair: &Pair| {
        let digits = if pair.metric == Metric::Dice { 4 } else { 2 };
        let p = pair
            .wilcoxon
            .map_or("none".into(), |test| format!("{:.4}{}", test.p, if test.exact { "" } else { " (normal)" }));
        let cells = vec![
            pair.size.clone(),
            title(pair.modality).into(),
            pair.organ.clone(),
            pair.arm.clone(),
            pair.baseline.clone(),
            pair.metric.title().into(),
            pair.difference.map_or("none".into(), |difference| format!("{difference:+.digits$}")),
            p,
            pair.cases.to_string(),
            pair.left_out.to_string(),
            pair.seeds.to_string(),
        ];
        Line { cells, mean: pair.organ == ALL && !brief }
    };
    let shown = |pair: &&Pair| !brief || pair.organ == ALL && pair.metric == Metric::Dice;
    Table { columns: columns.map(String::from).to_vec(), rows: summary.pairs.iter().filter(shown).map(row).collect() }
}

fn spread(spread: Option<Spread>, digits: usize) -> String {
    match spread {
        None => "none".into(),
        Some(Spread { mean, sd: None, .. }) => format!("{mean:.digits$} (1 seed)"),
        Some(Spread { mean, sd: Some(sd), .. }) => format!("{mean:.digits$} ± {sd:.digits$}"),
    }
}

/// Boxplots with the names of their files: per training-set size, modality and score, organs side by side.
pub fn boxes(summary: &Summary) -> Vec<(String, Boxes)> {
    let mut charts: Vec<(String, Boxes)> = vec![];
    for values in &summary.values {
        let name = format!("{}-{}-n{}.svg", values.metric.name(), values.modality.name(), values.size);
        let at = charts.iter().position(|(found, _)| *found == name).unwrap_or_else(|| {
            let caption = format!("{}, {} training cases", title(values.modality), values.size);
            let range = (values.metric == Metric::Dice).then_some((0., 1.));
            let unit = values.metric.title().to_string();
            charts.push((name, Boxes { caption, unit, groups: vec![], series: vec![], range }));
            charts.len() - 1
        });
        let chart = &mut charts[at].1;
        if !chart.groups.contains(&values.organ) {
            chart.groups.push(values.organ.clone());
        }
        let series = chart.series.iter().position(|series| series.name == values.arm).unwrap_or_else(|| {
            let color = chart.series.len() % 8;
            chart.series.push(BoxSeries { name: values.arm.clone(), color, values: vec![] });
            chart.series.len() - 1
        });
        // Arms come in the same order for every organ; one without runs has no boxes anywhere at this size.
        chart.series[series].values.push(values.values.clone());
    }
    charts
}
