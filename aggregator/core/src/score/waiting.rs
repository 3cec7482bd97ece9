//! How much work will wait on a node: the part of the demand that finds no free core.
//!
//! A guest that asks for `d` of its `v` vCPUs runs each of them a share `d / v` of the time. On a node these add up to
//! a number of runnable vCPUs with mean `sum d` and variance `sum d (1 - d / v)`, close to normal for more than a few
//! guests. What exceeds the cores waits: `E[(X - C)+]`. So waiting begins softly before a node is full, later for many
//! small guests than for few large ones.
//!
//! Only sums, products, quotients and square roots: these give the same bits on every machine, which replay needs.

/// Cores' worth of work that waits, of a demand with this mean and variance (cores, cores squared).
pub(crate) fn expected(mean: f64, variance: f64, cores: f64) -> f64 {
    let over = mean - cores;
    let deviation = variance.max(0.0).sqrt();
    if deviation < 1e-6 || over > 6.0 * deviation {
        return over.max(0.0);
    }
    if over < -6.0 * deviation {
        return 0.0;
    }
    let z = over / deviation;
    let density = 0.398_942_280_401_432_7 * exp_minus(z * z / 2.0);
    (over * below(z, density) + deviation * density).max(0.0)
}

/// Share of the standard normal distribution below `z`; `density` is its density there.
///
/// # Source
/// Abramowitz and Stegun 1964, 26.2.17; its error is below 7.5e-8.
fn below(z: f64, density: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * z.abs());
    let sum = 1.330_274_429_f64;
    let sum = -1.821_255_978 + t * sum;
    let sum = 1.781_477_937 + t * sum;
    let sum = -0.356_563_782 + t * sum;
    let sum = 0.319_381_53 + t * sum;
    let tail = density * t * sum;
    if z >= 0.0 { 1.0 - tail } else { tail }
}

/// `e^-x` for `x` from 0 to 18, to five digits: the series of `e^(x/64)`, squared six times.
fn exp_minus(x: f64) -> f64 {
    const TERMS: [f64; 6] = [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 1.0 / 2.0, 1.0];
    let part = x / 64.0;
    let series = 1.0 + part * TERMS.iter().fold(0.0, |sum, term| sum * part + term);
    let mut power = series;
    for _ in 0..6 {
        power *= power;
    }
    1.0 / power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_is_right_to_five_digits() {
        for step in 0..=180 {
            let x = f64::from(step) / 10.0;
            assert!((exp_minus(x) / (-x).exp() - 1.0).abs() < 1e-5, "{x}");
        }
    }

    #[test]
    fn waiting_as_by_numerical_integration() {
        for (mean, variance, cores) in
            [(8.0, 4.0, 10.0), (10.0, 4.0, 10.0), (12.0, 9.0, 10.0), (5.0, 6.0, 16.0)]
        {
            let deviation = f64::sqrt(variance);
            let sum: f64 = (-80_000..80_000)
                .map(|i| (f64::from(i) + 0.5) / 10_000.0)
                .map(|z| {
                    let density = (-z * z / 2.0_f64).exp() / f64::sqrt(std::f64::consts::TAU);
                    (mean + z * deviation - cores).max(0.0) * density / 10_000.0
                })
                .sum();
            let got = expected(mean, variance, cores);
            assert!((got - sum).abs() < 1e-5 * (1.0 + sum), "{mean} {variance} {cores}: {got}, not {sum}");
        }
    }

    #[test]
    fn it_is_smooth_and_grows_with_load_and_bursts() {
        let mut last = 0.0;
        for step in 0..400 {
            let now = expected(f64::from(step) / 20.0, 3.0, 10.0);
            assert!(now >= last && now - last < 0.051, "{step}: {last} -> {now}");
            last = now;
        }
        assert!(expected(9.0, 4.0, 10.0) > expected(9.0, 1.0, 10.0));
        assert_eq!(expected(9.0, 0.0, 10.0), 0.0);
        assert_eq!(expected(12.5, 0.0, 10.0), 2.5);
    }
}
