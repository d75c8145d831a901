//! Where a tool's program is on this machine. Nothing is run and no shell is asked: names are looked up in PATH, and
//! what is found must be a program that could start.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Access, access};

use super::Definition;
use crate::error::{Failure, FailureKind};

/// A tool's program on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The program, as an absolute path (or as the definition has it, where that is a path).
    pub program: PathBuf,
    /// Words that belong to the program and stand before the tool's own arguments: `-m aider` after `python3`. Empty
    /// for nearly all tools.
    pub words: Vec<String>,
    /// The version; none until it was asked for.
    pub version: Option<String>,
}

impl Found {
    /// The definition with the words that belong to the program in its command line.
    pub fn apply(&self, definition: &Arc<Definition>) -> Arc<Definition> {
        if self.words.is_empty() {
            return Arc::clone(definition);
        }
        let mut definition = Definition::clone(definition);
        let at = definition.argv.len().min(1);
        definition.argv.splice(at..at, self.words.iter().cloned());
        Arc::new(definition)
    }
}

/// Looks for the program of `definition`: detect commands first, then `argv[0]`, then `find.also`, and last detect
/// commands that run another program with words (`python3 -m aider`), since that program's being there proves least.
///
/// # Errors
/// `ToolMissing`: says what was tried, what was found and can't be run, and how to install the tool. Its evidence is what
/// can't be run, and empty where nothing was found at all.
pub fn find(definition: &Definition) -> Result<Found, Failure> {
    let own = definition.env.get("PATH").map(OsString::from);
    find_in(definition, own.or_else(|| std::env::var_os("PATH")).as_deref())
}

fn find_in(definition: &Definition, path: Option<&OsStr>) -> Result<Found, Failure> {
    let candidates = candidates(definition);
    let mut broken = Vec::new();
    for (program, words) in &candidates {
        match look_up(program, path) {
            Look::Program(program) => return Ok(Found { program, words: words.clone(), version: None }),
            Look::Broken(why) => broken.push(why),
            Look::Missing => {}
        }
    }
    let mut tried: Vec<String> = Vec::new();
    for (program, words) in &candidates {
        let place = if program.contains('/') { "" } else { " in PATH" };
        let shown = std::iter::once(program).chain(words).cloned().collect::<Vec<_>>().join(" ");
        let shown = format!("`{shown}`{place}");
        if !tried.contains(&shown) {
            tried.push(shown);
        }
    }
    let mut message = if broken.is_empty() {
        format!("the program of `{}` was not found: looked for {}", definition.id, tried.join(", "))
    } else {
        format!("the program of `{}` was found but can't be run: {}", definition.id, broken.join("; "))
    };
    if definition.find.install.is_empty() {
        message.push_str("; correct PATH, or `argv` in its definition");
    } else {
        message.push_str(&format!("; install it with: {}", definition.find.install));
    }
    Err(Failure::new(FailureKind::ToolMissing, message).with_stderr(broken.join("\n")))
}

/// Programs to look for, in order, each with the words that belong to it.
fn candidates(definition: &Definition) -> Vec<(String, Vec<String>)> {
    let detect = definition.find.commands.iter().filter_map(|command| {
        let (program, rest) = command.split_first()?;
        let words = match rest.split_last() {
            Some((last, words)) if asks_for_version(last) => words,
            _ => rest,
        };
        Some((program.clone(), words.to_vec()))
    });
    let (plain, with_words): (Vec<_>, Vec<_>) = detect.partition(|(_, words)| words.is_empty());
    let own = definition.argv.first().into_iter().chain(&definition.find.also);
    plain.into_iter().chain(own.map(|program| (program.clone(), Vec::new()))).chain(with_words).collect()
}

/// The argument of `definition`'s program that makes it print its version.
pub(super) fn version_args(definition: &Definition) -> Vec<String> {
    if !definition.find.version_args.is_empty() {
        return definition.find.version_args.clone();
    }
    let detect = definition.find.commands.iter().filter_map(|command| command.last());
    detect.filter(|last| asks_for_version(last)).take(1).cloned().collect()
}

fn asks_for_version(word: &str) -> bool {
    matches!(word, "--version" | "-version" | "-V" | "-v" | "version" | "--help" | "-h")
}

enum Look {
    Program(PathBuf),
    Broken(String),
    Missing,
}

/// Looks up one program: a path as it is, a name in the directories of PATH. Relative directories in PATH are passed
/// over: which program they name would depend on whose directory one works in.
fn look_up(program: &str, path: Option<&OsStr>) -> Look {
    if program.contains('/') {
        return examine(Path::new(program), path);
    }
    let directories = path.into_iter().flat_map(std::env::split_paths).filter(|directory| directory.is_absolute());
    let mut broken = None;
    for directory in directories {
        match examine(&directory.join(program), path) {
            Look::Missing => {}
            Look::Broken(why) => drop(broken.get_or_insert(why)),
            found @ Look::Program(_) => return found,
        }
    }
    broken.map_or(Look::Missing, Look::Broken)
}

