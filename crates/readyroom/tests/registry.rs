//! The registry over real files: layers, provenance, trust, the JSON registry, and every kind of mistake with its place.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use readyroom::tool::document::Layer;
use readyroom::tool::trust::{Standing, TrustRecord};
use readyroom::tool::{AimFile, Contract, ContractOptions, Layers, Registry};
use readyroom::{FailureKind, Permissions};

/// A user with a configuration, and a project, in a temporary directory.
struct World(tempfile::TempDir);

impl World {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, below: &str) -> PathBuf {
        self.0.path().canonicalize().unwrap().join(below)
    }

    fn write(&self, below: &str, text: &str) -> PathBuf {
        let path = self.path(below);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    fn layers(&self) -> Layers {
        Layers {
            user: Some(self.path("config")),
            projects: vec![self.path("repo")],
            files: Vec::new(),
            aim: None,
            trust: Some(self.path("state/trust.toml")),
        }
    }

    fn trust_all(&self, layers: &Layers) {
        let files = layers.project_files().unwrap();
        let files: Vec<(&Path, &[u8])> = files.iter().map(|file| (&*file.path, &*file.content)).collect();
        TrustRecord::add(&self.path("state/trust.toml"), &files).unwrap();
    }
}

fn mistakes(layers: &Layers) -> String {
    Registry::load(layers).unwrap_err().to_string()
}

const OWN: &str = "driver = \"acp\"\nargv = [\"own\", \"--acp\"]\n";

#[test]
fn the_five_are_built_in() {
    let registry = Registry::builtin().unwrap();
    let ids: Vec<_> = registry.entries().map(|entry| entry.definition.id.as_str()).collect();
    assert_eq!(ids, ["aider", "claude", "codex", "gemini", "opencode"]);
    assert_eq!(registry.get("aider").unwrap().layers[0].0.to_string(), "built in");
}

#[test]
fn each_layer_replaces_single_values_of_those_below_and_is_named() {
    let world = World::new();
    let user = world.write(
        "config/claude.toml",
        "summary = \"mine\"\n[env]\nA = \"user\"\nB = \"user\"\n[limits]\nready_seconds = 7\n",
    );
    let project = world.write("repo/.readyroom/tools/claude.toml", "[env]\nB = \"project\"\nC = \"project\"\n");
    let given = world.write("x/claude.toml", "[env]\nC = \"given\"\n");
    let layers = world.layers().with_file(&given);
    world.trust_all(&layers);

    let registry = Registry::load(&layers).unwrap();
    let entry = registry.get("claude").unwrap();
    let definition = &entry.definition;
    assert_eq!(definition.summary, "mine");
    assert_eq!(["A", "B", "C"].map(|name| definition.env[name].as_str()), ["user", "project", "given"]);
    assert_eq!(definition.env["DISABLE_AUTOUPDATER"], "1", "what is built in stays");
    assert_eq!((definition.limits.ready_seconds, definition.limits.reset_seconds), (7, 10));
    let sources: Vec<_> = entry.layers.iter().map(|(source, _)| (source.layer, source.file.clone())).collect();
    assert_eq!(
        sources,
        [
            (Layer::BuiltIn, None),
            (Layer::User, Some(user)),
            (Layer::Project, Some(project)),
            (Layer::Given, Some(given))
        ]
    );
}

#[test]
fn later_files_on_the_command_line_stand_above_earlier_ones() {
    let world = World::new();
    let first = world.write("1/claude.toml", "summary = \"first\"\n");
    let second = world.write("2/other-name.toml", "id = \"claude\"\nsummary = \"second\"\n");
    let layers = world.layers().with_file(first).with_file(second);
    assert_eq!(Registry::load(&layers).unwrap().get("claude").unwrap().definition.summary, "second");
}

