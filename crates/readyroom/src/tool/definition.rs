//! A tool definition: everything that readyroom knows about one tool, as data from a TOML file.
//!
//! A definition may be partial (a person's file that changes one value of a built-in tool); [`super::Registry`] merges
//! the layers as TOML tables first and reads the result as this type, so every field here has its default.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::FailureKind;
use crate::job::Permissions;

/// Which driver holds the conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DriverKind {
    /// A read-eval-print loop whose turns end by a fence.
    Repl,
    /// Claude Code's stream-json protocol.
    Claude,
    /// Codex's app-server protocol.
    Codex,
    /// The Agent Client Protocol.
    Acp,
    /// Any command: the prompt goes in, the answer is what it prints until it exits with 0.
    Oneshot,
}

impl DriverKind {
    /// Its word in a definition.
    pub fn word(self) -> &'static str {
        match self {
            Self::Repl => "repl",
            Self::Claude => "claude",
            Self::Codex => "codex",
            Self::Acp => "acp",
            Self::Oneshot => "oneshot",
        }
    }
}

/// How bytes travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// Pipes; stderr on a pipe of its own.
    #[default]
    Pipe,
    /// Pipes; stderr goes where stdout goes, so that their order is kept.
    Merged,
    /// A pseudo-terminal without echo where the tool allows.
    Pty,
}

/// A tool, as its definition describes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// The tool's name in commands.
    pub id: String,
    /// One line for lists.
    #[serde(default)]
    pub summary: String,
    /// Which driver.
    pub driver: DriverKind,
    /// How bytes travel.
    #[serde(default)]
    pub transport: Transport,
    /// The command line; the first word is a program's name or path.
    pub argv: Vec<String>,
    /// How the program is found and its version asked.
    #[serde(default)]
    pub find: Find,
    /// How the model is chosen: arguments in which `{}` is the model's name. Empty: it can't be chosen.
    #[serde(default)]
    pub model: ModelOption,
    /// What is added where something is so in the directory.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub when: Vec<When>,
    /// Environment variables that are set, over what the caller's environment holds.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Environment variables of the caller's, or of a lower layer, that are taken away.
    #[serde(default)]
    pub unset_env: Vec<String>,
    /// What is put in front of a variable, whoever set it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub prepend_env: BTreeMap<String, PrependEnv>,
    /// What else of the environment reaches the tool.
    #[serde(default)]
    pub env_policy: EnvPolicy,
    /// Names of variables whose values are secrets, as regular expressions over the name.
    #[serde(default = "default_secrets")]
    pub secret_env: Vec<String>,
    /// What each permission level means for this tool.
    #[serde(default)]
    pub permissions: BTreeMap<Permissions, PermissionLevel>,
    /// Values for the driver at every level, where the level itself sets none (Codex: `stream_max_retries`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, String>,
    /// Whether instances may share a process.
    #[serde(default)]
    pub sharing: Sharing,
    /// How the tool's starts are made faster by forks of one warmed interpreter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zygote: Option<Zygote>,
    /// Words that `send` takes as commands of the tool itself.
    #[serde(default)]
    pub commands: Commands,
    /// What classifies a failure by its text. The first rule that matches wins.
    #[serde(default)]
    pub errors: Vec<ErrorRule>,
    /// Limits and times.
    #[serde(default)]
    pub limits: Limits,
    /// What the tool can do, in words of the caller's choosing. Nothing depends on them; the guide's JSON registry
    /// carries them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
    /// What the tool keeps under HOME and so survives a reset; for the documentation and `tools show`.
    #[serde(default)]
    pub keeps: Vec<String>,
    /// Settings of the `repl` driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repl: Option<ReplSettings>,
    /// Settings of the `oneshot` driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oneshot: Option<OneshotSettings>,
    /// Files below the instance's state directory or HOME that must exist before launch (`{home}/...`): path to text.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
}

/// One warmed interpreter of which all of the tool's processes are forks. For tools that are Python scripts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Zygote {
    /// Whether it is used.
    pub enabled: bool,
    /// The modules that it imports before it forks.
    pub imports: Vec<String>,
    /// Python that it executes then.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub warm: String,
}

