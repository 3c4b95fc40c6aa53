//! The panels with axes: memory, and latency.
use anyhow::Result;
use plotters::prelude::*;
use plotters::style::FontTransform;

use super::column::{Column, Line};
use super::draw::{Area, BATCH, FREE, INK, LOST, SERVER, SWAP, wrong};

/// Room for the labels of the vertical axis, and for its title.
const LABELS: u32 = 66;
const TITLE: u32 = 22;
/// Where the panels begin; the strips align with them.
pub(super) const LEFT: u32 = TITLE + LABELS;
/// Room at the right.
pub(super) const RIGHT: i32 = 22;
const LABEL: i32 = 15;

/// Latencies below this are drawn at it.
const FASTEST_MS: f64 = 1.0;
const SLOWEST_MS: f64 = 30_000.0;
/// Beyond this a request is lost.
const PATIENCE_MS: f64 = 1000.0;

/// `memory.current` of both loads, free memory, swap in use.
pub(super) fn memory<DB>(area: &Area<DB>, column: &Column, top: f64) -> Result<()>
where
    DB: DrawingBackend,
    DB::ErrorType: 'static,
{
    let mut chart = ChartBuilder::on(area)
        .margin_left(TITLE)
        .set_label_area_size(LabelAreaPosition::Left, LABELS)
        .set_label_area_size(LabelAreaPosition::Bottom, 24)
        .margin_right(RIGHT)
        .margin_top(6)
        .build_cartesian_2d(column.span.0..column.span.1, 0.0..top)
        .map_err(wrong)?;
    chart
        .configure_mesh()
        .x_labels(12)
        .y_labels(6)
        .light_line_style(WHITE)
        .y_desc("memory, MiB")
        .x_label_formatter(&|seconds| format!("{seconds:.0}"))
        .y_label_formatter(&|mib| format!("{mib:.0}"))
        .label_style(("sans-serif", LABEL).into_font().color(&INK))
        .draw()
        .map_err(wrong)?;
    let lines: [(&str, &Line, RGBColor, u32); 4] = [
        ("server", &column.server, SERVER, 3),
        ("batch job", &column.batch, BATCH, 3),
        ("free", &column.free, FREE, 1),
        ("swap in use", &column.swap, SWAP, 2),
    ];
    for (name, line, colour, width) in lines.into_iter().filter(|(_, line, ..)| !line.is_empty()) {
        chart
            .draw_series(LineSeries::new(line.iter().copied(), colour.stroke_width(width)))
            .map_err(wrong)?
            .label(name)
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 22, y)], colour.stroke_width(width)));
    }
    for (number, line) in column.high.iter().enumerate() {
        let stroke = BATCH.stroke_width(1);
        let series =
            chart.draw_series(DashedLineSeries::new(line.iter().copied(), 5, 4, stroke)).map_err(wrong)?;
        if number == 0 {
            series
                .label("batch job's memory.high")
                .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 22, y)], stroke));
        }
    }
    for (at, colour) in marks(column) {
        chart.draw_series(LineSeries::new([(at, 0.0), (at, top)], colour.stroke_width(1))).map_err(wrong)?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.85))
        .border_style(FREE.mix(0.4))
        .label_font(("sans-serif", LABEL).into_font().color(&INK))
        .draw()
        .map_err(wrong)
}

/// Moments that all panels mark: growth begins, first action, the batch job is killed.
pub(super) fn marks(column: &Column) -> Vec<(f64, RGBColor)> {
    let action = column.action.as_ref().map(|(at, _)| (*at, RGBColor(20, 130, 60)));
    [(0.0, INK)].into_iter().chain(action).chain(column.killed.map(|at| (at, LOST))).collect()
}

/// Latency of every request, on a logarithmic axis.
pub(super) fn latency<DB>(area: &Area<DB>, column: &Column) -> Result<()>
where
    DB: DrawingBackend,
    DB::ErrorType: 'static,
{
    let mut chart = ChartBuilder::on(area)
        .margin_left(TITLE)
        .set_label_area_size(LabelAreaPosition::Left, LABELS)
        .set_label_area_size(LabelAreaPosition::Bottom, 42)
        .margin_right(RIGHT)
        .margin_top(6)
        .build_cartesian_2d(column.span.0..column.span.1, (FASTEST_MS..SLOWEST_MS).log_scale())
        .map_err(wrong)?;
    chart
        .configure_mesh()
        .x_labels(12)
        .y_labels(6)
        .light_line_style(WHITE)
        .x_desc("seconds of guest time since memory began to run short")
        .y_desc("latency, ms (log)")
        .x_label_formatter(&|seconds| format!("{seconds:.0}"))
        .y_label_formatter(&|ms| format!("{ms:.0}"))
        .label_style(("sans-serif", LABEL).into_font().color(&INK))
        .draw()
        .map_err(wrong)?;
    let dots = |line: &Line, colour: RGBColor| {
        let place = |(at, ms): (f64, f64)| (at, ms.clamp(FASTEST_MS, SLOWEST_MS));
        line.iter().map(|point| Circle::new(place(*point), 2, colour.filled())).collect::<Vec<_>>()
    };
    for (name, line, colour) in [("answered", &column.answered, SERVER), ("lost", &column.lost, LOST)] {
        if !line.is_empty() {
            chart
                .draw_series(dots(line, colour))
                .map_err(wrong)?
                .label(name)
                .legend(move |(x, y)| Circle::new((x + 11, y), 4, colour.filled()));
        }
    }
    let limit = [(column.span.0, PATIENCE_MS), (column.span.1, PATIENCE_MS)];
    chart.draw_series(DashedLineSeries::new(limit, 6, 4, LOST.stroke_width(1))).map_err(wrong)?;
    for (at, colour) in marks(column) {
        let line = [(at, FASTEST_MS), (at, SLOWEST_MS)];
        chart.draw_series(LineSeries::new(line, colour.stroke_width(1))).map_err(wrong)?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.85))
        .border_style(FREE.mix(0.4))
        .label_font(("sans-serif", LABEL).into_font().transform(FontTransform::None).color(&INK))
        .draw()
        .map_err(wrong)
}
