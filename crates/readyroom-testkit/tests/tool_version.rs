//! Asking real programs for their version: what they print, how they fail, and that nothing of them goes on.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use readyroom::tool::{Definition, Found, find, version, version_within};
use readyroom::{Failure, FailureKind};
use readyroom_testkit::fake;

/// A tool that is a shell script.
struct Script {
    dir: tempfile::TempDir,
}

impl Script {
    fn new(text: &str) -> Self {
        fake::use_guardian();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tool");
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { dir }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("tool")
    }

    fn definition(&self) -> Definition {
        let text = format!(
            "id = \"tool\"\ndriver = \"acp\"\nargv = [{:?}, \"--acp\"]\n[env]\nMARK = {:?}\n[find]\n\
             version_args = [\"--version\"]\nversion_pattern = '^v(\\S+)'\ninstall = \"get it\"\n",
            self.path().display().to_string(),
            self.dir.path().display().to_string(),
        );
        toml::from_str(&text).unwrap()
    }

    async fn version(&self) -> Result<Option<String>, Failure> {
        let definition = self.definition();
        version(&definition, &find(&definition).unwrap()).await
    }

    /// Processes that carry this script's mark.
    fn left(&self) -> usize {
        let mark = format!("MARK={}", self.dir.path().display());
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let marked = processes.filter(|entry| {
            let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
        });
        marked.count()
    }
}

fn broken(result: Result<Option<String>, Failure>) -> Failure {
    let failure = result.unwrap_err();
    assert_eq!(failure.kind, FailureKind::ToolMissing);
    assert!(failure.message.contains("was found but is broken") && failure.message.contains("get it"), "{failure}");
    failure
}

#[tokio::test]
async fn the_version_is_what_the_pattern_finds() {
    let script = Script::new("[ \"$1\" = --version ] && echo warning >&2 && echo 'v1.2.3 (tool)'");
    assert_eq!(script.version().await.unwrap().as_deref(), Some("1.2.3"));
    assert_eq!(script.left(), 0);
}

#[tokio::test]
async fn stdin_is_at_its_end() {
    let script = Script::new("cat && echo v1");
    assert_eq!(script.version().await.unwrap().as_deref(), Some("1"));
}

#[tokio::test]
async fn a_definition_that_does_not_say_how_is_not_asked() {
    let script = Script::new("touch \"$MARK/ran\"; exit 1");
    let mut definition = script.definition();
    definition.find.version_args.clear();
    let found = find(&definition).unwrap();
    assert_eq!(version(&definition, &found).await.unwrap(), None);
    assert!(!script.dir.path().join("ran").exists());
}

#[tokio::test]
async fn a_tool_that_fails_is_broken_and_told_with_its_words() {
    let failure = broken(Script::new("echo starting; echo 'no module named x' >&2; exit 4").version().await);
    assert!(failure.message.contains("ended with exit status 4, after it said: no module named x"), "{failure}");
    assert!(failure.evidence.contains("starting"), "{}", failure.evidence);
    let killed = broken(Script::new("kill -9 $$").version().await);
    assert!(killed.message.contains("signal 9"), "{killed}");
    let silent = broken(Script::new("echo hello").version().await);
    assert!(silent.message.contains("printed no version"), "{silent}");
}

#[tokio::test]
async fn a_file_that_is_no_program_is_broken() {
    let script = Script::new("");
    std::fs::write(script.path(), [0x7f, b'E', b'L', b'F', 0, 0]).unwrap();
    broken(script.version().await);
}

#[tokio::test]
async fn a_tool_that_hangs_is_given_up_with_all_that_it_started() {
    let script = Script::new("echo v1; trap '' TERM; setsid sleep 600 & sleep 600 & wait; wait; sleep 600");
    let definition = script.definition();
    let began = Instant::now();
    let failure = version_within(&definition, &find(&definition).unwrap(), Duration::from_secs(1)).await;
    let failure = broken(failure);
    assert!(failure.message.contains("did not end within 1 s"), "{failure}");
    assert!(began.elapsed() < Duration::from_secs(20));
    assert_eq!(script.left(), 0);
}

#[tokio::test]
async fn what_goes_on_after_the_answer_is_ended_and_not_waited_for() {
    let script = Script::new("setsid sleep 600 &\necho v1");
    let began = Instant::now();
    assert_eq!(script.version().await.unwrap().as_deref(), Some("1"));
    assert!(began.elapsed() < Duration::from_secs(20), "the child holds the pipe open");
    assert_eq!(script.left(), 0);
}

#[tokio::test]
async fn words_that_belong_to_the_program_stand_before_the_flag() {
    let script = Script::new("[ \"$*\" = '-m tool --version' ] && echo v7");
    let definition = script.definition();
    let found = Found { program: script.path(), words: vec!["-m".into(), "tool".into()], version: None };
    assert_eq!(version(&definition, &found).await.unwrap().as_deref(), Some("7"));
    assert!(Path::new(&definition.argv[0]).is_absolute());
}
