//! The few textbook figures that classifying needs.

/// A line fitted to points by least squares.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Line {
    /// Change of `y` per unit of `x`.
    pub(crate) slope: f64,
    /// Value at the mean of `x`.
    pub(crate) mean: f64,
    /// Mean of `x`.
    pub(crate) middle: f64,
    /// Share of the variance of `y` that the line explains.
    pub(crate) share: f64,
}

impl Line {
    /// Through at least two points with different `x`.
    pub(crate) fn fit(points: &[(f64, f64)]) -> Option<Self> {
        let n = points.len() as f64;
        let middle = points.iter().map(|p| p.0).sum::<f64>() / n;
        let mean = points.iter().map(|p| p.1).sum::<f64>() / n;
        let (mut xx, mut xy, mut yy) = (0.0, 0.0, 0.0);
        for (x, y) in points {
            let (dx, dy) = (x - middle, y - mean);
            xx += dx * dx;
            xy += dx * dy;
            yy += dy * dy;
        }
        if points.len() < 2 || xx <= 0.0 {
            return None;
        }
        let share = if yy > 0.0 { (xy * xy / (xx * yy)).min(1.0) } else { 0.0 };
        Some(Self { slope: xy / xx, mean, middle, share })
    }

    /// The line's value.
    pub(crate) fn at(&self, x: f64) -> f64 {
        self.mean + self.slope * (x - self.middle)
    }
}

/// How much of its length a sequence of residuals is worth in independent values: `(1 - r) / (1 + r)` with `r`
/// the correlation of neighbours, as for a first-order autoregressive sequence (Bartlett 1946).
pub(crate) fn independent_share(residuals: &[f64]) -> f64 {
    let power: f64 = residuals.iter().map(|r| r * r).sum();
    let lagged: f64 = residuals.windows(2).map(|w| w[0] * w[1]).sum();
    let r = if power > 0.0 { (lagged / power).clamp(0.0, 0.99) } else { 0.0 };
    (1.0 - r) / (1.0 + r)
}

/// `P(F > f)` of Fisher's F distribution with `d1` and `d2` degrees of freedom; 1 where that is undefined.
pub(crate) fn f_tail(f: f64, d1: f64, d2: f64) -> f64 {
    if !(f > 0.0 && d1 > 0.0 && d2 > 0.0) {
        return 1.0;
    }
    if f.is_infinite() {
        return 0.0;
    }
    incomplete_beta(d2 / (d2 + d1 * f), d2 / 2.0, d1 / 2.0)
}

/// Regularised incomplete beta function `I_x(a, b)` by its continued fraction (Abramowitz and Stegun 26.5.8),
/// evaluated from the tail: thirty-odd terms suffice where `x < (a + 1) / (a + b + 2)`, else by symmetry.
fn incomplete_beta(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x >= 1.0 {
        return 1.0;
    }
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - incomplete_beta(1.0 - x, b, a);
    }
    let front = (ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * (-x).ln_1p()).exp() / a;
    let mut fraction = 1.0;
    for m in (1..=300).rev() {
        let k = f64::from(m / 2);
        let term = if m % 2 == 0 {
            k * (b - k) * x / ((a + 2.0 * k - 1.0) * (a + 2.0 * k))
        } else {
            -(a + k) * (a + b + k) * x / ((a + 2.0 * k) * (a + 2.0 * k + 1.0))
        };
        fraction = 1.0 + term / fraction;
    }
    (front / fraction).clamp(0.0, 1.0)
}

/// Logarithm of the gamma function for `x > 0`: Stirling's series, after shifting `x` above 10.
fn ln_gamma(x: f64) -> f64 {
    let (mut x, mut shift) = (x, 0.0);
    while x < 10.0 {
        shift += x.ln();
        x += 1.0;
    }
    let series = 1.0 / (12.0 * x) - 1.0 / (360.0 * x.powi(3)) + 1.0 / (1260.0 * x.powi(5));
    (x - 0.5) * x.ln() - x + 0.5 * std::f64::consts::TAU.ln() + series - shift
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f_tail_agrees_with_the_tables() {
        // Upper 5 % and 1 % points from any table of the F distribution; the last is P(|t| > 2.228), 10 d.f.
        for (f, d1, d2, p) in [
            (4.96, 1.0, 10.0, 0.05),
            (2.71, 5.0, 20.0, 0.05),
            (4.10, 5.0, 20.0, 0.01),
            (3.84, 1.0, 100_000.0, 0.05),
            (2.228_f64 * 2.228, 1.0, 10.0, 0.05),
        ] {
            assert!((f_tail(f, d1, d2) - p).abs() < 0.001, "{f} {d1} {d2}: {}", f_tail(f, d1, d2));
        }
        assert_eq!(f_tail(f64::NAN, 1.0, 1.0), 1.0);
        assert!(f_tail(1e9, 23.0, 24.0) < 1e-30);
    }

    #[test]
    fn gamma_of_whole_numbers_is_a_factorial() {
        assert!((ln_gamma(1.0)).abs() < 1e-9 && (ln_gamma(6.0) - 120.0_f64.ln()).abs() < 1e-9);
        assert!((ln_gamma(0.5) - std::f64::consts::PI.sqrt().ln()).abs() < 1e-9);
    }

    #[test]
    fn a_line_through_points_of_a_line() {
        let line = Line::fit(&[(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)]).unwrap();
        assert!((line.slope - 2.0).abs() < 1e-12 && (line.at(5.0) - 11.0).abs() < 1e-12);
        assert_eq!(Line::fit(&[(1.0, 1.0), (1.0, 3.0)]), None);
    }
}
