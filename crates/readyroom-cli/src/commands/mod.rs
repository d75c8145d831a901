//! The commands, one module each: they take parsed arguments, and a writer where they print.

pub mod tools;
