//! Line charts as SVG text, coloured by the page's own variables so that they follow its light and dark themes.

use plotters::prelude::*;

use crate::ReportError;

/// A chart of lines over the training step.
#[derive(Clone, Debug)]
pub struct Chart {
    /// Title.
    pub caption: String,
    /// Vertical axis.
    pub unit: String,
    /// Lines.
    pub series: Vec<Series>,
    /// Fixed vertical range; else it fits the data.
    pub range: Option<(f64, f64)>,
}

/// One line of a chart.
#[derive(Clone, Debug)]
pub struct Series {
    /// Shown in the legend.
    pub name: String,
    /// One of the page's line colours, 0 to 7.
    pub color: usize,
    /// Optimiser step and value.
    pub points: Vec<(f64, f64)>,
}

/// Stand-ins that plotters writes and [`themed`] replaces: text, grid, then the line colours.
pub(crate) const INK: RGBColor = RGBColor(1, 1, 1);
pub(crate) const GRID: RGBColor = RGBColor(2, 2, 2);

pub(crate) fn line_color(index: usize) -> RGBColor {
    RGBColor(3, 3, index as u8 % 8)
}

impl Chart {
    /// As SVG text.
    pub fn svg(&self) -> Result<String, ReportError> {
        let Self { caption, unit, series, range } = self;
        lines(caption, unit, series, *range)
    }
}

fn lines(caption: &str, unit: &str, series: &[Series], range: Option<(f64, f64)>) -> Result<String, ReportError> {
    let mut svg = String::new();
    let mut draw = || -> Result<(), Box<dyn std::error::Error>> {
        let area = SVGBackend::with_string(&mut svg, (560, 330)).into_drawing_area();
        let points = || series.iter().flat_map(|line| &line.points);
        let last = points().fold(1., |last: f64, point| last.max(point.0));
        let (low, high) = range.unwrap_or_else(|| fitted(points().map(|point| point.1)));
        let mut chart = ChartBuilder::on(&area)
            .caption(caption, ("sans-serif", 17, FontStyle::Bold, &INK))
            .margin(8)
            .x_label_area_size(38)
            .y_label_area_size(56)
            .build_cartesian_2d(0f64..last, low..high)?;
        chart
            .configure_mesh()
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .axis_style(INK)
            .label_style(("sans-serif", 13, &INK))
            .x_desc("training step")
            .y_desc(unit)
            .x_labels(7)
            .x_label_formatter(&|step| format!("{step:.0}"))
            .y_labels(6)
            .draw()?;
        for line in series {
            // As many points as the chart has pixels; a long training has more.
            let every = line.points.len().div_ceil(560).max(1);
            let points = line.points.iter().copied().rev().step_by(every).collect::<Vec<_>>().into_iter().rev();
            let color = line_color(line.color);
            chart
                .draw_series(LineSeries::new(points, color.stroke_width(2)))?
                .label(&line.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(3)));
        }
        chart
            .configure_series_labels()
            .position(if range.is_some() { SeriesLabelPosition::LowerRight } else { SeriesLabelPosition::MiddleRight })
            .label_font(("sans-serif", 13, &INK))
            .draw()?;
        area.present()?;
        Ok(())
    };
    draw().map_err(|error| ReportError::Draw { caption: caption.into(), reason: error.to_string() })?;
    Ok(themed(&svg))
}

/// The values' range with a twentieth of room on both sides.
pub(crate) fn fitted(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values
        .filter(|value| value.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    if low > high {
        return (0., 1.);
    }
    let room = ((high - low) / 20.).max(1e-6);
    (low - room, high + room)
}

pub(crate) fn themed(svg: &str) -> String {
    let mut svg = svg.replace("#010101", "var(--ink)").replace("#020202", "var(--rule)");
    for index in 0..8 {
        svg = svg.replace(&format!("#03030{index}"), &format!("var(--line-{index})"));
    }
    // Scales with the column instead of overflowing it.
    svg.replacen("width=\"560\" height=\"330\"", "class=\"chart\"", 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charts_take_their_colours_from_the_page() {
        let line = Series { name: "CT".into(), color: 2, points: vec![(0., 1.), (10., 0.5)] };
        let svg = lines("Loss", "loss", &[line], None).unwrap();
        assert!(svg.contains("var(--line-2)") && svg.contains("var(--ink)") && svg.contains("class=\"chart\""));
        assert!(!svg.contains("#01") && !svg.contains("#02") && !svg.contains("#03"));
    }

    #[test]
    fn an_empty_history_still_draws() {
        assert!(lines("Loss", "loss", &[], None).unwrap().contains("</svg>"));
        assert_eq!(fitted([f64::NAN].into_iter()), (0., 1.));
    }
}
