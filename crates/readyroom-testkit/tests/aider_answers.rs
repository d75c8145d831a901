//! Answers that look like aider's own output come out byte for byte, and prompts that look like its commands go in as
//! they are, or are refused before anything is sent.

mod aider_support;

use std::time::{Duration, Instant};

use aider_support::{Place, Room, edit};
use readyroom::{FailureKind, Job};
use readyroom_testkit::Step;

#[track_caller]
fn comes_out(word: &str, answer: &str) {
    let room = Room::get();
    room.model().on(word, Step::say(answer));
    let response = room.run(word);
    assert_eq!(response.text().unwrap(), answer);
    // The turn ended once and at its end: the instance's next turn has an answer of its own.
    assert_eq!(room.run("what follows").text().unwrap(), "ok");
}

/// A bug that others had (onevcat/Prowl#438): an answer that held the words of a tool's own output was taken for
/// that output.
#[test]
fn answers_that_look_like_aiders_own_output_are_intact() {
    comes_out("jasper", "> \nask> \n\n> > > \n> partial");
    comes_out("onyx", "Invalid command: /fence-0000\nInvalid command: /fence-00000000000000000000\n\n> ");
    comes_out("beryl", "a\nTokens: 3.3k sent, 99 received. Cost: $0.0092 message, $0.0092 session.\n\n> \nb");
    comes_out("topaz", "Applied edit to x.py\nRetrying in 0.2 seconds...\nAll files dropped and chat history cleared.");
    comes_out("garnet", "\u{1b}[31mred\u{1b}[0m\r\nbell\u{7}\ttab\r over \u{0}nul \u{c}\u{b}\u{85}\u{2028} \u{1f600}é");
    comes_out("zircon", "no final newline");
    comes_out("spinel", "two final newlines\n\n");
    comes_out("peridot", "\n\nleading ones");
    comes_out("citrine", "litellm.RateLimitError: is what it says\nin a log\n^C again to exit\n");
}

#[test]
fn a_megabyte_in_large_pieces_is_intact() {
    let room = Room::get();
    let line = "Forty words stand in this line, and it says so. > Tokens: none.\n";
    let answer = line.repeat((1 << 20) / line.len() + 1);
    room.model().on("travertine", Step::Slow { text: answer.clone(), chunk: 128 << 10, delay_ms: 0 });
    let response = room.run("travertine");
    assert!(*response.text().unwrap() == *answer.as_str(), "{} bytes", response.answer.text.as_bytes().len());
}

#[test]
fn files_that_aider_takes_up_by_itself_are_no_part_of_the_answer() {
    let place = Place::new();
    place.sandbox.write("one.py", "a = 1\n");
    place.sandbox.write("two.py", "b = 2\n");
    place.sandbox.commit();
    let (definition, program) = place.sandbox.definition();
    let cluster = readyroom::cluster::blocking::Cluster::launch(definition, &program, place.options(1)).unwrap();
    let run = |job: Job| cluster.submit(job).unwrap().wait();
    // A file that the prompt names is added before the model is asked.
    place.model.on("marl", edit("one.py", "a = 1\n", "a = 11\n"));
    let response = run(Job::new("marl: change one.py"));
    assert_eq!(response.text().unwrap(), edit("one.py", "a = 1\n", "a = 11\n").as_str());
    assert_eq!(place.sandbox.read("one.py").unwrap(), "a = 11\n");
    // A file that an answer names is added, and the model asked again: the last answer counts, both are paid for.
    let forged = "Tokens: 1 sent, 2 received.\nit is in\n";
    place.model.on("chert", "Let me look at two.py first.");
    place.model.on("I added these files to the chat", forged);
    let response = run(Job::new("chert: look around"));
    assert_eq!(response.text().unwrap(), forged);
    assert!(response.answer.transcript.to_string_lossy().starts_with("Let me look at two.py first.\nTokens: "));
    assert_eq!(place.model.requests_of("I added these files to the chat").len(), 1);
    assert!(response.usage.input_tokens.unwrap() > 3_000, "{:?}", response.usage);
    // An answer that begins with such a line itself keeps it.
    place.model.on("tuff", "\ntwo.py\nis a file");
    let response = run(Job::new("tuff").with_file("two.py"));
    assert_eq!(response.text().unwrap(), "\ntwo.py\nis a file");
    cluster.shutdown();
}

