//! What a round does, all of it drawn from the seed and the round's number, so that a round that failed can be played
//! again: the tool, the jobs, and which fault comes when.

use std::fmt;
use std::time::Duration;

use fastrand::Rng;
use readyroom_testkit::zoo::{OF_PROTOCOL, OF_TRANSPORT, Protocol};

/// Every so many rounds the tool is a real one.
const REAL_EVERY: u32 = 6;

/// Habits with which no batch begins, or whose one turn takes as long as a round.
const LEFT_OUT: [&str; 2] = ["never-ready", "huge-line"];

/// The tool of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// The zoo, with a habit that shows in a few jobs.
    Zoo(Protocol, &'static str),
    /// A real one.
    Real(&'static str),
}

/// What is done to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The command is killed.
    KillOwner,
    /// The command and its guardian are killed at once.
    KillBoth,
    /// The guardian is killed.
    KillGuardian,
    /// The command stands still for a while.
    StopOwner(Duration),
    /// The guardian stands still for a while.
    StopGuardian(Duration),
    /// A process of the tool's is killed.
    KillTool(usize),
    /// A process of the tool's is asked to end.
    TermTool(usize),
    /// A process of the tool's stands still for a while.
    StopTool(usize, Duration),
    /// The disk that everything is on is full for a while.
    FillDisk(Duration),
    /// The model server is killed, and another one comes after a while.
    KillModel(Duration),
    /// The model server answers nothing for a while.
    StallModel(Duration),
    /// What the model server says comes in pieces with a wait between them, for a while.
    SlowModel(Duration),
}

impl Fault {
    /// Whether a job may fail by it. Where only owners are killed, none may.
    pub fn may_fail_jobs(self) -> bool {
        !matches!(self, Self::KillOwner | Self::KillBoth)
    }

    /// Whether it is a point at which the owner is killed.
    pub fn kills_owner(self) -> bool {
        matches!(self, Self::KillOwner | Self::KillBoth)
    }
}

/// When a fault comes, counted from the one before it or from the command's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// After so many more outcomes.
    Outcomes(usize),
    /// After this time, wherever that is.
    Time(Duration),
}

/// A job: its id, and the prompt for the zoo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The file that it adds a line to; none: the habit shows in it, and it changes nothing.
    pub file: Option<String>,
    /// Its id.
    pub id: String,
}

/// A round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The tool.
    pub tool: Tool,
    /// How many instances.
    pub instances: usize,
    /// The jobs.
    pub jobs: Vec<Job>,
    /// What comes when, in order.
    pub faults: Vec<(Point, Fault)>,
}

impl Plan {
    /// The round of this number under a seed.
    pub fn of(seed: u64, round: u32) -> Self {
        let mut rng = Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(round));
        let real = round % REAL_EVERY == REAL_EVERY - 1;
        let tool = if real {
            Tool::Real(if rng.bool() { "aider" } else { "codex" })
        } else {
            let protocol = Protocol::ALL[rng.usize(..Protocol::ALL.len())];
            let habits: Vec<&str> =
                OF_TRANSPORT.into_iter().chain(OF_PROTOCOL).filter(|habit| !LEFT_OUT.contains(habit)).collect();
            Tool::Zoo(protocol, habits[rng.usize(..habits.len())])
        };
        let work = if real { rng.usize(6..=10) } else { rng.usize(40..=120) };
        let odd = if real { 0 } else { rng.usize(1..=3) };
        let mut jobs: Vec<Job> = (0..work)
            .map(|job| {
                let file = format!("d{}/{job}.txt", job % 5);
                Job { id: file.clone(), file: Some(file) }
            })
            .collect();
        jobs.extend((0..odd).map(|job| Job { id: format!("odd-{job}"), file: None }));
        rng.shuffle(&mut jobs);
        let count = if real { rng.usize(2..=5) } else { rng.usize(16..=40) };
        // Half of the rounds kill owners only: there each job must succeed.
        let gentle = rng.bool();
        let faults = (0..count).map(|_| (point(&mut rng, real), fault(&mut rng, real, gentle))).collect();
        Self { tool, instances: rng.usize(2..=5), jobs, faults }
    }

    /// Whether work may fail in this round.
    pub fn may_fail_jobs(&self) -> bool {
        self.faults.iter().any(|(_, fault)| fault.may_fail_jobs())
    }
}

fn point(rng: &mut Rng, real: bool) -> Point {
    match rng.u8(..3) {
        0 => Point::Outcomes(1 + rng.usize(..if real { 2 } else { 4 })),
        1 => Point::Time(Duration::from_millis(rng.u64(..if real { 6000 } else { 250 }))),
        _ => Point::Time(Duration::from_millis(rng.u64(..if real { 2000 } else { 700 }))),
    }
}

fn fault(rng: &mut Rng, real: bool, gentle: bool) -> Fault {
    let while_ = |rng: &mut Rng, most: u64| Duration::from_millis(50 + rng.u64(..most));
    if gentle || rng.u8(..100) < 50 {
        return if rng.u8(..6) == 0 { Fault::KillBoth } else { Fault::KillOwner };
    }
    match rng.u8(..if real { 11 } else { 8 }) {
        0 => Fault::StopOwner(while_(rng, 1500)),
        1 => Fault::StopGuardian(while_(rng, 1500)),
        2 => Fault::KillTool(rng.usize(..64)),
        3 => Fault::TermTool(rng.usize(..64)),
        4 => Fault::StopTool(rng.usize(..64), while_(rng, 1500)),
        5 | 6 => Fault::FillDisk(while_(rng, 800)),
        7 => Fault::KillGuardian,
        8 => Fault::KillModel(while_(rng, 2000)),
        9 => Fault::StallModel(while_(rng, 3000)),
        _ => Fault::SlowModel(while_(rng, 3000)),
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.tool {
            Tool::Zoo(protocol, habit) => write!(f, "zoo {} {habit}", protocol.name())?,
            Tool::Real(tool) => write!(f, "{tool}")?,
        }
        write!(f, ", {} jobs on {}", self.jobs.len(), self.instances)
    }
}
