//! Values that need more than clap's own parsers: instances, durations, failure limits, and words of the library.

use std::str::FromStr;
use std::time::Duration;

use readyroom::{Context, Permissions, Routing};

/// The most instances that one run may ask for.
pub const MAX_INSTANCES: usize = 1024;

/// Parses the number of instances.
///
/// # Errors
/// A sentence that says what is allowed.
pub fn instances(text: &str) -> Result<usize, String> {
    let count: usize =
        text.parse().map_err(|_| format!("not a number of instances; give one from 1 to {MAX_INSTANCES}"))?;
    match count {
        0 => Err("no instance could run anything; give at least 1".into()),
        1..=MAX_INSTANCES => Ok(count),
        _ => Err(format!("at most {MAX_INSTANCES} instances can run at once; give a smaller number")),
    }
}

/// Parses a duration: `90s`, `10m`, `1h30m`, `500ms`, or a bare number of seconds. Days are the largest unit. The
/// grammar is jiff's friendly duration format.
///
/// # Errors
/// A sentence that says what is allowed.
pub fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is not a duration; write it as 90s, 10m or 1h30m");
    let seconds = text.parse::<u64>().ok().map(Duration::from_secs);
    let duration = match seconds {
        Some(duration) => duration,
        None => {
            let signed = text.parse::<jiff::SignedDuration>().map_err(|_| bad())?;
            Duration::try_from(signed).map_err(|_| "a duration can't be negative".to_owned())?
        }
    };
    if duration.is_zero() {
        return Err("a duration of zero leaves no time for anything".into());
    }
    Ok(duration)
}

/// When nothing more is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deadline {
    /// After so long.
    After(Duration),
    /// When the clock next shows this time, here.
    At(jiff::civil::Time),
}

impl Deadline {
    /// How long it is until then.
    pub fn from(self, now: &jiff::ZonedDateTime) -> Duration {
        match self {
            Self::After(duration) => duration,
            Self::At(time) => {
                let on =
                    |date: jiff::civil::Date| date.to_datetime(time).to_zoned_datetime(now.time_zone().clone()).ok();
                let today = on(now.date()).filter(|at| at > now);
                let at = today.or_else(|| on(now.date().tomorrow().ok()?));
                at.and_then(|at| Duration::try_from(at.duration_since(now)).ok()).unwrap_or_default()
            }
        }
    }
}

impl FromStr for Deadline {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains(':') {
            let time = jiff::civil::Time::strptime("%H:%M", text);
            return time.map(Self::At).map_err(|_| format!("{text:?} is no time of day; write it as 06:00"));
        }
        duration(text).map(Self::After).map_err(|why| format!("{why}, or as a time of day: 06:00"))
    }
}

/// Parses a batch's name, which also names files, branches and refs.
///
/// # Errors
/// A sentence that says what is allowed.
pub fn batch_name(text: &str) -> Result<String, String> {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    let good = text.starts_with(|letter: char| letter.is_ascii_alphanumeric())
        && text.chars().all(plain)
        && text.len() <= 64
        && !text.contains("..")
        && !text.ends_with('.')
        && !text.ends_with(".lock");
    match good {
        true => Ok(text.to_owned()),
        false => {
            Err("a batch's name is up to 64 letters, digits, `-`, `_` and `.`, and begins with a letter or digit"
                .into())
        }
    }
}

/// Parses an amount of US dollars above zero.
///
/// # Errors
/// A sentence that says what is allowed.
pub fn dollars(text: &str) -> Result<f64, String> {
    let amount: Option<f64> = text.trim_start_matches('$').parse().ok();
    amount
        .filter(|amount| amount.is_finite() && *amount > 0.0)
        .ok_or_else(|| format!("{text:?} is no amount; write it as 2.50"))
}

/// Parses an age: as [`duration`], and zero.
///
/// # Errors
/// A sentence that says what is allowed.
pub fn age(text: &str) -> Result<Duration, String> {
    if matches!(text, "0" | "0s" | "0d") {
        return Ok(Duration::ZERO);
    }
    // A duration leaves days to calendars; an age does not.
    match text.strip_suffix('d').and_then(|days| days.parse::<u64>().ok()).and_then(|days| days.checked_mul(86_400)) {
        Some(seconds) => Ok(Duration::from_secs(seconds)),
        None => duration(text),
    }
}

/// A time limit, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// No limit.
    None,
    /// This long.
    After(Duration),
}

impl Limit {
    /// The time; none where there is no limit.
    pub fn time(self) -> Option<Duration> {
        match self {
            Self::None => None,
            Self::After(time) => Some(time),
        }
    }
}

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self::None);
        }
        duration(text).map(Self::After).map_err(|why| format!("{why}; `none` is no limit"))
    }
}

