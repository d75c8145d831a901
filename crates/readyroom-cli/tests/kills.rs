//! Batches whose owner is killed again and again while jobs edit in worktrees: each job has one outcome, each edit is applied
//! once, and nothing is left running or lying about.

mod support;

use std::collections::HashMap;
use std::fs;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use support::{Place, Started};

const JOBS: usize = 500;
const KILLS: usize = 40;

/// A small generator, so that a failing seed can be run again.
struct Random(u64);

impl Random {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}

/// Lets it run for a while: until so many jobs have ended, or for a moment that may fall anywhere, its start included.
fn let_run(running: &mut Started, random: &mut Random) {
    match random.below(3) {
        0 => running.look_for(Duration::from_millis(random.below(600))),
        _ => running.wait_for_lines("ok ", 1 + random.below(12) as usize),
    }
}

fn killed_again_and_again(seed: u64) {
    let place = Place::in_repository();
    let log = place.sandbox.home().join("asked");
    place.tool("echo", &["--interrupt", "--delay", "5", "--log", log.to_str().unwrap()]);
    for job in 0..JOBS {
        place.file(&format!("d{}/{job}", job % 7), format!("{job}\n"));
    }
    place.sandbox.commit();
    place.file("mine", "not committed\n");
    let inputs: Vec<String> = (0..JOBS).map(|job| format!("d{}/{job}", job % 7)).collect();
    let mut words = vec!["-j", "4", "--no-files", "@edit {} by {#}"];
    words.extend(inputs.iter().map(String::as_str));

    let mut random = Random(seed);
    let mut running = place.start(&words);
    // Before it is written down there is nothing to resume.
    running.wait_for_lines("ok ", 1);
    for _ in 0..KILLS {
        let_run(&mut running, &mut random);
        running.signal(Signal::KILL);
        running.finish();
        place.nothing_left();
        let mut command = place.command(&["resume"]);
        running = Started::new(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    }
    running.finish().expect(0);
    place.nothing_left();

    for (job, input) in inputs.iter().enumerate() {
        assert_eq!(place.read(input), format!("by {}\n", job + 1), "seed {seed}, {input}");
    }
    let status = place.sandbox.git(&["status", "--porcelain"]);
    assert_eq!(status.matches(" M d").count(), JOBS, "seed {seed}");
    assert_eq!(status.lines().count(), JOBS + 1, "seed {seed}: {status}");
    assert_eq!(place.sandbox.git(&["worktree", "list"]).lines().count(), 1, "seed {seed}");
    assert!(!place.sandbox.home().join(".local/state/readyroom/worktrees").exists_with_entries());
    let strays: Vec<_> = fs::read_dir(place.sandbox.dir().join(".git"))
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().into_string().unwrap())
        .filter(|name| name.starts_with("readyroom-index"))
        .collect();
    assert!(strays.is_empty(), "seed {seed}: {strays:?}");

    let mut asked: HashMap<String, u64> = HashMap::new();
    for line in fs::read_to_string(&log).unwrap().lines().filter(|line| line.contains("@edit ")) {
        *asked.entry(line.split_once(' ').unwrap().1.to_owned()).or_default() += 1;
    }
    let shown = place.finish(place.command(&["batch", "show", "--json"])).expect(0).out;
    let mut again = 0;
    for line in shown.lines() {
        let job: Value = serde_json::from_str(line).unwrap();
        let (id, attempts) = (job["id"].as_str().unwrap(), job["attempts"].as_u64().unwrap());
        assert_eq!(job["state"], "succeeded", "seed {seed}, {id}");
        assert_eq!(job["outcome"]["change"]["state"], "applied", "seed {seed}, {id}");
        let ran = asked[&format!("@edit {id} by {}", job["number"])];
        assert!((1..=attempts).contains(&ran), "seed {seed}, {id}: ran {ran} times in {attempts} attempts");
        again += ran - 1;
    }
    // Only what was under way when its owner was killed: four instances, and what had ended and was not on the disk.
    assert!(again <= 8 * KILLS as u64, "seed {seed}: {again} prompts ran once more");
}

trait HasEntries {
    fn exists_with_entries(&self) -> bool;
}

impl HasEntries for std::path::PathBuf {
    fn exists_with_entries(&self) -> bool {
        fs::read_dir(self).is_ok_and(|mut entries| entries.next().is_some())
    }
}

/// A bug that others had (jxxghp/MoviePilot#6302): a restart in mid-job did the job twice.
#[test]
fn five_hundred_edits_and_forty_kills_first_seed() {
    killed_again_and_again(1);
}

#[test]
fn five_hundred_edits_and_forty_kills_second_seed() {
    killed_again_and_again(2);
}

#[test]
fn five_hundred_edits_and_forty_kills_third_seed() {
    killed_again_and_again(3);
}
