//! Compares our own clock with the start times of processes.

use std::time::Instant;

/// Places a moment on the scale of [`super::ProcessInfo::started`]: what started later has a value that is not less.
/// `None` where the system does not tell; then nothing can be said about what is older.
pub fn started_scale(moment: Instant) -> Option<u64> {
    // Linux: ticks since boot, of which `/proc/uptime` tells the present in hundredths of a second.
    let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
    let since_boot: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    let then = (since_boot - moment.elapsed().as_secs_f64()).max(0.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is positive and small")]
    let ticks = (then * rustix::param::clock_ticks_per_second() as f64).floor() as u64;
    Some(ticks)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_older_than_now_and_younger_than_the_boot() {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let started: u64 = stat.rsplit(')').next().unwrap().split_whitespace().nth(19).unwrap().parse().unwrap();
        assert!(started_scale(Instant::now()).unwrap() >= started);
    }
}
