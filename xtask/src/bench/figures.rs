//! A figure, its bound, and how both are shown.

use std::fmt::Write as _;

use super::rivals::Rival;

/// One figure.
#[derive(Clone, Debug)]
pub(super) struct Figure {
    pub(super) name: &'static str,
    value: f64,
    unit: &'static str,
    bound: Bound,
    /// What was divided by what, in words.
    detail: String,
}

/// What a figure must reach.
#[derive(Clone, Copy, Debug)]
pub(super) enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Figure {
    /// A ratio of two measurements, in their unit.
    pub(super) fn ratio(name: &'static str, value: f64, against: f64, unit: &str, bound: Bound) -> Self {
        let detail = format!("{value:.1} against {against:.1} {unit}");
        Self { name, value: value / against, unit: "", bound, detail }
    }

    /// A measurement that needs no other.
    pub(super) fn absolute(name: &'static str, value: f64, unit: &'static str, bound: Bound) -> Self {
        Self { name, value, unit, bound, detail: String::new() }
    }

    /// Whether the bound is kept.
    pub(super) fn holds(&self) -> bool {
        match self.bound {
            Bound::AtMost(most) => self.value <= most,
            Bound::AtLeast(least) => self.value >= least,
        }
    }
}

/// A table for people.
pub(super) fn table(figures: &[Figure]) -> String {
    let width = figures.iter().map(|figure| figure.name.len()).max().unwrap_or(0);
    let mut out = String::new();
    for Figure { name, value, unit, bound, detail } in figures {
        let (sign, bound) = match bound {
            Bound::AtMost(most) => ('≤', most),
            Bound::AtLeast(least) => ('≥', least),
        };
        let _ = writeln!(out, "{name:width$}  {value:8.2} {unit:3}  {sign} {bound:<6} {detail}");
    }
    for missed in figures.iter().filter(|figure| !figure.holds()) {
        let _ = writeln!(out, "missed: {}", missed.name);
    }
    out
}

/// The same for programs.
pub(super) fn json(figures: &[Figure], rivals: &[Rival]) -> String {
    let figures: Vec<_> = figures
        .iter()
        .map(|figure| {
            let (kind, bound) = match figure.bound {
                Bound::AtMost(most) => ("at-most", most),
                Bound::AtLeast(least) => ("at-least", least),
            };
            serde_json::json!({
                "name": figure.name, "value": figure.value, "unit": figure.unit, kind: bound, "holds": figure.holds(),
                "detail": figure.detail,
            })
        })
        .collect();
    let rivals: Vec<_> = rivals
        .iter()
        .map(|rival| serde_json::json!({ "name": rival.name, "microseconds": rival.microseconds }))
        .collect();
    format!("{:#}\n", serde_json::json!({ "figures": figures, "inside-one-exim": rivals }))
}
