//! Pressure part of the node score: the highest of CPU, memory and I/O.

use super::fleet::NodeLoad;

/// Pressure at which this part is one half; chosen so that 20 % of pressure weighs what 70 % of CPU does.
const HALF_PERCENT: f64 = 60.0 / 7.0;

/// 0 without pressure, 0.7 at 20 %, towards 1 beyond.
pub(super) fn part(node: &NodeLoad) -> f64 {
    let percent = node.pressure_percent();
    percent / (percent + HALF_PERCENT)
}
