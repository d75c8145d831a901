#![no_main]

use readyroom_testkit::properties::{Talker, conversation};

libfuzzer_sys::fuzz_target!(|data: &[u8]| conversation(Talker::Repl, data));
