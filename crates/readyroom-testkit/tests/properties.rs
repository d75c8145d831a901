//! The properties of all readers of foreign bytes, with random input made of the words that each reader knows, and with
//! what the fuzzer kept.

#![expect(clippy::print_stderr, reason = "the name of the input that does not hold")]

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use readyroom_testkit::properties::{self, TARGETS, Talker, conversation};

/// Plays what the fuzzer kept for a target. There is something.
fn kept(target: &str, property: impl Fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let entries = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut count = 0;
    for entry in entries {
        let path = entry.unwrap().path();
        let data = fs::read(&path).unwrap();
        if let Err(panic) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| property(&data))) {
            eprintln!("{}", path.display());
            std::panic::resume_unwind(panic);
        }
        count += 1;
    }
    assert!(count > 0, "{} is empty", directory.display());
}

/// Bytes that are mostly these words.
fn soup(words: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let word = prop::sample::select(words).prop_map(|word| word.as_bytes().to_vec());
    let noise = prop::collection::vec(any::<u8>(), 0..6);
    let piece = prop_oneof![8 => word, 1 => noise];
    (any::<u8>(), prop::collection::vec(piece, 0..60)).prop_map(|(first, pieces)| {
        let mut bytes = vec![first];
        bytes.extend(pieces.concat());
        bytes
    })
}

/// A script of the runtime's orders and a tool's words, which are lines.
fn script(words: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    const ORDERS: [&str; 10] =
        ["!open", "!begin hello", "!begin /x", "!context /f", "!cancel", "!reset", "!close", "!ping", "!stop", "!exit"];
    let order = prop::sample::select(&ORDERS[..]);
    let line = prop_oneof![1 => order, 3 => prop::sample::select(words)].prop_map(|line| format!("{line}\n"));
    (any::<u8>(), prop::collection::vec(line, 0..40)).prop_map(|(first, lines)| {
        let mut bytes = vec![first];
        // What comes first in each good conversation.
        bytes.extend(words[0].bytes().chain(*b"\n!open\n"));
        bytes.extend(lines.concat().bytes());
        bytes
    })
}

const LINES: [&str; 9] = [
    "{marker}",
    "context cleared",
    "hello",
    "> ",
    "All chat history cleared.",
    "\u{1b}[31mred\u{1b}[0m",
    "\r50%\r",
    "Tokens: 10 sent, 2 received.",
    "Invalid command: /fence-1",
];

const CLAUDE: [&str; 13] = [
    "{\"type\":\"control_response\",\"response\":{\"subtype\":\"success\",\"request_id\":\"initialize\",\"response\":{}}}\n{\"type\":\"control_response\",\"response\":{\"subtype\":\"success\",\"request_id\":\"version\",\"response\":{\"version\":\"2.1.197\"}}}",
    "{\"type\":\"system\",\"subtype\":\"init\",\"session_id\":\"a\"}",
    "{\"type\":\"system\",\"subtype\":\"init\",\"session_id\":\"b\"}",
    "{\"type\":\"user\",\"isReplay\":true,\"uuid\":\"00000000-0000-4000-8000-000000000001\",\"message\":{\"role\":\"user\",\"content\":[]}}",
    "{\"type\":\"assistant\",\"message\":{\"content\":[{\"type\":\"text\",\"text\":\"hi\"}]}}",
    "{\"type\":\"assistant\",\"message\":{\"content\":[{\"type\":\"tool_use\",\"id\":\"t\",\"name\":\"Bash\",\"input\":{}}]}}",
    "{\"type\":\"user\",\"message\":{\"content\":[{\"type\":\"tool_result\",\"tool_use_id\":\"t\",\"content\":\"x\",\"is_error\":true}]}}",
    "{\"type\":\"result\",\"subtype\":\"success\",\"is_error\":false,\"num_turns\":1,\"result\":\"hi\",\"session_id\":\"a\"}",
    "{\"type\":\"result\",\"subtype\":\"success\",\"is_error\":false,\"num_turns\":0,\"result\":\"\",\"session_id\":\"b\"}",
    "{\"type\":\"result\",\"subtype\":\"error_during_execution\",\"is_error\":true,\"session_id\":\"a\"}",
    "{\"type\":\"control_request\",\"request_id\":\"r\",\"request\":{\"subtype\":\"can_use_tool\",\"tool_name\":\"Write\",\"input\":{\"file_path\":\"/x\"}}}",
    "{\"type\":\"stream_event\",\"event\":{\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"h\"}}}",
    "{\"type\":7}",
];

