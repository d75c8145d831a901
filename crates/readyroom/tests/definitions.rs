//! The definitions of `docs/definitions.md`, read out of the page: each one is a definition that the registry takes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use readyroom::tool::document::Layer;
use readyroom::tool::{DriverKind, Layers, Registry};

/// The page's definitions, by the file name in their first line.
fn definitions() -> BTreeMap<String, String> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/definitions.md")).unwrap();
    let blocks = page.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let named = blocks.map(|block| {
        let name = block.lines().next().and_then(|line| line.strip_prefix("# ")).expect("a block begins with its name");
        (name.to_owned(), block.to_owned())
    });
    named.collect()
}

#[test]
fn every_definition_on_the_page_can_be_used() {
    let home = tempfile::tempdir().unwrap();
    let definitions = definitions();
    for (name, text) in &definitions {
        fs::write(home.path().join(name), text).unwrap();
    }
    let layers = Layers { user: Some(home.path().to_owned()), ..Layers::default() };
    let registry = Registry::load(&layers).unwrap();
    for name in definitions.keys() {
        let entry = registry.get(name.strip_suffix(".toml").unwrap()).unwrap();
        assert_eq!(entry.layers.last().unwrap().0.layer, Layer::User, "{name}");
        assert!(!entry.definition.summary.is_empty(), "{name}");
    }
    for name in ["python3", "bash", "sqlite3", "psql", "node"] {
        assert_eq!(registry.get(name).unwrap().definition.driver, DriverKind::Repl);
    }
    assert_eq!(registry.get("claude").unwrap().definition.env["CLAUDE_CODE_MAX_RETRIES"], "3");
    assert!(definitions.len() >= 9, "{:?}", definitions.keys());
}

#[test]
fn the_page_names_every_key_of_a_definition() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/definitions.md")).unwrap();
    let keys = page.split("## Keys").nth(1).unwrap();
    let registry = Registry::builtin().unwrap();
    let known: std::collections::BTreeSet<String> = registry
        .entries()
        .flat_map(|entry| toml::Table::try_from(&*entry.definition).unwrap().keys().cloned().collect::<Vec<_>>())
        .collect();
    for key in known {
        assert!(keys.contains(&format!("`{key}`")), "the page does not name `{key}`");
    }
}
