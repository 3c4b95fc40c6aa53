//! Where a value is going, by a straight line through its readings; and whether the readings are a line at all.

use super::Point;

/// The course of a value over a window, in units per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Course {
    /// It falls by so much.
    Falling(u64),
    /// It stays where it is, or moves less than its noise.
    Level,
    /// It rises.
    Rising,
    /// It goes back and forth, by so much in all, and gets less than half as far: no line describes it.
    Erratic(u64),
}

/// The course through points in the order of time; `None` where there are no two. What moves by less than `noise`
/// per second counts as level.
///
/// Least squares, and not the first point against the last: one odd reading at either end of a window would be half of the
/// answer. In whole numbers, relative to the last point: microseconds, and the value's own units.
pub(super) fn course(points: &[Point], noise: u64) -> Option<Course> {
    let (first, last) = (points.first()?, points.last()?);
    let span = i128::from(last.at.since(first.at).0 / 1000);
    let way: i128 = points.windows(2).map(|pair| change(pair[0], pair[1]).abs()).sum();
    let per_second = |change: i128| (change * 1_000_000).checked_div(span);
    let way_per_second = clamp(per_second(way)?);
    if way_per_second < noise {
        return Some(Course::Level);
    }
    if change(*first, *last).abs() * 2 < way {
        return Some(Course::Erratic(way_per_second));
    }
    let slope = slope(points, *last)?;
    Some(match clamp(slope.abs()) {
        rate if rate < noise => Course::Level,
        rate if slope < 0 => Course::Falling(rate),
        _ => Course::Rising,
    })
}

fn change(from: Point, to: Point) -> i128 {
    i128::from(to.value) - i128::from(from.value)
}

/// Of the regression line, in units per second.
fn slope(points: &[Point], last: Point) -> Option<i128> {
    let count = i128::try_from(points.len()).ok()?;
    let (mut x_sum, mut y_sum, mut xx_sum, mut xy_sum) = (0, 0, 0, 0);
    for point in points {
        let x = -i128::from(last.at.since(point.at).0 / 1000);
        let y = change(last, *point);
        x_sum += x;
        y_sum += y;
        xx_sum += x * x;
        xy_sum += x * y;
    }
    // Windows are seconds long: the largest of these products stays below 10^35.
    ((count * xy_sum - x_sum * y_sum) * 1_000_000).checked_div(count * xx_sum - x_sum * x_sum)
}

fn clamp(value: i128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Monotonic;

    /// The course of values 50 ms apart, with a noise of 100 per second.
    fn check(values: &[u64], expected: Option<Course>) {
        let at = |n: usize| Monotonic(n as u64 * 50_000_000);
        let points: Vec<_> =
            values.iter().enumerate().map(|(n, &value)| Point { at: at(n), value }).collect();
        assert_eq!(course(&points, 100), expected, "{values:?}");
    }

    #[test]
    fn a_line_is_found_and_a_scribble_is_none() {
        check(&[], None);
        check(&[7], None);
        check(&[1000, 900, 800, 700], Some(Course::Falling(2000)));
        check(&[1000, 700], Some(Course::Falling(6000)));
        check(&[700, 800, 900], Some(Course::Rising));
        check(&[1000, 1000, 1000], Some(Course::Level));
        check(&[1000, 997, 995, 996], Some(Course::Level));
        check(&[1000, 800, 1000, 900], Some(Course::Erratic(3333)));
        check(&[1000, 880, 900, 780], Some(Course::Falling(1280)));
        check(&[u64::MAX, 0], Some(Course::Falling(u64::MAX)));
    }
}