const CODEX: [&str; 12] = [
    "{\"id\":1,\"result\":{\"userAgent\":\"x/1.0 (t)\"}}",
    "{\"id\":2,\"result\":{\"config\":{}}}",
    "{\"id\":2,\"result\":{\"thread\":{\"id\":\"t\"},\"sandbox\":{\"type\":\"dangerFullAccess\"}}}",
    "{\"id\":3,\"result\":{\"thread\":{\"id\":\"t\"},\"sandbox\":{\"type\":\"dangerFullAccess\"}}}",
    "{\"id\":4,\"result\":{\"turn\":{\"id\":\"u\"}}}",
    "{\"method\":\"turn/started\",\"params\":{\"threadId\":\"t\",\"turn\":{\"id\":\"u\",\"status\":\"inProgress\"}}}",
    "{\"method\":\"item/completed\",\"params\":{\"threadId\":\"t\",\"turnId\":\"u\",\"item\":{\"type\":\"agentMessage\",\"id\":\"i\",\"text\":\"hi\"}}}",
    "{\"method\":\"turn/completed\",\"params\":{\"threadId\":\"t\",\"turn\":{\"id\":\"u\",\"status\":\"completed\"}}}",
    "{\"method\":\"turn/completed\",\"params\":{\"threadId\":\"t\",\"turn\":{\"id\":\"u\",\"status\":\"failed\",\"error\":{\"message\":\"m\"}}}}",
    "{\"id\":9,\"method\":\"item/commandExecution/requestApproval\",\"params\":{\"threadId\":\"t\",\"turnId\":\"u\"}}",
    "{\"method\":\"error\",\"params\":{\"threadId\":\"t\",\"willRetry\":true,\"error\":{\"message\":\"m\"}}}",
    "{\"id\":3,\"error\":{\"code\":-1,\"message\":\"no\"}}",
];

const ACP: [&str; 11] = [
    "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"protocolVersion\":1,\"agentCapabilities\":{},\"authMethods\":[]}}",
    "{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{\"sessionId\":\"s\"}}",
    "{\"jsonrpc\":\"2.0\",\"id\":3,\"result\":{\"sessionId\":\"s\"}}",
    "{\"jsonrpc\":\"2.0\",\"id\":3,\"result\":{\"stopReason\":\"end_turn\"}}",
    "{\"jsonrpc\":\"2.0\",\"id\":4,\"result\":{\"stopReason\":\"cancelled\"}}",
    "{\"jsonrpc\":\"2.0\",\"id\":4,\"error\":{\"code\":-32603,\"message\":\"m\",\"data\":{}}}",
    "{\"jsonrpc\":\"2.0\",\"method\":\"session/update\",\"params\":{\"sessionId\":\"s\",\"update\":{\"sessionUpdate\":\"agent_message_chunk\",\"content\":{\"type\":\"text\",\"text\":\"hi\"}}}}",
    "{\"jsonrpc\":\"2.0\",\"method\":\"session/update\",\"params\":{\"sessionId\":\"s\",\"update\":{\"sessionUpdate\":\"tool_call\",\"toolCallId\":\"c\",\"kind\":\"edit\"}}}",
    "{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"session/request_permission\",\"params\":{\"sessionId\":\"s\",\"options\":[{\"optionId\":\"o\",\"kind\":\"allow_once\"}],\"toolCall\":{}}}",
    "{\"jsonrpc\":\"2.0\",\"id\":\"x\",\"method\":\"fs/read_text_file\",\"params\":{}}",
    "[]",
];

const DEFINITION: [&str; 26] = [
    "id = \"x\"\n",
    "driver = \"repl\"\n",
    "driver = \"acp\"\n",
    "driver = \"oneshot\"\n",
    "argv = [\"./x\", \"a\"]\n",
    "[repl]\n",
    "[oneshot]\n",
    "[permissions.read]\n",
    "[permissions.edit]\n",
    "[permissions.full]\n",
    "[env]\n",
    "[limits]\n",
    "fence = \":fence {a} {b}\"\n",
    "marker = \"{a}{b}\"\n",
    "marker = \"{status}\"\n",
    "reset = \":reset\"\n",
    "reset_ack = \"(\"\n",
    "A = \"1\"\n",
    "[[errors]]\n",
    "pattern = '('\n",
    "pattern = 'a'\n",
    "kind = \"auth\"\n",
    "output_bytes = 0\n",
    "ready_seconds = -1\n",
    "prevents = [\"shell\"]\n",
    "= \"\u{e9}\"\n",
];

