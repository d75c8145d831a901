//! Runs every test there is, and counts them.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use anyhow::Context;

use crate::{host, install, python};

/// What the test binaries said.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Counts {
    passed: u64,
    failed: u64,
    ignored: u64,
    /// Numbers of the rules that a test named `rule_NN_..` has shown to hold.
    rules: BTreeSet<u32>,
}

/// Each driver's rules are numbered, and each has a test.
const RULES: std::ops::RangeInclusive<u32> = 1..=16;

/// Installs what is needed and runs the tests, or those whose name holds `filter`; whether all is well.
pub fn run(filter: Option<&str>) -> anyhow::Result<bool> {
    install::tools()?;
    install::system()?;
    // The tests drive programs of the workspace, which cargo builds only for tests of the same package.
    host::run(cargo(&["build", "--workspace", "--bins"]).stdout(Stdio::null()))?;
    let mut command = cargo(&["test", "--workspace", "--no-fail-fast"]);
    command.args(["--"].iter().filter(|_| filter.is_some())).args(filter);
    let mut counts = Counts::default();
    let mut ended_well = counted(command, &mut counts)?;
    if filter.map_or(Ok(true), python::has_test)? {
        ended_well &= counted(python::tests(filter)?, &mut counts)?;
    }
    let lines = counts.verdict(ended_well, filter.is_none());
    for line in &lines.0 {
        println!("{line}");
    }
    Ok(lines.1)
}

/// Runs tests, shows and counts what they say; whether they ended well.
fn counted(mut command: Command, counts: &mut Counts) -> anyhow::Result<bool> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("{command:?} can't be run"))?;
    let mut out = std::io::stdout().lock();
    for line in BufReader::new(child.stdout.take().expect("stdout is piped")).split(b'\n') {
        let line = line.context("the tests' output")?;
        counts.line(&String::from_utf8_lossy(&line));
        out.write_all(&line)?;
        out.write_all(b"\n")?;
        out.flush()?;
    }
    Ok(child.wait()?.success())
}

/// A command of cargo's for the tests.
pub fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.args(args).current_dir(host::workspace()).env("READYROOM_TOOLS_DIR", host::tools());
    command
}

impl Counts {
    /// Adds what others said.
    pub fn add(&mut self, more: Self) {
        self.passed += more.passed;
        self.failed += more.failed;
        self.ignored += more.ignored;
        self.rules.extend(more.rules);
    }

    /// Takes a line of a test binary's output, or of pytest's: `3 failed, 128 passed, 1 skipped, 1 error in 15.53s`.
    pub fn line(&mut self, line: &str) {
        if let Some((numbers, time)) = line.rsplit_once(" in ")
            && time.starts_with(|sign: char| sign.is_ascii_digit())
        {
            for part in numbers.split(", ") {
                match part.trim_matches(['=', ' ']).split_once(' ').map(|(number, what)| (number.parse::<u64>(), what))
                {
                    Some((Ok(number), "passed")) => self.passed += number,
                    Some((Ok(number), "failed" | "error" | "errors")) => self.failed += number,
                    // One that is expected to fail has shown nothing either.
                    Some((Ok(number), "skipped" | "xfailed" | "xpassed")) => self.ignored += number,
                    _ => {}
                }
            }
        }
        // Something that a test's child printed may stand before it on the same line.
        if let Some(at) = line.find("test result: ") {
            let mut numbers = line[at..].split([';', '.']).filter_map(|part| {
                let mut words = part.split_whitespace().rev();
                let (what, number) = (words.next()?, words.next()?.parse::<u64>().ok()?);
                Some((what.to_owned(), number))
            });
            for (what, number) in numbers.by_ref() {
                match what.as_str() {
                    "passed" => self.passed += number,
                    "failed" => self.failed += number,
                    "ignored" => self.ignored += number,
                    _ => {}
                }
            }
        } else if let Some((name, "ok")) = line.strip_prefix("test ").and_then(|rest| rest.rsplit_once(" ... ")) {
            let number: Option<u32> =
                name.rsplit("::").next().and_then(|name| name.strip_prefix("rule_")).and_then(|name| {
                    let digits: String = name.chars().take_while(char::is_ascii_digit).collect();
                    digits.parse().ok()
                });
            self.rules.extend(number);
        }
    }

    /// The closing lines, and whether all is well. A test that is ignored has failed to show anything.
    pub fn verdict(mut self, ended_well: bool, whole: bool) -> (Vec<String>, bool) {
        let mut lines = Vec::new();
        if self.ignored > 0 {
            lines.push(format!("{} tests are ignored, which counts as failed", self.ignored));
            self.failed += self.ignored;
        }
        if whole {
            let missing: Vec<String> =
                RULES.filter(|rule| !self.rules.contains(rule)).map(|rule| rule.to_string()).collect();
            if !missing.is_empty() {
                lines.push(format!("no test that passed shows rule {}", missing.join(", ")));
                self.failed += missing.len() as u64;
            }
        }
        if !ended_well && self.failed == 0 {
            lines.push("a test binary was not built, or did not come to its end".to_owned());
            self.failed = 1;
        }
        if self.passed == 0 && self.failed == 0 {
            lines.push("no test was run".to_owned());
            self.failed = u64::from(whole);
        }
        let well = ended_well && self.failed == 0;
        lines.push(format!("{} passed, {} failed, 0 skipped", self.passed, self.failed));
        (lines, well)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts_of(lines: &[&str]) -> Counts {
        let mut counts = Counts::default();
        lines.iter().for_each(|line| counts.line(line));
        counts
    }

    #[test]
    fn counts_are_summed_over_all_binaries() {
        let counts = counts_of(&[
            "test driver::tests::rule_03_a_success_may_hold_a_failure ... ok",
            "test rule_04_ended_is_not_quiescent ... FAILED",
            "test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 2 filtered out; finished in 0.33s",
            "noise test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.33s",
        ]);
        assert_eq!(counts, Counts { passed: 13, failed: 1, ignored: 1, rules: [3].into() });
        let (lines, well) = counts.verdict(false, false);
        assert_eq!(lines.last().unwrap(), "13 passed, 2 failed, 0 skipped");
        assert!(!well);
    }

    #[test]
    fn the_counts_of_pytest_are_added() {
        let counts = counts_of(&[
            "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.33s",
            "took 3 passed in vain",
            "1 failed, 36 passed, 2 skipped, 1 error in 60.69s (0:01:00)",
            "===== 128 passed, 3 warnings in 15.53s =====",
        ]);
        assert_eq!(counts, Counts { passed: 166, failed: 2, ignored: 2, rules: BTreeSet::new() });
    }

    #[test]
    fn a_rule_without_a_test_is_a_failure_of_the_whole_run_only() {
        let mut counts = Counts { passed: 20, rules: RULES.collect(), ..Counts::default() };
        counts.rules.remove(&7);
        let (lines, well) = counts.verdict(true, true);
        assert_eq!(lines, ["no test that passed shows rule 7", "20 passed, 1 failed, 0 skipped"]);
        assert!(!well);
        let counts = Counts { passed: 2, ..Counts::default() };
        assert_eq!(counts.verdict(true, false), (vec!["2 passed, 0 failed, 0 skipped".to_owned()], true));
    }

    #[test]
    fn a_binary_that_dies_is_a_failure() {
        let counts = Counts { passed: 5, ..Counts::default() };
        let (lines, well) = counts.verdict(false, false);
        assert_eq!(lines.last().unwrap(), "5 passed, 1 failed, 0 skipped");
        assert!(!well);
    }
}
