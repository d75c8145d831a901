//! The page of rules and the tests that show them agree.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use readyroom_testkit::tools::workspace;

/// The `rule_...` tests in a directory, each with whether it is ignored.
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
                let rest = line.strip_prefix("async fn rule_").or_else(|| line.strip_prefix("fn rule_"));
                if let Some(rest) = rest {
                    let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                    let skipped = !attributes.contains("test") || attributes.contains("ignore");
                    found.insert(format!("rule_{name}"), skipped || attributes.contains("cfg"));
                }
                attributes.clear();
            }
        }
    }
}

#[test]
fn the_page_names_the_tests_that_there_are_and_none_is_skipped() {
    let page = std::fs::read_to_string(workspace().join("docs/design/rules.md")).unwrap();
    let named: BTreeSet<String> = page.split('`').filter(|word| word.starts_with("rule_")).map(str::to_owned).collect();
    let mut found = BTreeMap::new();
    for krate in ["readyroom-testkit", "readyroom-cli"] {
        let tests = workspace().join("crates").join(krate).join("tests");
        if tests.is_dir() {
            tests_below(&tests, &mut found);
        }
    }
    let skipped: Vec<_> = found.iter().filter(|(_, skipped)| **skipped).map(|(name, _)| name).collect();
    assert!(skipped.is_empty(), "skipped, or no test at all: {skipped:?}");
    let there: BTreeSet<String> = found.into_keys().collect();
    let unnamed: Vec<_> = there.difference(&named).collect();
    assert!(unnamed.is_empty(), "add these to docs/design/rules.md: {unnamed:?}");
    let missing: Vec<_> = named.difference(&there).collect();
    assert!(missing.is_empty(), "named in docs/design/rules.md, but there are no such tests: {missing:?}");
}