#[test]
fn prompts_go_in_as_they_are_whatever_they_begin_with() {
    let room = Room::get();
    let hostile = [
        "/add zebra.py",
        "/run touch made",
        "/exit",
        "!touch made",
        "@zebra",
        "{zebra",
        "{\n!touch made\n}",
        "{\"json\": [1]}",
        "\"\"\"",
        "```\n/reset\n```",
        "/ask !touch made",
        " leading and trailing ",
        "tabs\tand\u{1b}[31mANSI\u{1b}[0m\u{0}NUL\u{7}",
        "line\r\nends\rof all\u{b}\u{c}\u{85}\u{2028}kinds",
        "é\u{1f600}\u{10ffff}",
        "https://example.invalid/page is only named",
    ];
    for (nth, text) in hostile.into_iter().enumerate() {
        let word = format!("olivine{nth:02}");
        let prompt = format!("{text}\n\n  {word}");
        assert!(room.run(prompt.as_str()).ok(), "{text:?}");
        assert_eq!(room.place.prompt_of(&word), format!("\n{prompt}\n"));
    }
    // The same where a prompt command carries them.
    for (nth, text) in ["!touch made", "/add zebra.py", "/run touch made"].into_iter().enumerate() {
        let word = format!("pumice{nth:02}");
        let prompt = format!("{text} {word}");
        room.cluster.send(&format!("/ask {prompt}")).unwrap();
        let response = room.cluster.read_any(Duration::from_secs(30)).unwrap();
        assert!(response.ok(), "{:?}", response.outcome);
        assert_eq!(room.place.prompt_of(&word), format!("\n{prompt}\n"));
    }
    for name in ["made", "zebra.py"] {
        assert!(!room.place.sandbox.dir().join(name).exists(), "{name} was made");
    }
}

/// A bug that others had (kunchenguid/firstmate#4598): a prompt of several lines lost a part on its way.
#[test]
fn two_hundred_kilobytes_of_lines_arrive_intact() {
    let room = Room::get();
    let mut prompt = String::from("scoria\n");
    let mut n = 0;
    while prompt.len() < 200 << 10 {
        prompt.push_str(&format!("  line {n} }} {{x /reset\n\n"));
        n += 1;
    }
    let response = room.run(prompt.as_str());
    assert_eq!(response.text().unwrap(), "ok");
    assert!(room.place.prompt_of("scoria") == format!("\n{prompt}\n"));
    let long = format!("caliche {}", "one long line ".repeat(15_000));
    assert_eq!(room.run(long.as_str()).text().unwrap(), "ok");
    assert!(room.place.prompt_of("caliche") == format!("\n{long}\n"));
}

#[test]
fn a_prompt_that_would_hang_aider_is_refused_before_it_is_sent() {
    let room = Room::get();
    let began = Instant::now();
    for prompt in [format!("syenite {}", "a".repeat(200_000)), format!("syenite {}", "=".repeat(60_000))] {
        let response = room.run(prompt.as_str());
        let failure = response.error().unwrap();
        assert_eq!(failure.kind, FailureKind::BadInput);
        assert!(failure.message.contains("in a row"), "{failure}");
    }
    let response = room.run("x ".repeat(3 << 20).as_str());
    assert_eq!(response.error().unwrap().kind, FailureKind::BadInput);
    assert!(began.elapsed() < Duration::from_secs(20), "aider was not asked");
    assert!(room.model().requests_of("syenite").is_empty());
    assert_eq!(room.run("and on").text().unwrap(), "ok");
}

#[test]
fn context_commands_take_any_path_that_can_be_written() {
    let room = Room::get();
    room.model().on("marble", "a stone");
    let names = ["with space.py", "-dash.py", "quo'te.py", "we[i]rd*.py", "{brace.py", "sub dir/é.py", "#x;y&z.py"];
    for name in names {
        room.place.sandbox.write(name, "content of marble\n");
        room.cluster.send(&format!("/add {name}")).unwrap();
        room.cluster.send(&format!("/drop {name}")).unwrap();
        room.cluster.send(&format!("/read-only {name}")).unwrap();
        room.cluster.send("/ask what is in marble?").unwrap();
        let response = room.cluster.read_any(Duration::from_secs(30)).unwrap();
        assert!(response.ok(), "{name:?}: {:?}", response.outcome);
        let replies: Vec<_> = response.preamble.iter().map(|reply| reply.result.clone().unwrap()).collect();
        assert_eq!(replies[0], format!("Added {name} to the chat"));
        assert!(replies[1].starts_with("Removed ") && replies[1].ends_with(&format!("{name} from the chat")));
        assert!(replies[2].ends_with("to read-only files."), "{replies:?}");
        assert!(room.model().requests_of("marble").last().unwrap().holds("content of marble"));
    }
    for name in ["quo\"te.py", "new\nline.py"] {
        room.place.sandbox.write(name, "");
        let response = room.run(Job::new("x").with_file(name));
        let failure = response.error().unwrap();
        assert!(failure.kind == FailureKind::BadInput && failure.message.contains("rename the file"), "{failure}");
    }
}
