//! Failures that are no job's own: they cost no job and take no instance down.

mod support;

use support::Place;

/// Jobs that end their tool, one after the other, say nothing of those behind them.
#[test]
fn crashes_in_a_row_take_no_instance_down() {
    let place = Place::new();
    let words = ["-j", "1", "--retries", "0", "{}", "@exit 1", "@exit 2", "@exit 3", "@exit 4", "a", "b"];
    let done = place.run(&words).expect(1);
    done.says("  crashed       4").says("  succeeded     2");
    assert!(!done.err.contains("stays down"), "{}", done.err);
}

#[test]
fn what_no_instance_is_left_for_waits_for_the_resume() {
    let place = Place::new();
    let gone = place.sandbox.home().join("gone");
    place.scripted("echo", &format!("test ! -e {} || exec false; exec $ECHO --interrupt", gone.display()));
    let end = format!("@sh touch {}", gone.display());
    let done = place.run(&["-j", "1", "--permissions", "full", "{}", &end, "@crash", "a", "b"]).expect(4);
    done.says("stopping: failed: not_ready: no instance is left").says("not done: a").says("not done: b");
    std::fs::remove_file(gone).unwrap();
    place.finish(place.command(&["resume"])).expect(1).says("  succeeded     2");
}
