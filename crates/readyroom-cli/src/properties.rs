//! What must hold whatever a file of jobs holds; the fuzz target `jobs` and the tests call it.

use crate::plan::from;

/// A file of jobs is read or refused. A mistake is told with its line, which is in the file; what is read has no empty
/// prompts, no id twice, and is read the same from a file whose lines end as on Windows.
///
/// # Panics
/// Where that does not hold.
pub fn jobs(data: &[u8]) {
    let lines = data.split(|byte| *byte == b'\n').count();
    let mut input = data;
    let jobs = match from::read(&mut input, "f") {
        Ok(jobs) => jobs,
        Err(error) => {
            let message = error.to_string();
            let mut words = message.splitn(4, ':');
            let place = (words.next(), words.next().and_then(|line| line.parse().ok()));
            assert!(matches!(place, (Some("f"), Some(line)) if (1..=lines).contains(&line)), "{message}");
            return;
        }
    };
    let mut ids = std::collections::HashSet::new();
    for (line, job) in &jobs {
        assert!((1..=lines).contains(line));
        let prompts = job.prompt.iter().chain(job.prompts.iter().flatten());
        assert!(prompts.clone().all(|prompt| !prompt.trim().is_empty()));
        assert!(job.id.as_ref().is_none_or(|id| ids.insert(id)), "{:?} twice", job.id);
    }
    let windows: Vec<u8> = data.split(|byte| *byte == b'\n').collect::<Vec<_>>().join(&b"\r\n"[..]);
    assert_eq!(from::read(&mut windows.as_slice(), "f").ok().as_ref(), Some(&jobs));
}
