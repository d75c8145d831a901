//! Cancelling and timing out, in every state that a turn of aider can be in. The cells are listed in
//! `docs/design/cancel.md`; two of them can't be, and their tests show why.

mod aider_support;

use std::time::{Duration, Instant};

use aider_support::{Place, Room, edit, pids};
use readyroom::cluster::Events;
use readyroom::driver::{Activity, Proof};
use readyroom::{Cluster, Event, Job, Outcome};
use readyroom_testkit::{Script, Step, processes_of, zygotes_of};

/// The longest that a cancelled turn may take to end: `cancel_seconds` of the definition, with an interrupt that had to
/// keep its distance from the one before.
const LADDER: Duration = Duration::from_secs(5);

/// How a turn is ended early.
#[derive(Debug, Clone, Copy, PartialEq)]
enum How {
    Cancel,
    Timeout,
}

async fn until_activity(events: &mut Events, wanted: fn(&Activity) -> bool) {
    let mut seen = Vec::new();
    let found = async {
        loop {
            match events.recv().await.expect("the cluster lives") {
                Event::TurnProgressed { activity, .. } if wanted(&activity) => return,
                Event::TurnProgressed { activity, .. } => seen.push(activity),
                _ => {}
            }
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(60), found).await.is_ok();
    assert!(in_time, "the activity that is waited for did not come within 60 s, but {seen:?}");
}

/// Ends a turn early when `wanted` has been seen (where there is nothing to see: when the model was asked); asserts that
/// it ends soon, that its request is dropped, and that the next turn of the same process knows nothing of it.
async fn cell(place: &Place, cluster: &Cluster, word: &str, script: Step, wanted: Option<fn(&Activity) -> bool>) {
    for how in [How::Cancel, How::Timeout] {
        let word = format!("{word}-{}", if how == How::Cancel { "cancelled" } else { "late" });
        place.model.on(&word, Script::from(script.clone()));
        let before = pids(&cluster.status().await);
        let mut events = cluster.events();
        let limit = Duration::from_secs(8);
        let job = Job::new(word.as_str());
        let job = if how == How::Timeout { job.with_timeout(limit) } else { job };
        let began = Instant::now();
        let ticket = cluster.submit(job).unwrap();
        place.model.requested(&word).await;
        if let Some(wanted) = wanted {
            until_activity(&mut events, wanted).await;
        }
        let asked = Instant::now();
        if how == How::Cancel {
            ticket.cancel();
        }
        let response = ticket.await;
        match (how, &response.outcome) {
            (How::Cancel, Outcome::Cancelled) => assert!(asked.elapsed() < LADDER, "{:?}", asked.elapsed()),
            (How::Timeout, Outcome::TimedOut { after, .. }) => {
                assert_eq!(*after, limit);
                assert!(began.elapsed() < limit + LADDER, "{:?}", began.elapsed());
            }
            (_, outcome) => panic!("{how:?}: {outcome:?}"),
        }
        let said = response.answer.text.to_string_lossy().into_owned();
        assert!(!said.contains("^C"), "{said:?}");
        // On the same process; another one's first context is proven by its being new.
        let next = cluster.turn().on(response.instance.unwrap()).prompt("what follows").unwrap().await;
        assert_eq!(next.text().unwrap(), "ok");
        assert!(matches!(next.proof, Some(Proof::Acknowledged(_))));
        assert_eq!(pids(&cluster.status().await), before, "the process was kept");
        let requests = place.model.requests();
        let later = requests.iter().rfind(|request| request.holds("what follows")).unwrap();
        assert!(!later.holds(&word), "the cancelled prompt is in the next request");
        // An aider that starts runs git for a moment.
        let deadline = Instant::now() + LADDER;
        loop {
            let left = processes_of(&place.sandbox);
            if left.len() == before.len() + zygotes_of(&place.sandbox).len() {
                break;
            }
            assert!(Instant::now() < deadline, "aider and its zygote alone should run: {left:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn text(activity: &Activity) -> bool {
    matches!(activity, Activity::Text(_))
}

/// One warm aider for the cells that need no definition of their own, one after the other.
async fn with_room(word: &str, script: Step, wanted: Option<fn(&Activity) -> bool>) {
    static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let _turn = ONE_AT_A_TIME.lock().await;
    let room = tokio::task::spawn_blocking(Room::get).await.unwrap();
    cell(&room.place, room.cluster.as_async(), word, script, wanted).await;
}

#[tokio::test]
async fn cancel_aider_streaming() {
    let slow = Step::Slow { text: "One word after the other. ".repeat(400), chunk: 10, delay_ms: 50 };
    with_room("dolerite", slow, Some(text)).await;
}

#[tokio::test]
async fn cancel_aider_model_silent() {
    with_room("gabbro", Step::Hang, None).await;
    with_room("gneiss", Step::HangAfter { text: "And then nothing".into() }, Some(text)).await;
}

#[tokio::test]
async fn cancel_aider_retrying() {
    let place = Place::new();
    // Left to itself aider retries for a minute.
    let patient = |definition: &mut readyroom::tool::Definition| {
        definition.repl.as_mut().unwrap().retries_shown = None;
    };
    let cluster = place.launch_with(place.options(1), patient).await;
    let retrying: fn(&Activity) -> bool = |activity| matches!(activity, Activity::Retrying { attempt: 3.., .. });
    cell(&place, &cluster, "norite", Step::status(500), Some(retrying)).await;
    cluster.shutdown().await;
}

#[tokio::test]
async fn cancel_aider_shell_command() {
    let room = tokio::task::spawn_blocking(Room::get).await.unwrap();
    let command = "Run this:\n\n```bash\ntouch ran; sleep 4321\n```\n";
    room.model().on("picrite", Step::say(command));
    let response = room.cluster.as_async().submit("!touch ran; sleep 4321 # picrite").unwrap().await;
    assert_eq!(response.text().unwrap(), command);
    assert!(room.place.sandbox.read("ran").is_none());
    assert!(processes_of(&room.place.sandbox).iter().all(|process| !process.command.contains("sleep")));
}

#[tokio::test]
async fn cancel_aider_permission_asked() {
    let room = tokio::task::spawn_blocking(Room::get).await.unwrap();
    // A new file, and a file that is not in the chat: by hand, aider would ask for each.
    room.place.sandbox.write("quartz.py", "a = 1\n");
    let answer = format!("{}\n{}", edit("made.py", "", "b = 2\n"), edit("quartz.py", "a = 1\n", "a = 2\n"));
    room.model().on("syenite", Step::say(&answer));
    let response = room.cluster.as_async().submit("syenite").unwrap().await;
    assert_eq!(response.text().unwrap(), answer.as_str());
    assert_eq!(room.place.sandbox.read("made.py").unwrap(), "b = 2\n");
    assert_eq!(room.place.sandbox.read("quartz.py").unwrap(), "a = 2\n");
}

/// The prompt is read line by line: an interrupt in the midst of it would make prompts and commands of the rest.
#[tokio::test]
async fn a_prompt_that_is_cancelled_while_it_is_read_runs_none_of_its_lines() {
    let room = tokio::task::spawn_blocking(Room::get).await.unwrap();
    let cluster = room.cluster.as_async();
    let prompt = format!("rhyolite\n{}", "!touch ran\n/run touch ran\n".repeat(7_000));
    room.model().on("rhyolite", Step::Hang);
    let mut events = cluster.events();
    let ticket = cluster.submit(prompt.as_str()).unwrap();
    while !matches!(events.recv().await, Some(Event::TurnStarted { turn, .. }) if turn == ticket.id()) {}
    ticket.cancel();
    assert_eq!(ticket.await.outcome, Outcome::Cancelled);
    assert_eq!(cluster.submit("what follows").unwrap().await.text().unwrap(), "ok");
    assert!(room.place.sandbox.read("ran").is_none());
}