/// What to do when a usage limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum OnLimit {
    /// Wait until it is over.
    Wait,
    /// Stop.
    Stop,
}

/// When to stop for failures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MaxFailures {
    /// Once this many jobs have failed.
    Count(u64),
    /// Once this share of all jobs has failed, in percent.
    Percent(f64),
}

impl MaxFailures {
    /// How many failures stop a run of `jobs` jobs: at least one.
    pub fn threshold(self, jobs: usize) -> u64 {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => ((jobs as f64 * percent / 100.0).ceil() as u64).max(1),
        }
    }
}

impl FromStr for MaxFailures {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(percent) = text.strip_suffix('%') {
            let percent: f64 = percent.parse().map_err(|_| "not a percentage; write it as 10%".to_owned())?;
            return if percent > 0.0 && percent <= 100.0 {
                Ok(Self::Percent(percent))
            } else {
                Err("a percentage of failures lies above 0% and up to 100%".into())
            };
        }
        match text.parse::<u64>() {
            Ok(0) => Err("0 would stop before the first job; use 1 to stop at the first failure".into()),
            Ok(count) => Ok(Self::Count(count)),
            Err(_) => Err("not a number of failures; write it as 5 or as 10%".into()),
        }
    }
}

/// The routing strategies, as typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum RoutingArg {
    /// Each instance in turn
    RoundRobin,
    /// The instance with the least to do
    LeastBusy,
    /// The same key, the same instance; keys come from --from
    Sticky,
}

impl From<RoutingArg> for Routing {
    fn from(arg: RoutingArg) -> Self {
        match arg {
            RoutingArg::RoundRobin => Self::RoundRobin,
            RoutingArg::LeastBusy => Self::LeastBusy,
            RoutingArg::Sticky => Self::Sticky,
        }
    }
}

/// The context choices, as typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ContextArg {
    /// Each job starts in a context that is proven to be new
    Fresh,
    /// An instance's conversation goes on from job to job
    Keep,
}

impl From<ContextArg> for Context {
    fn from(arg: ContextArg) -> Self {
        match arg {
            ContextArg::Fresh => Self::Fresh,
            ContextArg::Keep => Self::Keep,
        }
    }
}

/// The permission levels, as typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum PermissionsArg {
    /// No write, no shell command
    Read,
    /// Writes below the directory; shell commands only in a sandbox that holds them to that
    Edit,
    /// Everything
    Full,
}

impl From<PermissionsArg> for Permissions {
    fn from(arg: PermissionsArg) -> Self {
        match arg {
            PermissionsArg::Read => Self::Read,
            PermissionsArg::Edit => Self::Edit,
            PermissionsArg::Full => Self::Full,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_a_time_from_now_or_of_the_day() {
        let now: jiff::ZonedDateTime = "2026-03-01T22:00:00[UTC]".parse().unwrap();
        let until = |text: &str| text.parse::<Deadline>().map(|deadline| deadline.from(&now).as_secs());
        assert_eq!(until("8h"), Ok(8 * 3600));
        assert_eq!(until("06:00"), Ok(8 * 3600));
        assert_eq!(until("23:30"), Ok(90 * 60));
        assert!(until("22:61").unwrap_err().contains("06:00"));
        assert!(until("soon").is_err());
    }

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, seconds) in [("90s", 90.0), ("10m", 600.0), ("1h30m", 5400.0), ("500ms", 0.5), ("45", 45.0)] {
            assert_eq!(duration(text).unwrap().as_secs_f64(), seconds, "{text}");
        }
        for text in ["", "ten", "-5s", "0", "0s", "5 parsecs"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert_eq!("none".parse(), Ok(Limit::None));
    }

    #[test]
    fn a_share_of_failures_is_at_least_one() {
        let threshold = |text: &str, jobs| text.parse::<MaxFailures>().unwrap().threshold(jobs);
        assert_eq!(threshold("3", 100), 3);
        assert_eq!(threshold("10%", 24), 3);
        assert_eq!(threshold("1%", 5), 1);
        for text in ["0", "0%", "101%", "x", "-1"] {
            assert!(text.parse::<MaxFailures>().is_err(), "{text}");
        }
    }

    #[test]
    fn instances_have_bounds() {
        assert_eq!(instances("1024"), Ok(1024));
        assert!(instances("0").unwrap_err().contains("at least 1"));
        assert!(instances("100000").unwrap_err().contains("1024"));
    }
}
