//! An incident as a picture: the used share over the tiers, and a strip of rungs for every workload, for each policy.

use std::collections::BTreeSet;

use plimsoll_policy::plan::Tier;
use plimsoll_policy::sample::Rung;
use plimsoll_policy::units::Monotonic;
use plotters::coord::Shift;
use plotters::prelude::*;

use super::compare::Comparison;
use super::course::Course;

/// Why nothing is drawn.
#[derive(Debug, thiserror::Error)]
#[error("cannot draw the incident: {0}")]
pub struct PlotError(String);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

const WIDTH: u32 = 1100;
/// Room for names at the left.
const NAMES: u32 = 170;
const CURVE: u32 = 260;
const STRIP: u32 = 22;
const HEADING: u32 = 34;
const LEGEND: u32 = 34;

/// Draws both courses below the used share.
///
/// # Errors
/// When a part can't be drawn.
pub fn svg(compared: &Comparison) -> Result<String, PlotError> {
    let courses: Vec<(&str, &Course)> = [("recorded", &compared.recorded)]
        .into_iter()
        .chain(compared.other.as_ref().map(|course| ("the other policy", course)))
        .collect();
    let names: BTreeSet<&String> =
        courses.iter().flat_map(|(_, course)| course.rung_changes.keys()).collect();
    let rows = u32::try_from(names.len()).unwrap_or(0) + 1;
    let panel = HEADING + rows * STRIP;
    let height = CURVE + panel * u32::try_from(courses.len()).unwrap_or(1) + LEGEND;
    let mut text = String::new();
    let root = SVGBackend::with_string(&mut text, (WIDTH, height)).into_drawing_area();
    draw(&root, compared, &courses, &names, panel).map_err(|error| PlotError(error.to_string()))?;
    drop(root);
    Ok(text)
}

fn draw(
    root: &Area<'_>,
    compared: &Comparison,
    courses: &[(&str, &Course)],
    names: &BTreeSet<&String>,
    panel: u32,
) -> Drawn {
    root.fill(&WHITE)?;
    let begun = compared.recorded.tier_changes.first().map_or(Monotonic(0), |(at, _)| *at);
    let time = Time { begun, end: begun + compared.span };
    let (top, mut rest) = root.split_vertically(CURVE);
    curve(&top, &compared.recorded, &time)?;
    for (title, course) in courses {
        let (area, below) = rest.split_vertically(panel);
        strips(&area, title, course, names, &time)?;
        rest = below;
    }
    legend(&rest)?;
    root.present()?;
    Ok(())
}

/// The stretch of time that is drawn.
struct Time {
    begun: Monotonic,
    end: Monotonic,
}

impl Time {
    fn seconds(&self, at: Monotonic) -> f64 {
        at.since(self.begun).as_secs_f64()
    }

    /// At least a moment: a range without width can't be drawn.
    fn length(&self) -> f64 {
        self.seconds(self.end).max(0.001)
    }

