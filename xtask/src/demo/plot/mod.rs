//! One figure per story, as SVG and PNG: memory, tier and rungs, and latency over time, bare beside protected.
mod column;
mod draw;
mod panels;
mod strips;

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};

use self::column::Column;
use super::play::Take;
use super::report::RunReport;
use super::runs::{Run, Story};

/// One run and its figures.
pub(super) type Played = (Run, Take, RunReport);

/// Pixels across, and down for each kind of swap space; twice that in the PNG would only make it heavier.
const WIDTH: u32 = 1600;
const TITLE: u32 = 64;
const BLOCK: u32 = 784;

/// Draws every story that was played and returns the files.
pub(super) fn plot(played: &[Played], place: &Path) -> Result<Vec<PathBuf>> {
    fonts()?;
    let mut files = Vec::new();
    for story in [Story::A, Story::B] {
        let columns: Vec<_> = played
            .iter()
            .filter(|(run, ..)| run.story == story)
            .map(|(run, take, report)| Column::new(*run, take, report))
            .collect();
        if columns.is_empty() {
            continue;
        }
        let blocks = blocks(&columns);
        let size = (WIDTH, TITLE + BLOCK * u32::try_from(blocks.len())?);
        let svg = place.join(format!("story-{}.svg", story.letter()));
        let png = svg.with_extension("png");
        draw::figure(&SVGBackend::new(&svg, size).into_drawing_area(), story, &blocks)?;
        draw::figure(&BitMapBackend::new(&png, size).into_drawing_area(), story, &blocks)?;
        files.extend([svg, png]);
    }
    Ok(files)
}

/// Runs with the same swap space, side by side.
fn blocks(columns: &[Column]) -> Vec<Vec<&Column>> {
    let mut blocks: Vec<Vec<&Column>> = Vec::new();
    for column in columns {
        match blocks.iter_mut().find(|block| block[0].run.swap == column.run.swap) {
            Some(block) => block.push(column),
            None => blocks.push(vec![column]),
        }
    }
    blocks
}

/// The typeface is compiled in: a machine that draws this may have none.
fn fonts() -> Result<()> {
    for (style, bytes) in
        [(FontStyle::Normal, dejavu::sans::regular()), (FontStyle::Bold, dejavu::sans::bold())]
    {
        register_font("sans-serif", style, bytes).map_err(|_| anyhow!("the built-in font is damaged"))?;
    }
    Ok(())
}
