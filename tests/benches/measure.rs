//! Interleaved pairs, medians, rows.

use std::time::{Duration, Instant};

/// The median of some figures.
pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Seconds that something takes.
pub(crate) fn seconds(work: impl FnOnce()) -> f64 {
    let started = Instant::now();
    work();
    started.elapsed().as_secs_f64()
}

/// Ours and the floor by turns, so that a slow moment of the machine meets both; each turn gives a rate. The first turn
/// warms up and is not counted.
pub(crate) fn pairs(turns: usize, mut ours: impl FnMut() -> f64, mut floor: impl FnMut() -> f64) -> Pairs {
    let (mut measured, mut floors, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for turn in 0..=turns {
        let (a, b) = if turn % 2 == 0 {
            (ours(), floor())
        } else {
            let b = floor();
            (ours(), b)
        };
        if turn > 0 {
            measured.push(a);
            floors.push(b);
            ratios.push(a / b);
        }
    }
    Pairs { measured: median(measured), floor: median(floors), ratio: median(ratios) }
}

/// Medians of a benchmark.
pub(crate) struct Pairs {
    pub(crate) measured: f64,
    pub(crate) floor: f64,
    /// The median of the turns' ratios, not the ratio of the medians.
    pub(crate) ratio: f64,
}

impl Pairs {
    /// Prints the row; `unit` belongs to both figures.
    pub(crate) fn row(&self, what: &str, unit: &str, floor: &str, goal: &str) {
        let Self { measured, floor: rate, ratio } = self;
        println!("| {what} | {} {unit} | {} {unit}, {floor} | {ratio:.2} | {goal} |", round(*measured), round(*rate));
    }
}

/// A row without a floor.
pub(crate) fn row(what: &str, measured: &str, floor: &str, ratio: &str, goal: &str) {
    println!("| {what} | {measured} | {floor} | {ratio} | {goal} |");
}

/// With separators, and digits only where they say something.
pub(crate) fn round(n: f64) -> String {
    if n < 100.0 {
        return format!("{n:.2}");
    }
    let digits = format!("{n:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The quantile of some durations.
pub(crate) fn quantile(durations: &mut [Duration], q: f64) -> Duration {
    durations.sort_unstable();
    let index = ((durations.len() as f64 - 1.0) * q).round() as usize;
    durations.get(index).copied().unwrap_or_default()
}
