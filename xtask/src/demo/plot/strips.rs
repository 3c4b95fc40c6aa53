//! The ladder over time as strips: the host's tier, each load's rung, and what the kernel says about the freezer.
use anyhow::Result;
use plimsoll_policy::plan::Tier;
use plimsoll_policy::sample::Rung;
use plotters::prelude::*;

use super::column::{Column, Stretch};
use super::draw::{Area, INK, LOST, text, wrong};
use super::panels::{LEFT, RIGHT};

const ROW: i32 = 25;
const FIRST_ROW: i32 = 8;
/// A name is written into a stretch that is at least this many pixels wide per letter.
const LETTER: i32 = 9;

/// Draws the strips of one run.
pub(super) fn ladder<DB>(area: &Area<DB>, column: &Column) -> Result<()>
where
    DB: DrawingBackend,
    DB::ErrorType: 'static,
{
    let strips = Strips { area, span: column.span, width: i32::try_from(area.dim_in_pixel().0)? };
    let tiers = column.tiers.iter().map(|it| (it.from, it.to, it.state.name(), tier_colour(it.state)));
    strips.row(0, "tier", tiers)?;
    for (row, (name, rungs)) in (1..).zip(&column.rungs) {
        strips.row(row, name, rungs.iter().map(rung))?;
    }
    let frozen = column.frozen.iter().filter(|it| it.state).map(|it| (it.from, it.to, "frozen", FROZEN));
    strips.row(3, "freezer", frozen)?;
    if column.tiers.is_empty() {
        text(area, "no controller", (i32::try_from(LEFT)? + 8, FIRST_ROW + 3), 15, &INK)?;
    }
    strips.notes(column)
}

const FROZEN: RGBColor = RGBColor(150, 200, 235);

fn tier_colour(tier: Tier) -> RGBColor {
    match tier {
        Tier::Normal => RGBColor(214, 235, 214),
        Tier::Elevated => RGBColor(250, 236, 170),
        Tier::Constrained => RGBColor(250, 205, 130),
        Tier::Critical => RGBColor(240, 150, 110),
        Tier::Emergency => RGBColor(225, 100, 100),
    }
}

fn rung(stretch: &Stretch<Rung>) -> (f64, f64, &'static str, RGBColor) {
    let colour = match stretch.state {
        Rung::Free => RGBColor(232, 240, 232),
        Rung::Trim => RGBColor(250, 236, 170),
        Rung::Throttle => RGBColor(250, 205, 130),
        Rung::Offload => RGBColor(215, 190, 235),
        Rung::Freeze => FROZEN,
        Rung::Kill => RGBColor(225, 100, 100),
    };
    (stretch.from, stretch.to, stretch.state.name(), colour)
}

struct Strips<'a, DB: DrawingBackend> {
    area: &'a Area<DB>,
    span: (f64, f64),
    width: i32,
}

impl<DB> Strips<'_, DB>
where
    DB: DrawingBackend,
    DB::ErrorType: 'static,
{
    fn x(&self, at: f64) -> i32 {
        let left = f64::from(LEFT);
        let inner = f64::from(self.width - RIGHT) - left;
        (left + (at - self.span.0) / (self.span.1 - self.span.0) * inner).round() as i32
    }

    fn row(
        &self,
        number: i32,
        name: &str,
        stretches: impl Iterator<Item = (f64, f64, &'static str, RGBColor)>,
    ) -> Result<()> {
        let top = FIRST_ROW + number * ROW;
        text(self.area, name, (10, top + 3), 15, &INK)?;
        let frame = [(self.x(self.span.0), top), (self.x(self.span.1), top + ROW - 4)];
        self.area.draw(&Rectangle::new(frame, RGBColor(225, 225, 225).stroke_width(1))).map_err(wrong)?;
        for (from, to, word, colour) in stretches.filter(|(_, to, ..)| *to > self.span.0) {
            let left = self.x(from.max(self.span.0));
            let right = self.x(to.min(self.span.1)).max(left + 1);
            let corners = [(left, top), (right, top + ROW - 4)];
            self.area.draw(&Rectangle::new(corners, colour.filled())).map_err(wrong)?;
            if right - left >= LETTER * i32::try_from(word.len())? {
                text(self.area, word, (left + 4, top + 3), 14, &INK)?;
            }
        }
        Ok(())
    }

    /// What the vertical lines of all panels mean.
    fn notes(&self, column: &Column) -> Result<()> {
        let bottom = FIRST_ROW + 4 * ROW;
        let colours = super::panels::marks(column);
        for (at, colour) in &colours {
            let path = vec![(self.x(*at), 0), (self.x(*at), bottom - 4)];
            self.area.draw(&PathElement::new(path, colour.stroke_width(1))).map_err(wrong)?;
        }
        text(self.area, "growth begins", ((self.x(0.0) - 96).max(10), bottom - 2), 13, &INK)?;
        if let Some((at, what)) = &column.action {
            text(self.area, what, (self.x(*at) + 4, bottom - 2), 13, &RGBColor(20, 130, 60))?;
        }
        if let Some(at) = column.killed {
            text(self.area, "batch job gone", (self.x(at) + 4, bottom + 12), 13, &LOST)?;
        }
        Ok(())
    }
}
