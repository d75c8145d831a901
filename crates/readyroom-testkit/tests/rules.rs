//! The pages of rules, of cancelled turns, of known bugs and of security agree with the tests that there are.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use readyroom_testkit::tools::workspace;

/// The tests of the crates that run real tools, each with whether it is skipped.
fn tests() -> BTreeMap<String, bool> {
    let mut found = BTreeMap::new();
    for krate in ["readyroom-testkit", "readyroom-cli"] {
        let tests = workspace().join("crates").join(krate).join("tests");
        if tests.is_dir() {
            tests_below(&tests, &mut found);
        }
    }
    found
}

fn tests_below(directory: &Path, found: &mut BTreeMap<String, bool>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tests_below(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let mut attributes = String::new();
            for line in text.lines().map(str::trim) {
                if line.starts_with('#') {
                    attributes.push_str(line);
                    continue;
                }
                let rest = line.strip_prefix("async fn ").or_else(|| line.strip_prefix("fn "));
                if let Some(rest) = rest.filter(|_| attributes.contains("test")) {
                    let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                    found.insert(name, attributes.contains("ignore") || attributes.contains("cfg"));
                }
                attributes.clear();
            }
        }
    }
}

/// The words in backquotes that are names of tests.
fn named(text: &str) -> BTreeSet<&str> {
    text.split('`').skip(1).step_by(2).filter(|word| word.contains('_') && !word.contains(['/', '.', ' '])).collect()
}

#[test]
fn the_page_of_rules_names_the_tests_that_there_are_and_none_is_skipped() {
    let page = std::fs::read_to_string(workspace().join("docs/design/rules.md")).unwrap();
    let named: BTreeSet<&str> = named(&page).into_iter().filter(|word| word.starts_with("rule_")).collect();
    let found = tests();
    let rules = || found.iter().filter(|(name, _)| name.starts_with("rule_"));
    let skipped: Vec<_> = rules().filter(|(_, skipped)| **skipped).collect();
    assert!(skipped.is_empty(), "{skipped:?}");
    let there: BTreeSet<&str> = rules().map(|(name, _)| name.as_str()).collect();
    let unnamed: Vec<_> = there.difference(&named).collect();
    assert!(unnamed.is_empty(), "add these to docs/design/rules.md: {unnamed:?}");
    let missing: Vec<_> = named.difference(&there).collect();
    assert!(missing.is_empty(), "named in docs/design/rules.md, but there are no such tests: {missing:?}");
    for rule in 1..=16 {
        let prefix = format!("rule_{rule:02}_");
        assert!(there.iter().any(|name| name.starts_with(&prefix)), "rule {rule} has no test");
    }
}

#[test]
fn each_state_in_which_a_turn_can_be_cancelled_has_its_test() {
    let page = std::fs::read_to_string(workspace().join("docs/design/cancel.md")).unwrap();
    let found = tests();
    let mut tools = BTreeSet::new();
    let mut cells = 0;
    for row in page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| Tool")) {
        let parts: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [tool, states @ ..] = parts.as_slice() else { panic!("{row}") };
        assert_eq!(states.len(), 5, "{tool}: a cell for each state");
        assert!(tools.insert(*tool), "{tool} has two rows");
        for cell in states {
            cells += 1;
            let reason = cell.strip_prefix("impossible: ").is_some_and(|reason| reason.len() > 20);
            let shown = named(cell).iter().any(|name| found.get(*name).is_some_and(|skipped| !skipped));
            assert!(reason || shown, "{tool}: neither a test nor a reason: {cell}");
        }
    }
    let registry = readyroom::tool::Registry::builtin().unwrap();
    let known: BTreeSet<&str> = registry.entries().map(|entry| entry.definition.id.as_str()).collect();
    assert_eq!(tools, known, "a row for each tool");
    assert_eq!(cells, 5 * known.len());
}

#[test]
fn each_known_bug_is_named_by_a_test_that_there_is() {
    let page = std::fs::read_to_string(workspace().join("docs/design/known-bugs.md")).unwrap();
    let sources = sources();
    let mut bugs = 0;
    for row in page.lines().filter(|line| line.contains("](https://")) {
        let reference = row.split(['[', ']']).nth(1).unwrap();
        let test = row.split('`').nth(1).unwrap();
        // The sentence stands above the test, with nothing but attributes between.
        let names_it = |source: &String| {
            source.split(&format!("fn {test}()")).next().filter(|before| before.len() < source.len()).is_some_and(
                |before| {
                    let above = before.rsplit_once("\n\n").map_or(before, |(_, above)| above);
                    above.contains(reference) && above.contains("#[") && !above.contains("ignore")
                },
            )
        };
        assert!(sources.iter().any(names_it), "{test} does not say that it is about {reference}");
        bugs += 1;
    }
    assert!(bugs >= 20, "{bugs}");
}

#[test]
fn each_promise_about_security_names_tests_that_there_are() {
    let page = std::fs::read_to_string(workspace().join("SECURITY.md")).unwrap();
    let sources = sources();
    let (_, promises) = page.split_once("## What holds").unwrap();
    let (promises, _) = promises.split_once("## What is not claimed").unwrap();
    for row in promises.lines().filter(|line| line.starts_with("| ")).skip(1) {
        let (_, shown) = row.trim_end_matches(" |").rsplit_once(" | ").unwrap();
        let tests = named(shown);
        assert!(!tests.is_empty(), "{row}");
        for test in tests {
            let there = sources.iter().any(|source| source.contains(&format!("fn {test}()")));
            assert!(there, "named in SECURITY.md, but there is no such test: {test}");
        }
    }
}

/// The text of every source with tests.
fn sources() -> Vec<String> {
    let crates = workspace().join("crates");
    let mut found = Vec::new();
    for directory in
        ["readyroom-testkit/tests", "readyroom-cli/tests", "readyroom-cli/src", "readyroom/tests", "readyroom/src"]
    {
        sources_below(&crates.join(directory), &mut found);
    }
    found
}

fn sources_below(directory: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources_below(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(std::fs::read_to_string(&path).unwrap());
        }
    }
}

/// Unsafe code stands in the process floor alone, and each block says why it is sound.
#[test]
fn unsafe_code_stands_in_the_process_floor_and_says_why() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let (mut open, mut blocks) =
        (vec![root.join("crates"), root.join("python/src"), root.join("bench/src"), root.join("prove/src")], 0);
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap();
            if !(code.contains("unsafe {") || code.contains("unsafe fn")) || path.ends_with("tests/rules.rs") {
                continue;
            }
            blocks += 1;
            assert!(path.to_string_lossy().contains("readyroom/src/process/"), "{}:{}", path.display(), at + 1);
            // The reason stands before it, or before the statement that it is a part of.
            let reason = lines[at.saturating_sub(6)..at]
                .iter()
                .any(|line| line.contains("// SAFETY:") || line.contains("/// # Safety"));
            assert!(reason, "{}:{} has no reason", path.display(), at + 1);
        }
    }
    assert!(blocks > 5, "{blocks} blocks were found");
}