#[test]
fn nothing_of_the_layers_below_another_driver_counts() {
    let world = World::new();
    let mut layers = world.layers();
    let own = "driver = \"oneshot\"\nargv = [\"gemini\", \"-p\"]\n[oneshot]\nprompt = \"arg\"\n";
    let user = world.write("config/gemini.toml", own);
    let above = world.write("x/gemini.toml", "summary = \"mine\"\n");
    layers = layers.with_file(&above);
    let registry = Registry::load(&layers).unwrap();
    let entry = registry.get("gemini").unwrap();
    let sources: Vec<_> = entry.layers.iter().map(|(source, _)| source.file.clone().unwrap()).collect();
    assert_eq!(sources, [user, above]);
    let definition = &entry.definition;
    assert!(definition.settings.is_empty() && definition.env.is_empty(), "{definition:#?}");
    // What the built-in one prevents, its protocol prevents.
    let builtin = Registry::builtin().unwrap();
    let says = |of: &Registry| of.get("gemini").unwrap().definition.permissions.contains_key(&Permissions::Read);
    assert!(says(&builtin) && !says(&registry));

    world.write("config/gemini.toml", "driver = \"oneshot\"\n");
    let found = mistakes(&layers);
    assert!(found.contains("the definition of `gemini` has no `argv`"), "{found}");
    world.write("config/gemini.toml", "driver = \"acp\"\n");
    assert!(says(&Registry::load(&layers).unwrap()), "the same driver is no other");
}

#[test]
fn a_file_alone_adds_a_tool() {
    let world = World::new();
    world.write("config/own.toml", OWN);
    let registry = Registry::load(&world.layers()).unwrap();
    let definition = &registry.require("own").unwrap().definition;
    assert_eq!(
        (definition.id.as_str(), definition.argv.as_slice()),
        ("own", ["own".to_owned(), "--acp".into()].as_slice())
    );
    assert!(definition.level(Permissions::Edit).prevents[0].contains("where it asks"));
    assert_eq!(definition.level(Permissions::Full), Default::default());
}

#[test]
fn a_level_that_nothing_holds_is_refused() {
    let world = World::new();
    world.write("config/own.toml", "driver = \"oneshot\"\nargv = [\"sh\"]\n[oneshot]\n");
    let registry = Registry::load(&world.layers()).unwrap();
    let definition = &registry.get("own").unwrap().definition;
    let resolve = |permissions| {
        let options = ContractOptions { cwd: world.path(""), permissions, ..ContractOptions::default() };
        Contract::resolve(Arc::clone(definition), Path::new("/bin/sh"), &options)
    };
    for level in [Permissions::Read, Permissions::Edit] {
        let why = resolve(level).unwrap_err();
        assert_eq!(why.kind, FailureKind::BadInput);
        assert!(
            why.message.contains(&format!("can't hold permissions `{level}`")) && why.message.contains("`full`"),
            "{why}"
        );
    }
    assert!(resolve(Permissions::Full).is_ok());
}

#[test]
fn a_projects_files_count_only_with_the_content_that_was_trusted() {
    let world = World::new();
    let own = world.write("repo/.readyroom/tools/own.toml", OWN);
    let over = world.write("repo/.readyroom/tools/claude.toml", "summary = \"changed by the project\"\n");
    let layers = world.layers();

    let registry = Registry::load(&layers).unwrap();
    assert!(registry.get("own").is_none());
    assert_eq!(registry.get("claude").unwrap().definition.summary, "Claude Code");
    let ignored: Vec<_> = registry.ignored().iter().map(|file| (file.path.clone(), file.standing)).collect();
    assert_eq!(ignored, [(over, Standing::New), (own.clone(), Standing::New)]);
    let why = registry.require("own").unwrap_err();
    assert_eq!(why.kind, FailureKind::BadInput);
    assert!(why.message.contains("own.toml") && why.message.contains("readyroom tools trust"), "{why}");

    world.trust_all(&layers);
    let registry = Registry::load(&layers).unwrap();
    assert!(registry.get("own").is_some() && registry.ignored().is_empty());
    assert_eq!(registry.get("claude").unwrap().definition.summary, "changed by the project");

    fs::write(&own, format!("{OWN}# one comment more\n")).unwrap();
    let registry = Registry::load(&layers).unwrap();
    assert!(registry.get("own").is_none());
    assert_eq!(registry.ignored()[0].standing, Standing::Changed);
    assert!(registry.require("own").unwrap_err().message.contains("has changed"));
    assert_eq!(
        registry.get("claude").unwrap().definition.summary,
        "changed by the project",
        "the other file still counts"
    );
}

#[test]
fn an_untrusted_file_is_not_even_read_as_a_definition() {
    let world = World::new();
    world.write("repo/.readyroom/tools/own.toml", "driver = \"telepathy\"");
    let registry = Registry::load(&world.layers()).unwrap();
    assert_eq!(registry.ignored().len(), 1);
}