/// What is put in front of an environment variable's value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrependEnv {
    /// The text; `{home}` in it is the tool's HOME, without which nothing is put there. Empty: nothing.
    pub value: String,
    /// What stands between the text and a value that is there.
    pub separator: String,
}

fn default_secrets() -> Vec<String> {
    vec!["(?i)(key|token|secret|password|credential)".into()]
}

/// How a tool's program is found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Find {
    /// Commands that show whether the tool is there, tried before `argv[0]`: a program, words that belong to it
    /// (`python -m aider`), and last the argument that asks for the version. The first whose program exists is it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<Vec<String>>,
    /// Other names or paths to try after `argv[0]`.
    pub also: Vec<String>,
    /// Arguments that make it print its version, and a regular expression whose first group is the version.
    pub version_args: Vec<String>,
    /// See `version_args`.
    pub version_pattern: String,
    /// The version that this definition was tested with.
    pub tested: String,
    /// How to install it, for a person.
    pub install: String,
}

/// How the model is chosen.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelOption {
    /// Arguments; `{}` is the name.
    pub args: Vec<String>,
    /// Environment variables; `{}` is the name.
    pub env: BTreeMap<String, String>,
    /// Whether the driver passes the name in its protocol instead (Codex's `thread/start`).
    pub in_protocol: bool,
}

/// What is added where something is not so in the directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct When {
    /// It holds where this command, run in the directory with the tool's environment, does not exit with 0. The command
    /// must be short and change nothing.
    pub fails: Vec<String>,
    /// The arguments that are added.
    #[serde(default)]
    pub args: Vec<String>,
    /// The environment variables that are set.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

impl When {
    /// Whether it holds for `directory`, where `env` is the tool's environment.
    pub fn holds(&self, directory: &std::path::Path, env: &BTreeMap<OsString, OsString>) -> bool {
        let Some((program, args)) = self.fails.split_first() else { return false };
        let null = std::process::Stdio::null;
        let mut command = std::process::Command::new(program);
        command.args(args).env_clear().envs(env).current_dir(directory).stdin(null()).stdout(null()).stderr(null());
        !command.status().is_ok_and(|status| status.success())
    }
}

/// What else of the caller's environment reaches the tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EnvPolicy {
    /// All of it, as if a shell had started the tool.
    #[default]
    Inherit,
    /// Only PATH, HOME, USER, LANG, LC_*, TERM, TMPDIR, TZ and what the definition and the caller set.
    Clean,
}

/// What a permission level means for a tool.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PermissionLevel {
    /// Arguments that are added; `{home}` is HOME as the tool sees it.
    pub args: Vec<String>,
    /// Environment variables that are set.
    pub env: BTreeMap<String, String>,
    /// JSON objects that are put over those which the variables hold, key by key.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub json_env: BTreeMap<String, String>,
    /// Values for the driver (Codex: `sandbox`, `approval`; ACP: `mode`).
    pub settings: BTreeMap<String, String>,
    /// Where the tool and all that it starts may write: `{directory}`, `{repository}` (the git directory of the
    /// directory's repository), `{home}`, `{tmp}`, or paths below these. The operating system holds it to that, and
    /// where it can't, the level is refused. Left out: wherever the user may.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub writable: Option<Vec<String>>,
    /// What the level really prevents, by experiment, for a person: `writes`, `writes outside the directory`, `shell`.
    pub prevents: Vec<String>,
    /// Why this tool can't hold the level; it is then refused. Empty: it holds. `full` is never refused.
    pub refused: String,
    /// What on a machine takes the level from the tool's hands, so that it is refused there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refused_where: Vec<RefusedWhere>,
}

/// Files before which a permission level can't be held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefusedWhere {
    /// A directory; nothing is refused where it is missing.
    pub directory: PathBuf,
    /// How the names of the files end.
    pub suffix: String,
    /// Why the level can't be held then.
    pub why: String,
}