    /// Where it is across the strips.
    fn x(&self, at: Monotonic, width: u32) -> i32 {
        let room = f64::from(width - NAMES - 10);
        pixel(f64::from(NAMES) + self.seconds(at) / self.length() * room)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a picture has some thousand pixels")]
fn pixel(at: f64) -> i32 {
    at as i32
}

fn curve(area: &Area<'_>, course: &Course, time: &Time) -> Drawn {
    let mut chart = ChartBuilder::on(area)
        .margin_top(12)
        .margin_right(10)
        .set_label_area_size(LabelAreaPosition::Left, NAMES)
        .set_label_area_size(LabelAreaPosition::Bottom, 40)
        .build_cartesian_2d(0.0..time.length(), 0.0..100.0)?;
    for (from, to, tier) in stretches(&course.tier_changes, time.end) {
        let corners = [(time.seconds(from), 0.0), (time.seconds(to), 100.0)];
        chart.draw_series([Rectangle::new(corners, tier_colour(tier).filled())])?;
    }
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .x_desc("seconds")
        .y_label_formatter(&|share| format!("{share:.0} % used"))
        .label_style(("sans-serif", 13))
        .draw()?;
    let points = course.used.iter().map(|(at, used)| (time.seconds(*at), f64::from(used.0) / 10_000.0));
    chart.draw_series([PathElement::new(points.collect::<Vec<_>>(), BLACK.stroke_width(2))])?;
    Ok(())
}

fn strips(area: &Area<'_>, title: &str, course: &Course, names: &BTreeSet<&String>, time: &Time) -> Drawn {
    let bold = ("sans-serif", 15, FontStyle::Bold).into_text_style(area);
    area.draw_text(title, &bold, (10, 8))?;
    let top = i32::try_from(HEADING)?;
    let tiers = stretches(&course.tier_changes, time.end);
    let tiers = tiers.into_iter().map(|(from, to, tier)| (from, to, tier_colour(tier)));
    strip(area, "tier", top, tiers, time)?;
    for (row, name) in names.iter().enumerate() {
        let changes = course.rung_changes.get(*name).map_or(&[][..], Vec::as_slice);
        let rungs = stretches(changes, time.end).into_iter().filter(|(_, _, rung)| *rung > Rung::Free);
        let rungs = rungs.map(|(from, to, rung)| (from, to, rung_colour(rung)));
        let y = top + i32::try_from(STRIP)? * i32::try_from(row + 1)?;
        strip(area, name, y, rungs, time)?;
    }
    Ok(())
}

fn strip(
    area: &Area<'_>,
    name: &str,
    y: i32,
    stretches: impl Iterator<Item = (Monotonic, Monotonic, RGBColor)>,
    time: &Time,
) -> Drawn {
    let bottom = y + i32::try_from(STRIP)? - 4;
    let frame = [(time.x(time.begun, WIDTH), y), (time.x(time.end, WIDTH), bottom)];
    area.draw(&Rectangle::new(frame, BLACK.mix(0.05).filled()))?;
    for (from, to, colour) in stretches {
        let (left, right) = (time.x(from, WIDTH), time.x(to, WIDTH));
        // An action that is over at once is seen all the same.
        area.draw(&Rectangle::new([(left, y), (right.max(left + 2), bottom)], colour.filled()))?;
    }
    let small = ("sans-serif", 13).into_text_style(area);
    area.draw_text(&shortened(name), &small, (10, y + 3))?;
    Ok(())
}

/// The end of a cgroup's path says more than its beginning.
fn shortened(name: &str) -> String {
    const MOST: usize = 22;
    let length = name.chars().count();
    if length <= MOST {
        name.into()
    } else {
        format!("…{}", name.chars().skip(length - MOST).collect::<String>())
    }
}

fn legend(area: &Area<'_>) -> Drawn {
    let small = ("sans-serif", 13).into_text_style(area);
    let tiers = Tier::ALL.map(|tier| (tier.name(), tier_colour(tier)));
    let rungs = Rung::ALL.map(|rung| (rung.name(), rung_colour(rung)));
    let shown = rungs.into_iter().filter(|(name, _)| !matches!(*name, "free"));
    for (at, (name, colour)) in (0..).zip(tiers.into_iter().chain(shown)) {
        let x = 10 + at * 106;
        area.draw(&Rectangle::new([(x, 10), (x + 14, 24)], colour.filled()))?;
        area.draw_text(name, &small, (x + 20, 11))?;
    }
    Ok(())
}

/// Changes as stretches, up to the end.
fn stretches<T: Copy>(changes: &[(Monotonic, T)], end: Monotonic) -> Vec<(Monotonic, Monotonic, T)> {
    let ends = changes.iter().skip(1).map(|(at, _)| *at).chain([end]);
    changes.iter().zip(ends).map(|((from, what), to)| (*from, to, *what)).collect()
}

const fn tier_colour(tier: Tier) -> RGBColor {
    match tier {
        Tier::Normal => RGBColor(232, 244, 232),
        Tier::Elevated => RGBColor(255, 246, 204),
        Tier::Constrained => RGBColor(255, 226, 178),
        Tier::Critical => RGBColor(255, 198, 178),
        Tier::Emergency => RGBColor(245, 160, 160),
    }
}

const fn rung_colour(rung: Rung) -> RGBColor {
    match rung {
        Rung::Free => RGBColor(240, 240, 240),
        Rung::Trim => RGBColor(126, 196, 140),
        Rung::Throttle => RGBColor(240, 190, 70),
        Rung::Offload => RGBColor(170, 130, 210),
        Rung::Freeze => RGBColor(86, 140, 220),
        Rung::Kill => RGBColor(190, 40, 50),
    }
}
