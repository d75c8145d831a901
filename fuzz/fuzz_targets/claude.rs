#![no_main]

use readyroom_testkit::properties::{Talker, conversation};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = conversation(Talker::Claude, data);
});