impl RefusedWhere {
    /// The first such file.
    pub fn found(&self) -> Option<PathBuf> {
        let entries = std::fs::read_dir(&self.directory).ok()?;
        let files = entries.filter_map(|entry| Some(entry.ok()?.path()));
        files.filter(|file| file.to_string_lossy().ends_with(&self.suffix)).min()
    }
}

/// Whether instances may share a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sharing {
    /// One conversation a process.
    #[default]
    One,
    /// Several conversations, truly side by side. They share only where what a turn leaves running can be told apart.
    Many,
}

/// Words that `send` takes as the tool's own commands. Where both lists are empty readyroom gives its own: `/add`,
/// `/drop`, `/ask`, `/code`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Commands {
    /// Commands that change what the tool looks at (`/add`).
    pub context: Vec<String>,
    /// Commands that carry a prompt (`/ask`).
    pub prompt: Vec<String>,
}

impl Commands {
    /// Whether the tool carries out context commands itself.
    pub fn native(&self) -> bool {
        !self.context.is_empty()
    }
}

/// A rule that classifies a failure by its text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErrorRule {
    /// A regular expression over the failure's text (message and evidence).
    pub pattern: String,
    /// The kind that it means: `auth`, `rate_limited`, `usage_window`, `unknown_model`, `model_error`,
    /// `bad_input`, `permission_denied`, `crashed`.
    pub kind: RuleKind,
}

/// The kinds that a rule can give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleKind {
    /// The credentials were refused.
    Auth,
    /// Slow down. A first group that is a number is the seconds to wait.
    RateLimited,
    /// A window or quota is used up.
    UsageWindow,
    /// No such model.
    UnknownModel,
    /// The model's side failed.
    ModelError,
    /// The input can't be given to the tool.
    BadInput,
    /// A permission was missing.
    PermissionDenied,
    /// The prompt was not run.
    NotRun,
}

/// Times and limits of a tool. Times are in seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// The longest time to become ready.
    pub ready_seconds: u64,
    /// The longest time for a reset to be acknowledged.
    pub reset_seconds: u64,
    /// The longest time for a cancelled turn to end before the process is ended.
    pub cancel_seconds: u64,
    /// The shortest time between two interrupts: some tools take two that follow closely for a wish to end.
    pub interrupt_gap_seconds: u64,
    /// How long to wait after asking the tool to stop, and again after TERM, before the next rung.
    pub stop_seconds: u64,
    /// The most bytes that a turn may print.
    pub output_bytes: u64,
    /// The most bytes of a prompt.
    pub prompt_bytes: u64,
    /// Recycle an instance after this many turns; 0: never. Jitter of up to a fifth is taken off.
    pub recycle_turns: u64,
    /// Recycle an instance above this resident memory of its tree, in MiB; 0: never.
    pub recycle_rss_mib: u64,
    /// Recycle an instance after this age; 0: never.
    pub recycle_seconds: u64,
    /// Turns that may still be handed to a process of many conversations before it is recycled; 0: no limit.
    pub recycle_sessions: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            ready_seconds: 60,
            reset_seconds: 10,
            cancel_seconds: 5,
            interrupt_gap_seconds: 0,
            stop_seconds: 2,
            output_bytes: 64 << 20,
            prompt_bytes: 4 << 20,
            recycle_turns: 0,
            recycle_rss_mib: 0,
            recycle_seconds: 0,
            recycle_sessions: 0,
        }
    }
}

/// How a prompt is put so that a REPL takes it as one input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplFrame {
    /// As it is, with a newline.
    #[default]
    Raw,
    /// aider's block `{tag ... tag}`, with a leading newline that defuses commands.
    AiderBlock,
    /// One line of python that executes the text.
    PythonExec,
    /// One line of shell that evaluates the text with stdin from /dev/null.
    BashEval,
    /// The line `wrap`, in which `{base64}` is the text, encoded.
    Encoded,
}

