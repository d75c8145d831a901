//! The calls of a caller that only knows `send` and `read_any`.

use std::time::Duration;

use readyroom::Permissions;
use readyroom::cluster::blocking::Cluster;
use readyroom_testkit::{Step, assert_nothing_left};

use super::Bed;

/// `/add`, `/ask`, `read_any`: one turn, on one instance, answered word for word.
pub fn add_ask_and_read(tool: &'static str) {
    let bed = Bed::new(tool);
    bed.sandbox.write("src/my file.py", "CONTENT-OF-FILE = 1\n");
    bed.model.on("ASK-ONE-X", "It sets a name.\n  And no more.");
    bed.model.on("ASK-TWO-X", [bed.write(&bed.sandbox.dir().join("new.txt"), "x\n"), Step::say("I could not.")]);
    let (definition, program) = bed.sandbox.definition();
    let options = bed.options().count(3).permissions(Permissions::Edit);
    let cluster = Cluster::launch(definition, &program, options).unwrap_or_else(|error| panic!("{error}"));
    let wait = Duration::from_secs(60);

    let first = cluster.send("/add src/my file.py").expect("it is taken");
    let second = cluster.send("/ask '/help ASK-ONE-X'").expect("it is taken");
    assert_eq!(first, second);
    let response = cluster.read_any(wait).expect("an answer");
    assert_eq!(response.text().expect("it is answered"), "It sets a name.\n  And no more.");
    assert_eq!((response.instance, response.preamble.len()), (Some(first), 1));
    let request = &bed.model.requests_of("ASK-ONE-X")[0];
    assert!(request.holds("/help ASK-ONE-X") && request.holds("CONTENT-OF-FILE = 1"), "{:#}", request.body);

    // Three context commands owe three acknowledgements, of which one is an error that names the file.
    for path in ["README.md", "src/my file.py", "missing.py"] {
        cluster.send(&format!("/add {path}")).expect("it is taken");
    }
    let read: Vec<_> = (0..3).map(|_| cluster.read_any(wait).expect("an acknowledgement")).collect();
    assert!(read.iter().any(|response| response.error().is_some_and(|failure| failure.message.contains("missing.py"))));

    // A question changes nothing, whatever its model tries.
    cluster.send("/ask ASK-TWO-X").expect("it is taken");
    let response = cluster.read_any(wait).expect("an answer");
    assert_eq!(bed.sandbox.read("new.txt"), None, "{}", response.outcome);
    assert_eq!(cluster.shutdown().dropped, 0);
    assert_nothing_left(&bed.sandbox);
}

/// 218 pairs are sent before the first answer is read; each comes back once.
pub fn many_pairs_before_the_first_read(tool: &'static str) {
    let bed = Bed::new(tool);
    bed.model.otherwise("seen");
    let (definition, program) = bed.sandbox.definition();
    let options = bed.options().count(3).permissions(Permissions::Edit);
    let cluster = Cluster::launch(definition, &program, options).unwrap_or_else(|error| panic!("{error}"));
    let pairs = 218;
    for number in 0..pairs {
        let file = cluster.send("/add README.md").expect("it is taken");
        assert_eq!(cluster.send(&format!("/ask 'PAIR {number}.'")).expect("it is taken"), file);
    }
    let mut turns = std::collections::HashSet::new();
    for _ in 0..pairs {
        let response = cluster.read_any(Duration::from_secs(60)).expect("an answer");
        assert_eq!(response.text().expect("it is answered"), "seen");
        assert!(turns.insert(response.turn));
    }
    assert!(cluster.read_any(Duration::from_millis(10)).is_none());
    let asked: Vec<usize> = {
        let requests = bed.model.requests();
        let times = |number| requests.iter().filter(|r| !r.side && r.holds(&format!("PAIR {number}."))).count();
        (0..pairs).map(times).collect()
    };
    assert!(asked.iter().all(|&times| times == 1), "{asked:?}");
    assert_eq!(cluster.shutdown().dropped, 0);
    assert_nothing_left(&bed.sandbox);
}
