//! What each permission level prevents with aider, seen on disk: a model that edits, that writes outside the directory,
//! and that wants a shell command. What is found must be what the definition says.

mod aider_support;

use std::fs;

use aider_support::{Place, edit};
use readyroom::{Cluster, Permissions, Response};
use readyroom_testkit::{Step, assert_nothing_left};

/// What a model got done under a level.
#[derive(Debug, PartialEq, Eq)]
struct Done {
    edit: bool,
    new_file: bool,
    outside: bool,
    shell: bool,
}

async fn ask(place: &Place, cluster: &Cluster, word: &str, answer: String) -> Response {
    place.model.on(word, Step::Say(answer));
    let response = cluster.submit(format!("{word} in level.py")).unwrap().await;
    assert!(response.ok(), "{:?}", response.outcome);
    response
}

/// Tries all that a model can try in an aider of this level.
async fn attempts(place: &mut Place, permissions: Permissions) -> Done {
    place.sandbox.write("level.py", "a = 1\n");
    let temporary = place.sandbox.home().join("tmp");
    fs::create_dir(&temporary).unwrap();
    place.sandbox.set_env("TMPDIR", temporary.to_string_lossy());
    let configuration = fs::read(place.sandbox.dir().join(".git/config")).ok();
    let outside = place.sandbox.outside().to_owned();
    fs::write(outside.join("old.py"), "b = 1\n").unwrap();
    let cluster = place.launch(place.options(1).permissions(permissions)).await;
    // A relative path that leads out, since aider refuses absolute ones by itself.
    let depth = place.sandbox.dir().components().count() - 1;
    let out = format!("{}{}", "../".repeat(depth), outside.strip_prefix("/").unwrap().display());
    let changed = ask(place, &cluster, "andesite", edit("level.py", "a = 1\n", "a = 2\n")).await;
    ask(place, &cluster, "trachyte", edit("made.py", "", "a = 3\n")).await;
    ask(place, &cluster, "phonolite", edit(&format!("{out}/old.py"), "b = 1\n", "b = 2\n")).await;
    ask(place, &cluster, "tephrite", edit(&format!("{out}/new.py"), "", "b = 3\n")).await;
    ask(place, &cluster, "dacite", "```bash\ntouch ran\n```\n".into()).await;
    cluster.shutdown().await;
    assert_nothing_left(&place.sandbox);
    let after = fs::read(place.sandbox.dir().join(".git/config")).ok();
    assert_eq!(after, configuration, "aider wrote into .git/config");
    let edited = place.sandbox.read("level.py").unwrap() == "a = 2\n";
    assert_eq!(changed.answer.changed_files.len(), usize::from(edited));
    Done {
        edit: edited,
        new_file: place.sandbox.dir().join("made.py").exists(),
        outside: outside.join("new.py").exists() || fs::read_to_string(outside.join("old.py")).unwrap() != "b = 1\n",
        shell: place.sandbox.dir().join("ran").exists(),
    }
}

/// What the definition says that the level prevents, in one line.
fn prevented(place: &Place, permissions: Permissions) -> String {
    place.sandbox.definition().0.level(permissions).prevents.join(", ")
}

#[tokio::test]
async fn read_prevents_every_write() {
    let mut place = Place::new();
    let done = attempts(&mut place, Permissions::Read).await;
    assert_eq!(done, Done { edit: false, new_file: false, outside: false, shell: false });
    assert_eq!(prevented(&place, Permissions::Read), "writes, shell");
}

#[tokio::test]
async fn edit_prevents_writes_outside_and_shell() {
    let mut place = Place::new();
    let done = attempts(&mut place, Permissions::Edit).await;
    assert_eq!(done, Done { edit: true, new_file: true, outside: false, shell: false });
    assert!(prevented(&place, Permissions::Edit).starts_with("writes outside the directory, shell"));
}

/// Without a repository aider itself would write anywhere, and would make a repository if it were let.
#[tokio::test]
async fn edit_holds_without_a_repository_and_makes_none() {
    let mut place = Place::new();
    fs::remove_dir_all(place.sandbox.dir().join(".git")).unwrap();
    let done = attempts(&mut place, Permissions::Edit).await;
    assert_eq!(done, Done { edit: true, new_file: true, outside: false, shell: false });
    assert!(!place.sandbox.dir().join(".git").exists() && !place.sandbox.dir().join(".gitignore").exists());
}