/// Settings of the `repl` driver. In `fence` and `marker`, `{a}` and `{b}` are the two halves of a fresh nonce; in
/// prompts nothing is replaced. All patterns are regular expressions over bytes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReplSettings {
    /// How the prompt is put.
    pub frame: ReplFrame,
    /// The line of `frame = "encoded"`.
    pub wrap: String,
    /// Lines written once, before the first fence.
    pub start: String,
    /// Pattern that says, in what the tool prints while it starts, that it will never be ready.
    pub hopeless: String,
    /// Pattern whose first group is the version, in what the tool prints while it starts.
    pub version: String,
    /// Written between the prompt and the fence, to close what the prompt may have left open.
    pub before_fence: String,
    /// The line that makes the REPL print the marker. Must not contain the marker itself.
    pub fence: String,
    /// What the REPL prints for the fence; `{status}` stands for a number that it adds (bash's `$?`).
    pub marker: String,
    /// The command that clears the conversation; empty: there is none, and fresh means a new process.
    pub reset: String,
    /// What the reset command prints, literally, as a line.
    pub reset_ack: String,
    /// Pattern for the prompt that the tool prints before each line that it reads, so that an answer is known to begin
    /// behind as many of them as lines were written. Its first group, where it has one, names the mode. Empty: the
    /// tool prints none.
    pub prompt: String,
    /// Pattern for what stands before an answer and is not part of it.
    pub head: String,
    /// Pattern for what stands behind an answer and is not part of it; where there is a `ran`, behind one that it
    /// does not end.
    pub tail: String,
    /// Pattern for lines that the tool prints in front of an answer when it takes up a file by itself; the first group
    /// is the file.
    pub aside: String,
    /// Pattern that must match a turn's output for the turn to have run; its last match ends the answer. Groups named
    /// `input`, `output` and `cost` are read as usage; an `output` of 0 is no answer. Empty: every fenced turn has run.
    pub ran: String,
    /// Pattern for the beginning of an error that the tool prints. Its last match in a turn that has not run, or
    /// behind `ran`, begins the text by which the failure is classified.
    pub error: String,
    /// Pattern for a line that says that the tool starts its answer again. It counts only where `error` matches one of
    /// the two lines before it; the answer is what follows the last one.
    pub retry: String,
    /// How many retries the tool may announce in a turn; one more, and the turn is interrupted and failed.
    pub retries_shown: Option<u32>,
    /// Pattern for a line that names a changed file in its first group.
    pub changed: String,
    /// Whether SIGINT cancels a turn and leaves the REPL usable.
    pub interrupt: bool,
    /// Bytes that the tool prints after its fence and that belong to nothing (its next prompt).
    pub after_fence: String,
    /// The longest run of letters, of spaces or of signs, in bytes, that a prompt may hold; 0: any.
    pub longest_run: usize,
    /// What a prompt must not hold: pattern to the reason for a person.
    pub refuse: BTreeMap<String, String>,
    /// The tool's modes, for prompts that ask for one.
    pub modes: ReplModes,
    /// How context commands are written.
    pub context: ReplContext,
}

/// The modes of a REPL that has any: `prompt`'s first group tells which one is on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReplModes {
    /// The line that switches; `{mode}` is the mode's name. Empty: there are no modes.
    pub switch: String,
    /// The mode whose prompt carries no name.
    pub unnamed: String,
    /// The mode in which nothing is edited.
    pub ask: String,
    /// The mode in which edits are wanted.
    pub code: String,
    /// The mode in which one model plans and another edits.
    pub architect: String,
}

/// How a REPL's context commands are written; `{path}` is the file's absolute path.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReplContext {
    /// A file to work on.
    pub add: String,
    /// A file to take out again.
    pub drop: String,
    /// A file to read only.
    pub read_only: String,
    /// Pattern for an answer that says that it was done; any other answer is a failure.
    pub done: String,
    /// Characters that a path can't hold in these commands; line ends can never stand in one.
    pub forbidden: String,
}

/// Settings of the `oneshot` driver.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OneshotSettings {
    /// Where the prompt goes: `stdin` or `arg` (appended to the command line after `--`, or where `{prompt}` stands).
    pub prompt: PromptTo,
    /// Arguments for each file; `{}` is its path. Empty: files are named in a block before the prompt.
    pub file_args: Vec<String>,
}

