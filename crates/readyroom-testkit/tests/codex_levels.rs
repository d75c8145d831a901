//! What each permission level really prevents, seen on disk, and that the definition says so.

mod codex_support;

use std::path::Path;

use codex_support::{Place, outputs_of, patch, shell, unsandboxed};
use readyroom::{Denials, Permissions, Response};
use readyroom_testkit::{Script, Step};

/// What a model tried, and what came of it.
#[derive(Debug, PartialEq)]
struct Held {
    /// A file in the directory: by a patch, by a command.
    inside: [bool; 2],
    /// A file outside the directory and outside the temporary directory: by a patch, by a command, by a command that
    /// asks to leave the sandbox.
    outside: [bool; 3],
    /// A file in the temporary directory, in HOME, in the directory's `.git`: by a command.
    elsewhere: [bool; 3],
    /// A shell command ran; it reached the network.
    shell: [bool; 2],
}

struct Tried {
    held: Held,
    response: Response,
}

/// A model that tries everything, at a level.
async fn attempt(permissions: Permissions) -> Tried {
    let place = Place::new();
    let outside = |name: &str| place.sandbox.outside().join(name);
    let temporary = tempfile::tempdir().unwrap();
    let write = |path: &Path| format!("echo x > '{}'", path.display());
    let marker = place.sandbox.home().join("by-command");
    let port = place.model.port();
    let command = [
        write(&place.sandbox.dir().join("by-command")),
        write(&outside("by-command")),
        write(&temporary.path().join("by-command")),
        write(&marker),
        write(&place.sandbox.dir().join(".git/by-command")),
        // The shell's own network, so that nothing has to be installed.
        format!("(exec 3<>/dev/tcp/127.0.0.1/{port}) 2>/dev/null && echo REACHED"),
        "echo shell-$((40+2))".to_owned(),
    ]
    .join("; ");
    let steps = [
        patch("by-patch", "x"),
        patch(&outside("by-patch").display().to_string(), "x"),
        shell(&command),
        unsandboxed(&write(&outside("by-request"))),
        Step::say("That was all."),
    ];
    place.model.on("andesite", Script::new(steps));
    let cluster = place.at(permissions, 1).await;
    let response = cluster.submit("Try andesite").unwrap().await;
    assert_eq!(response.text().unwrap(), "That was all.");
    let requests = place.model.requests_of("andesite");
    assert_eq!(requests.len(), 5);
    let outputs = outputs_of(&requests[4]).join("\n");
    let held = Held {
        inside: [place.sandbox.dir().join("by-patch").exists(), place.sandbox.dir().join("by-command").exists()],
        outside: ["by-patch", "by-command", "by-request"].map(|name| outside(name).exists()),
        elsewhere: [
            temporary.path().join("by-command").exists(),
            marker.exists(),
            place.sandbox.dir().join(".git/by-command").exists(),
        ],
        shell: [outputs.contains("shell-42"), outputs.contains("REACHED")],
    };
    place.end(cluster).await;
    Tried { held, response }
}

/// What the definition, and so `readyroom tools`, says that a level prevents.
fn prevents(permissions: Permissions) -> String {
    let registry = readyroom::tool::Registry::builtin().unwrap();
    registry.require("codex").unwrap().definition.level(permissions).prevents.join("; ")
}

#[tokio::test]
async fn read_writes_nothing() {
    let tried = attempt(Permissions::Read).await;
    let nothing = Held { inside: [false; 2], outside: [false; 3], elsewhere: [false; 3], shell: [true, false] };
    assert_eq!(tried.held, nothing);
    let said = prevents(Permissions::Read);
    assert!(said.contains("writes, also by shell commands") && said.contains("the network"), "{said}");
    // Both patches and the wish to leave the sandbox were asked for; what the sandbox stopped is told to nobody.
    assert!(matches!(&tried.response.answer.denials, Denials::Known(denied) if denied.len() == 3));
}

#[tokio::test]
async fn edit_writes_in_the_directory_only() {
    let tried = attempt(Permissions::Edit).await;
    let inside = Held { inside: [true; 2], outside: [false; 3], elsewhere: [false; 3], shell: [true, false] };
    assert_eq!(tried.held, inside);
    let said = prevents(Permissions::Edit);
    assert!(said.contains("writes outside the directory (also in the temporary directory) and in its .git"), "{said}");
    assert!(said.contains("the network"), "{said}");
    assert!(matches!(&tried.response.answer.denials, Denials::Known(denied) if denied.len() == 2));
}

#[tokio::test]
async fn full_holds_nothing_back() {
    let tried = attempt(Permissions::Full).await;
    let all = Held { inside: [true; 2], outside: [true; 3], elsewhere: [true; 3], shell: [true; 2] };
    assert_eq!(tried.held, all);
    assert_eq!(prevents(Permissions::Full), "");
    assert_eq!(tried.response.answer.denials, Denials::Unknown);
}

/// A question is held to `read`, and the next turn of the same conversation to the cluster's level again.
#[tokio::test]
async fn a_question_writes_nothing_at_any_level() {
    let place = Place::new();
    for (word, name) in [("rhyolite-ask", "asked"), ("rhyolite-code", "coded")] {
        place.model.on(word, [patch(name, "x"), shell(&format!("echo x > {name}-by-command")), Step::say("Tried.")]);
    }
    let options = place.options(1).permissions(Permissions::Full).context(readyroom::Context::Keep);
    let cluster = place.launch(options).await;
    let response = cluster.turn().ask("What about rhyolite-ask?").unwrap().await;
    assert_eq!(response.text().unwrap(), "Tried.");
    assert_eq!((place.sandbox.read("asked"), place.sandbox.read("asked-by-command")), (None, None));
    let response = cluster.turn().code("Do rhyolite-code").unwrap().await;
    assert_eq!(response.text().unwrap(), "Tried.");
    assert!(place.sandbox.read("coded").is_some() && place.sandbox.read("coded-by-command").is_some());
    place.end(cluster).await;
}

/// The user's own rules lift the sandbox: what the definition says under `keeps` is so.
#[tokio::test]
async fn a_rule_of_the_users_runs_without_a_sandbox() {
    let place = Place::new();
    let rules = place.sandbox.home().join(".codex/rules");
    std::fs::create_dir_all(&rules).unwrap();
    std::fs::write(rules.join("default.rules"), "prefix_rule(pattern=[\"touch\"], decision=\"allow\")\n").unwrap();
    let file = place.sandbox.outside().join("touched");
    place.model.on("obsidian", [shell(&format!("touch '{}'", file.display())), Step::say("Tried.")]);
    let cluster = place.at(Permissions::Read, 1).await;
    assert!(cluster.submit("Try obsidian").unwrap().await.ok());
    assert!(file.exists());
    let registry = readyroom::tool::Registry::builtin().unwrap();
    let keeps = registry.require("codex").unwrap().definition.keeps.join("; ");
    assert!(keeps.contains("rules under ~/.codex/rules"), "{keeps}");
    place.end(cluster).await;
}
