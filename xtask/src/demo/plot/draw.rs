//! The figure as a whole: title, one block for each kind of swap space, two columns of three panels.
use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

use super::super::runs::Story;
use super::column::Column;
use super::{panels, strips};

/// Where things are drawn.
pub(super) type Area<DB> = DrawingArea<DB, Shift>;

/// Text and lines that are no data.
pub(super) const INK: RGBColor = RGBColor(45, 45, 45);
/// The server: what is protected.
pub(super) const SERVER: RGBColor = RGBColor(31, 99, 172);
/// The batch job.
pub(super) const BATCH: RGBColor = RGBColor(214, 106, 20);
/// Free memory.
pub(super) const FREE: RGBColor = RGBColor(130, 130, 130);
/// Swap in use.
pub(super) const SWAP: RGBColor = RGBColor(120, 70, 160);
/// What was lost, and kills.
pub(super) const LOST: RGBColor = RGBColor(190, 20, 30);

/// Draws it on any backend.
pub(super) fn figure<DB>(area: &Area<DB>, story: Story, blocks: &[Vec<&Column>]) -> Result<()>
where
    DB: DrawingBackend,
    DB::ErrorType: 'static,
{
    area.fill(&WHITE).map_err(wrong)?;
    let (title, rest) = area.split_vertically(super::TITLE);
    text(&title, story.title(), (24, 14), 26, &INK)?;
    for (block, part) in blocks.iter().zip(rest.split_evenly((blocks.len(), 1))) {
        let top = block.iter().flat_map(|column| &column.free).map(|point| point.1).fold(1000.0, f64::max);
        for (column, part) in block.iter().zip(part.split_evenly((1, block.len()))) {
            draw_column(&part, column, top)?;
        }
    }
    area.present().map_err(wrong)
}

fn draw_column<DB>(area: &Area<DB>, column: &Column, top: f64) -> Result<()>
where
    DB: DrawingBackend,
    DB::ErrorType: 'static,
{
    let (heading, rest) = area.split_vertically(82);
    text(&heading, &column.heading, (24, 22), 20, &INK)?;
    let colour = if column.lost.is_empty() { INK } else { LOST };
    text(&heading, &column.summary, (24, 52), 17, &colour)?;
    let (memory, rest) = rest.split_vertically(300);
    let (ladder, latency) = rest.split_vertically(130);
    panels::memory(&memory, column, top)?;
    strips::ladder(&ladder, column)?;
    panels::latency(&latency, column)
}

/// Writes a line of text; the position is its upper left corner.
pub(super) fn text<DB>(
    area: &Area<DB>,
    words: &str,
    at: (i32, i32),
    size: i32,
    colour: &RGBColor,
) -> Result<()>
where
    DB: DrawingBackend,
    DB::ErrorType: 'static,
{
    area.draw(&Text::new(words.to_owned(), at, ("sans-serif", size).into_font().color(colour))).map_err(wrong)
}

/// The backends' errors borrow nothing, but their type is not `std::error::Error` for every backend.
pub(super) fn wrong(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("{error}")
}
