//! The cluster's local time: `/nodes/{node}/time`. Windows of the day are told to people, who read clocks.

use evenkeel_common::id::NodeId;
use serde::Deserialize;

use super::client::PveClient;
use super::error::PveError;
use super::lenient;

/// No place is further from UTC than this.
const MOST_S: i64 = 14 * 3600;
/// Every place is a multiple of this from UTC; the two times may have been read a second apart.
const STEP_S: i64 = 15 * 60;

#[derive(Deserialize)]
struct Answer {
    #[serde(deserialize_with = "lenient::required")]
    time: u64,
    /// The local time as if it were UTC.
    #[serde(deserialize_with = "lenient::required")]
    localtime: u64,
}

/// Seconds that a node's local time is ahead of UTC now; `None` when what it says can not be.
///
/// # Errors
/// As [`PveClient::get`].
pub async fn utc_offset(client: &PveClient, node: &NodeId) -> Result<Option<i32>, PveError> {
    client.get(&format!("/nodes/{node}/time"), &[]).await.map(|answer| offset(&answer))
}

fn offset(answer: &Answer) -> Option<i32> {
    let (local, utc) = (i64::try_from(answer.localtime).ok()?, i64::try_from(answer.time).ok()?);
    let apart = local - utc;
    let whole = (apart + STEP_S / 2).div_euclid(STEP_S) * STEP_S;
    i32::try_from(whole).ok().filter(|_| apart.abs() <= MOST_S)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offset_is_a_whole_one_that_a_place_can_have() {
        let of = |json: &str| offset(&serde_json::from_str::<Answer>(json).unwrap());
        assert_eq!(
            of(r#"{"time":1790000000,"localtime":1790007200,"timezone":"Europe/Berlin"}"#),
            Some(7200)
        );
        assert_eq!(
            of(r#"{"time":"1790000001","localtime":1789987400}"#),
            Some(-12_600),
            "St. John's in winter"
        );
        assert_eq!(of(r#"{"time":1790000000,"localtime":1790000000}"#), Some(0));
        assert_eq!(of(r#"{"time":1790000000,"localtime":1790050400}"#), Some(50_400));
        assert_eq!(of(r#"{"time":1790000000,"localtime":1790060000}"#), None);
        assert_eq!(of(r#"{"time":0,"localtime":18446744073709551615}"#), None);
    }
}