/// The planted fault for the tests above: without the level's means, the same attempts do get out.
#[tokio::test]
async fn full_prevents_shell_alone() {
    let mut place = Place::new();
    fs::remove_dir_all(place.sandbox.dir().join(".git")).unwrap();
    let done = attempts(&mut place, Permissions::Full).await;
    assert_eq!(done, Done { edit: true, new_file: true, outside: true, shell: false });
    assert_eq!(prevented(&place, Permissions::Full), "shell");
}

/// A question asked of an aider that may edit changes nothing, and the next turn may edit again.
#[tokio::test]
async fn a_question_edits_nothing_whatever_the_level() {
    let place = Place::new();
    place.sandbox.write("level.py", "a = 1\n");
    let cluster = place.launch(place.options(1)).await;
    place.model.on("komatiite", Step::Say(edit("level.py", "a = 1\n", "a = 2\n")));
    let asked = cluster.turn().add("level.py").ask("komatiite?").unwrap().await;
    assert_eq!(asked.text().unwrap(), edit("level.py", "a = 1\n", "a = 2\n").as_str());
    assert_eq!(place.sandbox.read("level.py").unwrap(), "a = 1\n");
    let coded = cluster.turn().add("level.py").code("komatiite!").unwrap().await;
    assert!(coded.ok());
    assert_eq!(place.sandbox.read("level.py").unwrap(), "a = 2\n");
    cluster.shutdown().await;
}

/// At `read`, a command that asks for edits gets none.
#[tokio::test]
async fn code_asked_for_at_read_edits_nothing() {
    let place = Place::new();
    place.sandbox.write("level.py", "a = 1\n");
    let cluster = place.launch(place.options(1).permissions(Permissions::Read)).await;
    place.model.on("boninite", Step::Say(edit("level.py", "a = 1\n", "a = 2\n")));
    assert!(cluster.turn().add("level.py").code("boninite").unwrap().await.ok());
    assert_eq!(place.sandbox.read("level.py").unwrap(), "a = 1\n");
    cluster.shutdown().await;
}

/// aider works on the whole repository that it finds; the level holds it to the directory that it was given.
#[tokio::test]
async fn edit_holds_in_a_part_of_a_repository_and_in_a_worktree() {
    let mut place = Place::new();
    let temporary = place.sandbox.home().join("tmp");
    fs::create_dir(&temporary).unwrap();
    place.sandbox.set_env("TMPDIR", temporary.to_string_lossy());
    place.sandbox.write("part/in.py", "a = 1\n");
    place.sandbox.write("other/out.py", "a = 1\n");
    place.sandbox.commit();
    let tree = place.sandbox.home().join("tree");
    place.sandbox.git(&["worktree", "add", "--quiet", &tree.to_string_lossy()]);
    for (root, directory) in [(place.sandbox.dir(), place.sandbox.dir().join("part")), (tree.as_path(), tree.clone())] {
        let cluster = place.launch(place.options(1).cwd(&directory)).await;
        place.model.on("essexite", Step::Say(edit("part/in.py", "a = 1\n", "a = 2\n")));
        place.model.on("teschenite", Step::Say(edit("part/new.py", "", "a = 3\n")));
        place.model.on("monchiquite", Step::Say(edit("other/out.py", "a = 1\n", "a = 2\n")));
        for (word, file) in [("essexite", "part/in.py"), ("teschenite", "nothing"), ("monchiquite", "other/out.py")] {
            let response = cluster.submit(format!("{word} in {file}")).unwrap().await;
            assert!(response.ok(), "{:?}", response.outcome);
        }
        cluster.shutdown().await;
        let read = |file: &str| fs::read_to_string(root.join(file)).unwrap_or_default();
        assert_eq!((read("part/in.py").as_str(), read("part/new.py").as_str()), ("a = 2\n", "a = 3\n"));
        let other = if root == directory { "a = 2\n" } else { "a = 1\n" };
        assert_eq!(read("other/out.py"), other, "{}", directory.display());
    }
    let tracked = std::process::Command::new("git").args(["ls-files", "part"]).current_dir(&tree).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&tracked.stdout), "part/in.py\npart/new.py\n", "aider told git of the new file");
}