const REGISTRY: [&str; 14] = [
    "{\"tools\":{",
    "}}",
    "\"aider\":",
    "\"a\":",
    "{\"detectCommands\":[",
    "]}",
    "[\"aider\",\"--version\"]",
    "\"claude --version\"",
    "\"which x\"",
    "\"'a\"",
    "[]",
    ",",
    "\"./bin/a\"",
    "\"capabilities\":[\"edit\"]",
];

const DIFF: [&str; 16] = [
    "diff --git a/a.txt b/a.txt\n",
    "--- a/a.txt\n",
    "+++ b/a.txt\n",
    "@@ -1,3 +1,3 @@\n",
    " 1\n",
    "-2\n",
    "+two\n",
    " 3\n",
    "diff --git a/../outside b/../outside\n",
    "--- /dev/null\n",
    "+++ b/../outside\n",
    "@@ -0,0 +1 @@\n",
    "new file mode 100644\n",
    "new file mode 120000\n",
    "diff --git a/.git/hooks/x b/.git/hooks/x\n",
    "+++ b/.git/hooks/x\n",
];

proptest! {
    #[test]
    fn lines_are_cut_as_a_plain_split_cuts_them(data in soup(&["\n", "\r\n", "a", "0123456789012345678901234567890123456789", "\r"])) {
        properties::lines(&data);
    }

    #[test]
    fn the_marker_is_found_where_a_plain_search_finds_it(
        data in soup(&["\n", "aaaabaaaaabaaaab", "aaaabaaa-aabaaaab", "aaaa", "b", " 12", "=7;", "\n\n"])
    ) {
        properties::fence(&data);
    }

    #[test]
    fn a_repl_ends_each_turn_once(data in script(&LINES)) {
        let _ = conversation(Talker::Repl, &data);
    }

    #[test]
    fn claude_ends_each_turn_once(data in script(&CLAUDE)) {
        let _ = conversation(Talker::Claude, &data);
    }

    #[test]
    fn codex_ends_each_turn_once(data in script(&CODEX)) {
        let _ = conversation(Talker::Codex, &data);
    }

    #[test]
    fn an_acp_agent_ends_each_turn_once(data in script(&ACP)) {
        let _ = conversation(Talker::Acp, &data);
    }

    #[test]
    fn a_command_ends_its_turn_once(data in script(&["text", "\u{1b}[0m", ""])) {
        let _ = conversation(Talker::Oneshot, &data);
    }

    #[test]
    fn a_definition_is_used_or_refused_with_a_place(data in soup(&DEFINITION)) {
        properties::definition(&data[1..]);
    }

    #[test]
    fn the_json_registry_is_used_or_refused_with_a_place(data in soup(&REGISTRY)) {
        properties::registry(&data[1..]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_change_is_brought_whole_or_not_at_all_and_stays_within_the_tree(data in soup(&DIFF)) {
        properties::diff(&data[1..]);
    }
}

#[test]
fn what_the_fuzzer_kept_for_the_readers_of_bytes() {
    kept("lines", properties::lines);
    kept("fence", properties::fence);
}

#[test]
fn what_the_fuzzer_kept_for_the_drivers() {
    let talkers = [Talker::Repl, Talker::Claude, Talker::Codex, Talker::Acp, Talker::Oneshot];
    for (target, talker) in ["repl", "claude", "codex", "acp", "oneshot"].into_iter().zip(talkers) {
        let succeeded = std::cell::Cell::new(0);
        kept(target, |data| succeeded.set(succeeded.get() + conversation(talker, data)));
        assert!(succeeded.get() > 0, "{target}: no turn comes to a good end");
    }
}

#[test]
fn what_the_fuzzer_kept_for_the_readers_of_files() {
    kept("definition", properties::definition);
    kept("registry", properties::registry);
}

#[test]
fn what_the_fuzzer_kept_for_changes() {
    kept("diff", properties::diff);
}

/// Each target has a fuzz target of its name, and there is no other.
#[test]
fn each_property_has_a_fuzz_target() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/fuzz_targets");
    let mut found: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    found.sort();
    let mut expected = TARGETS.map(str::to_owned);
    expected.sort();
    assert_eq!(found, expected);
}