#[test]
fn a_damaged_record_of_trust_is_an_error_only_where_it_is_needed() {
    let world = World::new();
    world.write("state/trust.toml", "version = 99");
    assert!(Registry::load(&world.layers()).is_ok());
    world.write("repo/.readyroom/tools/own.toml", OWN);
    assert!(mistakes(&world.layers()).contains("trust.toml"));
}

#[test]
fn relative_programs_are_below_the_project_or_beside_the_file() {
    let world = World::new();
    world.write("repo/.readyroom/tools/own.toml", &OWN.replace("\"own\"", "\"./bin/own\""));
    let given = world.write("x/beside.toml", &OWN.replace("\"own\"", "\"./beside\""));
    let layers = world.layers().with_file(given);
    world.trust_all(&layers);
    let registry = Registry::load(&layers).unwrap();
    let program = |id: &str| PathBuf::from(&registry.get(id).unwrap().definition.argv[0]);
    assert_eq!(program("own"), world.path("repo/bin/own"));
    assert_eq!(program("beside"), world.path("x/beside"));
}

#[test]
fn every_mistake_is_told_with_file_line_column_and_mend() {
    let world = World::new();
    let cases = [
        ("summary = \"x\"\nargz = []\n", ":2:1: unknown field `argz`", "correct its name"),
        ("summary = \n", ":1:11: ", "correct the TOML"),
        ("driver = \"mind\"\nargv = [\"x\"]\n", ":1:10: unknown variant `mind`", "one of these words"),
        ("driver = \"acp\"\nargv = \"x\"\n", ":2:8: invalid type", "correct the value"),
        ("[env]\nA = 1\n", ":2:5: invalid type", "correct the value"),
        (
            "driver = \"acp\"\nargv = [\"x\"]\n[[errors]]\npattern = '('\nkind = \"auth\"\n",
            ":4:1: `(` is no regular",
            "correct it",
        ),
        ("driver = \"acp\"\n", ":1:1: the definition of `bad` has no `argv`", "give the command line"),
        ("summary = \"x\"\n", ": `bad` is no tool that is known", "give `driver` and `argv`"),
        ("driver = \"repl\"\nargv = [\"x\"]\n", ":1:1: driver `repl` needs", "add one with"),
        ("[permissions.write]\n", ":1:14: unknown variant `write`", "one of these words"),
    ];
    for (text, place, mend) in cases {
        let path = world.write("config/bad.toml", text);
        let found = mistakes(&world.layers());
        assert!(found.starts_with(&format!("{}{place}", path.display())), "{text:?} gave {found}");
        assert!(found.contains(mend), "{text:?} gave {found}");
    }
}

#[test]
fn a_mistake_is_placed_in_the_layer_that_made_it() {
    let world = World::new();
    let path = world.write("config/claude.toml", "# mine\n[limits]\nready_seconds = 0\n");
    let found = mistakes(&world.layers());
    assert!(found.starts_with(&format!("{}:3:1: ready_seconds is 0", path.display())), "{found}");
}

#[test]
fn all_mistakes_are_told_at_once() {
    let world = World::new();
    world.write("config/a.toml", "x = 1\n");
    world.write("config/b.toml", "y = 1\n");
    let missing = world.path("nowhere.toml");
    let found = mistakes(&world.layers().with_file(&missing));
    assert_eq!(found.lines().count(), 3, "{found}");
    assert!(found.contains("nowhere.toml: can't be read: No such file"), "{found}");
}

#[test]
fn two_files_of_one_directory_for_one_tool_are_a_mistake() {
    let world = World::new();
    world.write("config/claude.toml", "summary = \"a\"\n");
    world.write("config/zz.toml", "# second\nid = \"claude\"\n");
    let found = mistakes(&world.layers());
    assert!(found.contains("zz.toml:2:1: describes the tool `claude`, and so does"), "{found}");
}

#[test]
fn what_is_no_plain_file_is_refused_without_waiting_for_it() {
    let world = World::new();
    fs::create_dir_all(world.path("config/dir.toml")).unwrap();
    let found = mistakes(&world.layers());
    assert!(found.contains("dir.toml: is not a plain file"), "{found}");
}