/// Where a one-shot command gets its prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PromptTo {
    /// On stdin, which is then closed.
    #[default]
    Stdin,
    /// As an argument, where `{prompt}` stands in argv.
    Arg,
}

impl Definition {
    /// Classifies a failure's text by the definition's rules; `None` where no rule matches.
    pub fn classify(&self, text: &str) -> Option<FailureKind> {
        self.errors.iter().find_map(|rule| {
            let pattern = regex::Regex::new(&rule.pattern).ok()?;
            let found = pattern.captures(text)?;
            Some(match rule.kind {
                RuleKind::Auth => FailureKind::Auth,
                RuleKind::RateLimited => FailureKind::RateLimited {
                    retry_after: found
                        .get(1)
                        .and_then(|seconds| seconds.as_str().parse::<f64>().ok())
                        .and_then(|seconds| std::time::Duration::try_from_secs_f64(seconds).ok()),
                },
                RuleKind::UsageWindow => FailureKind::UsageWindow { resets_at: None },
                RuleKind::UnknownModel => FailureKind::UnknownModel,
                RuleKind::ModelError => FailureKind::ModelError,
                RuleKind::BadInput => FailureKind::BadInput,
                RuleKind::PermissionDenied => FailureKind::PermissionDenied,
                RuleKind::NotRun => FailureKind::NotRun,
            })
        })
    }

    /// Tells whether a variable's value is a secret, by its name.
    pub fn secrecy(&self) -> impl Fn(&str) -> bool {
        let patterns: Vec<_> = self.secret_env.iter().filter_map(|pattern| regex::Regex::new(pattern).ok()).collect();
        move |variable| patterns.iter().any(|pattern| pattern.is_match(variable))
    }

    /// What a permission level means for this tool. A level that the definition says nothing about is refused where the
    /// driver has no means to hold it (a REPL or a command does what it is told); an ACP agent is held to it as far as it
    /// asks.
    pub fn level(&self, permissions: Permissions) -> PermissionLevel {
        if let Some(level) = self.permissions.get(&permissions) {
            return level.clone();
        }
        let mut level = PermissionLevel::default();
        match (permissions, self.driver) {
            (Permissions::Full, _) => {}
            (_, DriverKind::Repl | DriverKind::Oneshot) => {
                level.refused = "its definition does not say that it holds this level".into();
            }
            (Permissions::Read, _) => level.prevents = vec!["writes and shell, where it asks before them".into()],
            (Permissions::Edit, _) => {
                level.prevents = vec!["writes outside the directory and shell, where it asks before them".into()];
            }
        }
        level
    }

    /// Whether the tool tells nothing of what a turn does besides its text: a command, or a REPL without a pattern for
    /// changed files.
    pub fn is_blind(&self) -> bool {
        match self.driver {
            DriverKind::Repl => self.repl.as_ref().is_none_or(|repl| repl.changed.is_empty()),
            DriverKind::Oneshot => true,
            DriverKind::Claude | DriverKind::Codex | DriverKind::Acp => false,
        }
    }

    /// Whether it tells what a turn cost: in tokens, in dollars.
    pub fn reports(&self) -> (bool, bool) {
        match self.driver {
            DriverKind::Repl => {
                let told =
                    |name: &str| self.repl.as_ref().is_some_and(|repl| repl.ran.contains(&format!("(?P<{name}>")));
                (told("input"), told("cost"))
            }
            DriverKind::Oneshot => (false, false),
            DriverKind::Claude => (true, true),
            DriverKind::Codex | DriverKind::Acp => (true, false),
        }
    }

    /// The path in which the definition's file text for `home` stands (`{home}` replaced).
    pub fn files_in(&self, home: &std::path::Path) -> Vec<(PathBuf, &str)> {
        self.files
            .iter()
            .map(|(path, text)| (PathBuf::from(path.replace("{home}", &home.to_string_lossy())), text.as_str()))
            .collect()
    }
}
