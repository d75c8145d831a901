//! Test programs and harness for readyroom.
