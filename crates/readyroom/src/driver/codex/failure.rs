//! What a failure of Codex means.
//!
//! Codex puts the provider's verdict into `codexErrorInfo`, which is a word, or a word with an HTTP status. The rules
//! that read it are data in the definition; they see one text: the verdict as JSON, then the message, then the details.

use jiff::civil::{DateTime, Time};
use jiff::{Timestamp, ZonedDateTime};
use serde_json::Value;

use crate::driver::jsonrpc::RpcError;
use crate::error::{Failure, FailureKind};
use crate::tool::Definition;

/// The failure that a turn's error object tells. `now` places a time of day that the message names.
pub fn of_turn(definition: &Definition, error: &Value, now: &ZonedDateTime) -> Failure {
    let message = error["message"].as_str().unwrap_or("the turn failed and Codex gave no reason");
    let details = error["additionalDetails"].as_str().unwrap_or_default();
    let verdict = &error["codexErrorInfo"];
    let text = format!("{verdict} {message} {details}");
    let kind = match definition.classify(&text) {
        Some(FailureKind::UsageWindow { .. }) => FailureKind::UsageWindow { resets_at: resets_at(message, now) },
        Some(kind) => kind,
        None => FailureKind::ModelError,
    };
    Failure::new(kind, message).with_stderr(text.trim_end().to_owned())
}

/// The failure that a refused request of ours tells.
pub fn of_refusal(definition: &Definition, error: &RpcError) -> Failure {
    let text = error.text();
    let kind = definition.classify(&text).unwrap_or(FailureKind::Protocol);
    Failure::new(kind, error.message.clone()).with_stderr(text)
}

/// When a usage window opens again, from `.. try again at 7:14 PM.` or `.. at Nov 27th, 2026 8:14 PM.`. The text has
/// minutes only and cuts the seconds off, so the answer is the minute's end.
pub fn resets_at(message: &str, now: &ZonedDateTime) -> Option<Timestamp> {
    let (_, rest) = message.rsplit_once("try again at ")?;
    let text = rest.trim().trim_end_matches('.');
    let minute_end =
        |at: DateTime| Some(at.to_zoned_datetime(now.time_zone().clone()).ok()?.timestamp().as_second() + 60);
    let seconds = match Time::strptime("%I:%M %p", text) {
        Ok(time) => {
            let today = minute_end(now.date().to_datetime(time))?;
            if today > now.timestamp().as_second() {
                today
            } else {
                minute_end(now.date().tomorrow().ok()?.to_datetime(time))?
            }
        }
        Err(_) => minute_end(DateTime::strptime("%b %d, %Y %I:%M %p", without_ordinal(text)).ok()?)?,
    };
    Timestamp::from_second(seconds).ok()
}

/// `Nov 27th, 2026` -> `Nov 27, 2026`.
fn without_ordinal(text: &str) -> String {
    let Some((day, rest)) = text.split_once(',') else { return text.to_owned() };
    format!("{},{rest}", day.trim_end_matches(|end: char| end.is_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(now: &str, message: &str) -> Option<String> {
        let now: ZonedDateTime = now.parse().unwrap();
        resets_at(message, &now).map(|at| at.to_string())
    }

    #[test]
    fn a_window_opens_at_the_end_of_the_minute_that_is_named() {
        let later = "You\u{2019}ve hit your usage limit. Visit https://x/y or try again at 7:14 PM.";
        assert_eq!(at("2026-11-24T17:14:00+00:00[UTC]", later).unwrap(), "2026-11-24T19:15:00Z");
        assert_eq!(at("2026-11-24T17:14:00+01:00[Europe/Berlin]", later).unwrap(), "2026-11-24T18:15:00Z");
        assert_eq!(at("2026-11-24T23:00:00+00:00[UTC]", later).unwrap(), "2026-11-25T19:15:00Z");
        assert_eq!(at("2026-11-24T19:14:30+00:00[UTC]", later).unwrap(), "2026-11-24T19:15:00Z");
        let far =
            "You\u{2019}ve hit your usage limit. Try again at a later time or try again at Nov 27th, 2026 8:14 PM.";
        assert_eq!(at("2026-11-24T17:14:00+00:00[UTC]", far).unwrap(), "2026-11-27T20:15:00Z");
        let first = "try again at Dec 1st, 2026 12:05 AM.";
        assert_eq!(at("2026-11-24T17:14:00+00:00[UTC]", first).unwrap(), "2026-12-01T00:06:00Z");
    }

    #[test]
    fn a_window_without_a_time_stays_unknown() {
        for message in ["You\u{2019}ve hit your usage limit. Try again later.", "Quota exceeded.", "try again at noon."]
        {
            assert_eq!(at("2026-11-24T17:14:00+00:00[UTC]", message), None);
        }
    }
}