#[test]
fn an_unknown_tool_is_answered_with_the_known_ones() {
    let registry = Registry::builtin().unwrap();
    let near = registry.require("cluade").unwrap_err().message;
    assert!(near.contains("did you mean `claude`"), "{near}");
    let far = registry.require("emacs").unwrap_err().message;
    assert!(far.contains("known are aider, claude, codex, gemini, opencode"), "{far}");
}

const AIM: &str = r#"{"tools": {
    "aider": {"detectCommands": [["/opt/aider", "--version"], ["python3", "-m", "aider", "--version"]], "capabilities": ["edit"]},
    "claude-cli": {"detectCommands": ["claude --version"], "capabilities": ["chat"]},
    "jules": {"detectCommands": ["jules --version"], "capabilities": []}
}}"#;

fn with_aim(world: &World, of_project: bool) -> Layers {
    let path = world.write("repo/.aim/aim-registry/registry.json", AIM);
    Layers { aim: Some(AimFile { path, base: world.path("repo"), of_project }), ..world.layers() }
}

#[test]
fn the_json_registry_changes_how_a_tool_is_found_and_what_it_is_called() {
    let world = World::new();
    let registry = Registry::load(&with_aim(&world, false)).unwrap();
    let aider = registry.get("aider").unwrap();
    assert_eq!(aider.definition.find.commands[0], ["/opt/aider", "--version"]);
    assert_eq!(aider.definition.capabilities, ["edit"]);
    assert_eq!(aider.layers.last().unwrap().0.layer, Layer::Aim);

    let other = registry.get("claude-cli").unwrap();
    assert_eq!(other.other_name_of.as_deref(), Some("claude"));
    assert_eq!(other.definition.id, "claude-cli");
    assert_eq!(other.definition.driver, registry.get("claude").unwrap().definition.driver);

    assert!(registry.get("jules").is_none());
    assert_eq!(registry.undriven().map(|undriven| undriven.tool.id.as_str()).collect::<Vec<_>>(), ["jules"]);
    let why = registry.require("jules").unwrap_err().message;
    assert!(why.contains("registry.json") && why.contains("`driver`"), "{why}");
}

#[test]
fn a_definition_gives_a_tool_of_the_json_registry_its_driver() {
    let world = World::new();
    world.write("config/jules.toml", "driver = \"oneshot\"\nargv = [\"jules\"]\n[oneshot]\n");
    let registry = Registry::load(&with_aim(&world, false)).unwrap();
    assert_eq!(registry.get("jules").unwrap().definition.find.commands[0], ["jules", "--version"]);
    assert_eq!(registry.undriven().count(), 0);
}

#[test]
fn a_projects_json_registry_needs_trust() {
    let world = World::new();
    let layers = with_aim(&world, true);
    let registry = Registry::load(&layers).unwrap();
    assert!(registry.get("aider").unwrap().definition.find.commands.is_empty());
    assert_eq!(registry.ignored()[0].tools, ["aider", "claude-cli", "jules"]);
    assert!(registry.require("jules").unwrap_err().message.contains("tools trust"));
    world.trust_all(&layers);
    let registry = Registry::load(&layers).unwrap();
    assert!(!registry.get("aider").unwrap().definition.find.commands.is_empty());
}

#[test]
fn a_json_registry_that_is_named_and_missing_is_an_error() {
    let world = World::new();
    let aim = AimFile { path: world.path("nowhere.json"), base: world.path(""), of_project: false };
    let found = mistakes(&Layers { aim: Some(aim), ..world.layers() });
    assert!(found.contains("nowhere.json: can't be read"), "{found}");
}

#[test]
fn the_registry_is_given_in_the_form_of_the_json_registry() {
    let world = World::new();
    let registry = Registry::load(&with_aim(&world, false)).unwrap();
    let json = registry.to_aim();
    let aider = &json["tools"]["aider"];
    assert_eq!(aider["detectCommands"][0], serde_json::json!(["/opt/aider", "--version"]));
    assert_eq!(aider["capabilities"], serde_json::json!(["edit"]));
    let codex = &json["tools"]["codex"];
    assert_eq!(codex["detectCommands"], serde_json::json!([["codex", "--version"]]));
    assert_eq!(json["tools"]["jules"]["driver"], serde_json::Value::Null);
    assert_eq!(json["tools"].as_object().unwrap().len(), 7);
}
