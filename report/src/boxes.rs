//! Boxplots as SVG text: groups side by side, a coloured box per series.
//!
//! Box: quartiles and median. Whiskers: the furthest values within 1.5 times the box's height. Points: values beyond. (The
//! drawing library's own boxes draw whiskers of full length, where no value is: a Dice above 1.)

use plotters::{
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use crate::{
    ReportError,
    chart::{GRID, INK, fitted, line_color, themed},
};

/// A chart of boxes.
#[derive(Clone, Debug)]
pub struct Boxes {
    /// Title.
    pub caption: String,
    /// Vertical axis.
    pub unit: String,
    /// Names along the horizontal axis.
    pub groups: Vec<String>,
    /// One colour each.
    pub series: Vec<BoxSeries>,
    /// Fixed vertical range; else it fits the data.
    pub range: Option<(f64, f64)>,
}

/// The boxes of one colour.
#[derive(Clone, Debug)]
pub struct BoxSeries {
    /// Shown in the legend.
    pub name: String,
    /// One of the page's line colours, 0 to 7.
    pub color: usize,
    /// Values per group; a group without values has no box.
    pub values: Vec<Vec<f64>>,
}

/// Five numbers and what lies outside.
#[derive(Clone, Debug, PartialEq)]
struct Summary {
    low: f64,
    quartiles: [f64; 3],
    high: f64,
    beyond: Vec<f64>,
}

impl Boxes {
    /// As SVG text, for a page.
    pub fn svg(&self) -> Result<String, ReportError> {
        let mut svg = String::new();
        self.draw(&mut svg)
            .map_err(|error| ReportError::Draw { caption: self.caption.clone(), reason: error.to_string() })?;
        Ok(themed(&svg))
    }

    fn draw(&self, svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
        let area = SVGBackend::with_string(svg, (560, 330)).into_drawing_area();
        let values = self.series.iter().flat_map(|series| series.values.iter().flatten().copied());
        let (low, high) = self.range.unwrap_or_else(|| fitted(values));
        let groups = self.groups.len().max(1);
        let mut chart = ChartBuilder::on(&area)
            .caption(&self.caption, ("sans-serif", 17, FontStyle::Bold, &INK))
            .margin(8)
            .x_label_area_size(24)
            .y_label_area_size(56)
            .build_cartesian_2d(0f64..groups as f64, low..high)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .axis_style(INK)
            .label_style(("sans-serif", 13, &INK))
            .y_desc(&self.unit)
            .x_labels(0)
            .y_labels(6)
            .draw()?;
        let style = ("sans-serif", 13, &INK).into_text_style(&area).pos(Pos::new(HPos::Center, VPos::Top));
        let names = self.groups.iter().enumerate().map(|(group, name)| {
            EmptyElement::at((group as f64 + 0.5, low)) + Text::new(name.clone(), (0, 6), style.clone())
        });
        chart.draw_series(names)?;
        let step = 0.86 / self.series.len().max(1) as f64;
        for (place, series) in self.series.iter().enumerate() {
            let color = line_color(series.color);
            let boxes = series.values.iter().enumerate().filter_map(|(group, values)| {
                let left = group as f64 + 0.07 + place as f64 * step;
                Some((left + step * 0.1, left + step * 0.9, Summary::of(values)?))
            });
            let boxes: Vec<(f64, f64, Summary)> = boxes.collect();
            chart
                .draw_series(boxes.iter().map(|(left, right, summary)| {
                    let [lower, _, upper] = summary.quartiles;
                    Rectangle::new([(*left, lower), (*right, upper)], color.mix(0.35).filled())
                }))?
                .label(&series.name)
                .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 14, y + 5)], color.filled()));
            let lines = boxes.iter().flat_map(|(left, right, summary)| summary.lines(*left, *right));
            chart.draw_series(lines.map(|line| PathElement::new(line, color.stroke_width(2))))?;
            let points = boxes.iter().flat_map(|(left, right, summary)| {
                summary.beyond.iter().map(move |&value| ((left + right) / 2., value))
            });
            chart.draw_series(points.map(|point| Circle::new(point, 2, color.filled())))?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerLeft)
            .label_font(("sans-serif", 12, &INK))
            .draw()?;
        area.present()?;
        Ok(())
    }
}

impl Summary {
    fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let quartiles = [0.25, 0.5, 0.75].map(|share| quantile(&sorted, share));
        let [lower, median, upper] = quartiles;
        let (lower, median, upper) = (lower?, median?, upper?);
        let reach = 1.5 * (upper - lower);
        let within = |value: &&f64| (lower - reach..=upper + reach).contains(*value);
        Some(Self {
            low: *sorted.iter().find(within)?,
            quartiles: [lower, median, upper],
            high: *sorted.iter().rfind(within)?,
            beyond: sorted.iter().filter(|value| !within(value)).copied().collect(),
        })
    }

    /// Frame, median and whiskers of a box from `left` to `right`.
    fn lines(&self, left: f64, right: f64) -> Vec<Vec<(f64, f64)>> {
        let [lower, median, upper] = self.quartiles;
        let middle = (left + right) / 2.;
        vec![
            vec![(left, lower), (right, lower), (right, upper), (left, upper), (left, lower)],
            vec![(left, median), (right, median)],
            vec![(middle, self.low), (middle, lower)],
            vec![(middle, upper), (middle, self.high)],
        ]
    }
}

/// Linear between the two nearest values, as NumPy's default.
fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let at = share * sorted.len().checked_sub(1)? as f64;
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    Some(low + (high - low) * at.fract())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whiskers_end_at_values_and_points_lie_beyond() {
        // numpy.percentile: 2.25, 3.5, 4.75; the reach is 3.75.
        let summary = Summary::of(&[3., 1., 2., 20., 4., 5.]).unwrap();
        let expected = Summary { low: 1., quartiles: [2.25, 3.5, 4.75], high: 5., beyond: vec![20.] };
        assert_eq!(summary, expected);
        assert_eq!(Summary::of(&[]), None);
        assert_eq!(Summary::of(&[0.5]).unwrap().quartiles, [0.5; 3]);
    }

    #[test]
    fn boxes_are_drawn_for_groups_that_have_values() {
        let series = BoxSeries { name: "joint".into(), color: 1, values: vec![vec![0.5, 0.6, 0.9], vec![]] };
        let boxes = Boxes {
            caption: "CT".into(),
            unit: "Dice".into(),
            groups: vec!["liver".into(), "spleen".into()],
            series: vec![series],
            range: Some((0., 1.)),
        };
        let svg = boxes.svg().unwrap();
        assert!(svg.contains("liver") && svg.contains("spleen") && svg.contains("var(--line-1)"));
        assert_eq!(svg.matches("opacity=\"0.35\"").count(), 1);
    }
}