fn examine(file: &Path, path: Option<&OsStr>) -> Look {
    let shown = file.display();
    match std::fs::metadata(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            // A link whose target is gone is a tool that was once installed.
            match std::fs::symlink_metadata(file) {
                Ok(_) => Look::Broken(format!("{shown} is a link to nothing")),
                Err(_) => Look::Missing,
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => Look::Missing,
        Err(error) => Look::Broken(format!("{shown} can't be looked at: {error}")),
        Ok(facts) if facts.is_dir() => Look::Missing,
        Ok(_) if access(file, Access::EXEC_OK).is_err() => Look::Broken(format!("{shown} is not executable")),
        Ok(_) => match interpreter(file).filter(|name| missing_interpreter(name, path)) {
            Some(name) => Look::Broken(format!("{shown} needs `{name}`, which is not there")),
            None => Look::Program(file.to_owned()),
        },
    }
}

fn missing_interpreter(name: &str, path: Option<&OsStr>) -> bool {
    if name.contains('/') {
        return !Path::new(name).exists();
    }
    let mut directories = path.into_iter().flat_map(std::env::split_paths);
    !directories.any(|directory| access(directory.join(name), Access::EXEC_OK).is_ok())
}

/// What a script's first line says must run it: a path, or a name that `env` looks up.
fn interpreter(file: &Path) -> Option<String> {
    let mut head = [0; 256];
    let mut length = 0;
    let mut file = File::open(file).ok()?;
    while length < head.len() {
        match file.read(&mut head[length..]) {
            Ok(0) | Err(_) => break,
            Ok(more) => length += more,
        }
    }
    let line = head[..length].strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    let program = words.next()?;
    if !program.ends_with("/env") {
        return Some(program.to_owned());
    }
    words.find(|word| !word.starts_with('-') && !word.contains('=')).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    struct Bin(tempfile::TempDir);

    impl Bin {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn put(&self, name: &str, text: &str, mode: u32) -> PathBuf {
            let path = self.0.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            path
        }

        fn find(&self, definition: &str) -> Result<Found, Failure> {
            find_in(&tool(definition), Some(self.0.path().as_os_str()))
        }
    }

    fn tool(more: &str) -> Definition {
        toml::from_str(&format!("id = \"t\"\ndriver = \"acp\"\nargv = [\"t\", \"--acp\"]\n[find]\n{more}\n")).unwrap()
    }

    #[test]
    fn a_name_is_looked_up_in_path() {
        let bin = Bin::new();
        let path = bin.put("t", "\x7fELF", 0o755);
        assert_eq!(bin.find("").unwrap(), Found { program: path, words: vec![], version: None });
    }

    #[test]
    fn what_is_missing_is_told_with_the_hint() {
        let failure = Bin::new().find("also = [\"/nowhere/t2\"]\ninstall = \"npm install -g t\"").unwrap_err();
        assert_eq!(failure.kind, FailureKind::ToolMissing);
        assert_eq!(
            failure.message,
            "the program of `t` was not found: looked for `t` in PATH, `/nowhere/t2`; install it with: npm install -g t"
        );
    }

    #[test]
    fn what_can_not_be_run_is_told_apart_from_what_is_missing() {
        let bin = Bin::new();
        let path = bin.put("t", "#!/bin/sh\n", 0o644);
        assert!(bin.find("").unwrap_err().message.contains(&format!("{} is not executable", path.display())));
        bin.put("t", "#!/nowhere/sh -e\n", 0o755);
        assert!(bin.find("").unwrap_err().message.contains("needs `/nowhere/sh`, which is not there"));
        bin.put("t", "#!/usr/bin/env -S A=1 nodexyz --flag\n", 0o755);
        assert!(bin.find("").unwrap_err().message.contains("needs `nodexyz`"));
        bin.put("nodexyz", "", 0o755);
        assert!(bin.find("").is_ok());
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/nowhere/t", &path).unwrap();
        assert!(bin.find("").unwrap_err().message.contains("is a link to nothing"));
    }

    #[test]
    fn directories_and_relative_places_in_path_are_passed_over() {
        let bin = Bin::new();
        std::fs::create_dir(bin.0.path().join("t")).unwrap();
        assert!(bin.find("").unwrap_err().message.contains("was not found"));
        assert!(find_in(&tool(""), Some(OsStr::new(".:"))).is_err());
        assert!(find_in(&tool(""), None).is_err());
    }

    #[test]
    fn detect_commands_come_first_and_those_with_words_last() {
        let bin = Bin::new();
        let own = bin.put("t", "", 0o755);
        let detected = bin.put("t-new", "", 0o755);
        let python = bin.put("python3", "", 0o755);
        let commands = "commands = [[\"python3\", \"-m\", \"t\", \"--version\"], [\"t-new\", \"--version\"]]";
        assert_eq!(bin.find(commands).unwrap().program, detected);
        std::fs::remove_file(detected).unwrap();
        assert_eq!(bin.find(commands).unwrap().program, own);
        std::fs::remove_file(own).unwrap();
        let found = bin.find(commands).unwrap();
        assert_eq!((&found.program, &found.words), (&python, &vec!["-m".to_owned(), "t".into()]));
        let applied = found.apply(&Arc::new(tool(commands)));
        assert_eq!(applied.argv, ["t", "-m", "t", "--acp"]);
        assert_eq!(version_args(&applied), ["--version"]);
    }
}
