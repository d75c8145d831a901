//! Files that people and projects write: definitions and the JSON registry.

use std::path::Path;
use std::sync::Arc;

use readyroom::Permissions;
use readyroom::driver::create;
use readyroom::tool::document::{DefinitionError, Document, Layer};
use readyroom::tool::{AimFile, Contract, ContractOptions, Layers, Registry, RegistryError, aim};

/// A definition file is used or refused; a mistake in it is told with a place in the file. One that is used can be
/// written out as the definition in force and read again, and its driver begins.
pub fn definition(data: &[u8]) {
    let path = Path::new("/t/x.toml");
    let parsed = Document::from_bytes(Layer::Given, path, Path::new("/t"), data.to_vec());
    if let Err(error) = &parsed {
        in_file(error, data);
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("x.toml");
    std::fs::write(&file, data).expect("the file can be written");
    match Registry::load(&Layers::default().with_file(&file)) {
        Err(RegistryError::Definitions(errors)) => {
            assert!(!errors.is_empty());
            errors.iter().for_each(|error| in_file(error, data));
        }
        Err(error) => panic!("{error}"),
        Ok(registry) => registry.entries().for_each(|entry| {
            let definition = &entry.definition;
            let shown = toml::to_string(&**definition).expect("a definition in force can be shown");
            let again = toml::from_str(&shown).unwrap_or_else(|error| panic!("{error} in what is shown:\n{shown}"));
            assert_eq!(**definition, again, "{shown}");
            for permissions in [Permissions::Read, Permissions::Edit, Permissions::Full] {
                let options = ContractOptions { cwd: "/".into(), permissions, ..ContractOptions::default() };
                match Contract::resolve(Arc::clone(definition), Path::new("/bin/true"), &options) {
                    Ok(contract) => create(&contract).launched(&mut Vec::new()),
                    Err(failure) => assert!(!failure.message.is_empty()),
                }
            }
        }),
    }
}

/// The JSON registry is used or refused. What is used names programs, and is the same when it is written and read again.
pub fn registry(data: &[u8]) {
    let path = Path::new("/p/registry.json");
    match aim::parse(path, Path::new("/p"), data.to_vec()) {
        Err(error) => return in_file(&error, data),
        Ok(tools) => {
            for words in tools.iter().flat_map(|tool| &tool.detect) {
                let program = words.first().expect("a command has a program");
                assert!(!program.is_empty());
                assert!(!program.contains('/') || program.starts_with('/') || program.starts_with("~/"), "{program}");
            }
        }
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("registry.json");
    std::fs::write(&file, data).expect("the file can be written");
    let load = |of_project| {
        let aim = AimFile { path: file.clone(), base: directory.path().to_owned(), of_project };
        Registry::load(&Layers { aim: Some(aim), ..Layers::default() })
    };
    let Ok(registry) = load(false) else { return };
    let written = registry.to_aim().to_string();
    let again = aim::parse(path, Path::new("/p"), written.clone().into_bytes());
    let again = again.unwrap_or_else(|error| panic!("{error} in what was written: {written}"));
    for entry in registry.entries() {
        assert!(
            again.iter().any(|tool| tool.id == entry.definition.id),
            "{} is lost in {written}",
            entry.definition.id
        );
    }
    // The same file from a project counts for nothing until it is trusted.
    let untrusted = load(true).expect("what is ignored can't be wrong");
    let builtin = Registry::builtin().expect("the built-in definitions load");
    let ids =
        |registry: &Registry| -> Vec<String> { registry.entries().map(|entry| entry.definition.id.clone()).collect() };
    assert_eq!(ids(&untrusted), ids(&builtin));
    assert_eq!((untrusted.undriven().count(), untrusted.ignored().len()), (0, 1));
}

/// The place of a mistake is in the file.
fn in_file(error: &DefinitionError, data: &[u8]) {
    assert!(!error.message.is_empty() && !error.mend.is_empty(), "{error:?}");
    let Some((line, column)) = error.place else { return };
    let lines: Vec<&[u8]> = data.split(|byte| *byte == b'\n').collect();
    assert!((1..=lines.len()).contains(&line), "{error:?} in {} lines", lines.len());
    assert!((1..=lines[line - 1].len() + 2).contains(&column), "{error:?} in {} bytes", lines[line - 1].len());
}
