#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| readyroom_testkit::properties::lines(data));
