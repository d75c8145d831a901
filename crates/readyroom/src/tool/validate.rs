//! What a whole definition must hold beyond its types: that patterns compile, that a fence can't be taken for its
//! marker, that each driver has what it needs.

use std::collections::BTreeSet;

use regex::Regex;

use super::document::Step;
use super::settings;
use super::{Definition, DriverKind, PromptTo, ReplFrame, Sharing, Transport};
use crate::job::Permissions;

/// Something that does not hold, and where in the definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The way to the value.
    pub path: Vec<Step>,
    /// What is wrong, as a fragment.
    pub message: String,
    /// What mends it, as a fragment.
    pub mend: String,
}

/// Collects problems; each check adds what it finds, so that a person sees all of them at once.
#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, path: &[Step], message: impl Into<String>, mend: impl Into<String>) {
        self.0.push(Problem { path: path.to_vec(), message: message.into(), mend: mend.into() });
    }

    fn pattern(&mut self, path: &[Step], pattern: &str) -> Option<Regex> {
        Regex::new(pattern).map_err(|error| self.no_pattern(path, pattern, &error)).ok()
    }

    /// As [`Problems::pattern`] for one that may match bytes which are not UTF-8. Returns how many groups it has.
    fn pattern_over_bytes(&mut self, path: &[Step], pattern: &str) -> Option<usize> {
        let regex = regex::bytes::Regex::new(pattern).map_err(|error| self.no_pattern(path, pattern, &error)).ok()?;
        Some(regex.captures_len() - 1)
    }

    fn no_pattern(&mut self, path: &[Step], pattern: &str, error: &regex::Error) {
        self.add(path, settings::no_pattern(pattern, error), "correct it");
    }
}

/// Everything in `definition` that does not hold; empty where it can be used.
pub fn problems(definition: &Definition) -> Vec<Problem> {
    let mut found = Problems::default();
    name_and_program(definition, &mut found);
    environment(definition, &mut found);
    patterns(definition, &mut found);
    commands(definition, &mut found);
    driver_settings(definition, &mut found);
    levels(definition, &mut found);
    limits(definition, &mut found);
    driver(definition, &mut found);
    found.0
}

fn name_and_program(definition: &Definition, found: &mut Problems) {
    let id = &definition.id;
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !id.starts_with(|c: char| c.is_ascii_alphanumeric()) || !id.chars().all(fine) {
        found.add(
            &["id".into()],
            format!("{id:?} can't be a tool's name"),
            "use letters, digits, `-`, `_` and `.`, and begin with a letter or digit",
        );
    }
    match definition.argv.first() {
        None => found.add(&["argv".into()], "argv is empty", "give the program as its first word"),
        Some(program) if program.is_empty() => {
            found.add(&["argv".into(), 0.into()], "the program's name is empty", "give a name or a path");
        }
        Some(_) => {}
    }
    if let Some(at) = definition.argv.iter().position(|word| word.contains('\0')) {
        found.add(&["argv".into(), at.into()], "a word holds a NUL", "take it out: no program can be given one");
    }
    if definition.zygote.as_ref().is_some_and(|zygote| zygote.warm.contains('\0')) {
        found.add(
            &["zygote".into(), "warm".into()],
            "the text holds a NUL",
            "take it out: no program can be given one",
        );
    }
    for (at, module) in definition.zygote.iter().flat_map(|zygote| &zygote.imports).enumerate() {
        let named = |part: &str| {
            part.chars().all(|sign| sign.is_alphanumeric() || sign == '_')
                && !part.starts_with(|sign: char| sign.is_numeric())
        };
        if module.split('.').any(|part| part.is_empty() || !named(part)) {
            let path = ["zygote".into(), "imports".into(), at.into()];
            found.add(&path, format!("{module:?} can't be a module's name"), "name a module as `import` would");
        }
    }
    for (at, command) in definition.find.commands.iter().enumerate() {
        if command.first().is_none_or(String::is_empty) {
            found.add(&["find".into(), "commands".into(), at.into()], "the command has no program", "give one");
        }
    }
}

fn environment(definition: &Definition, found: &mut Problems) {
    for (at, when) in definition.when.iter().enumerate() {
        if when.fails.first().is_none_or(String::is_empty) {
            found.add(&["when".into(), at.into(), "fails".into()], "the command has no program", "give one");
        }
    }
    let mut check = |path: &[Step], name: &str, value: &str| {
        if name.is_empty() || name.contains(['=', '\0']) {
            found.add(path, format!("{name:?} can't be a variable's name"), "correct it");
        }
        if value.contains('\0') {
            found.add(path, "the value holds a NUL", "take it out");
        }
    };
    for (name, value) in &definition.env {
        check(&["env".into(), name.as_str().into()], name, value);
    }
    for (at, name) in definition.unset_env.iter().enumerate() {
        check(&["unset_env".into(), at.into()], name, "");
    }
    for (name, front) in &definition.prepend_env {
        check(&["prepend_env".into(), name.as_str().into()], name, &format!("{}{}", front.value, front.separator));
    }
    for (name, value) in &definition.model.env {
        check(&["model".into(), "env".into(), name.as_str().into()], name, value);
    }
    for (level, meaning) in &definition.permissions {
        let level = level.to_string();
        for (table, variables) in [("env", &meaning.env), ("json_env", &meaning.json_env)] {
            for (name, value) in variables {
                check(&["permissions".into(), level.as_str().into(), table.into(), name.as_str().into()], name, value);
            }
        }
    }
    for (level, meaning) in &definition.permissions {
        for (name, value) in &meaning.json_env {
            if !serde_json::from_str::<serde_json::Value>(value).is_ok_and(|value| value.is_object()) {
                let level = level.to_string();
                found.add(
                    &["permissions".into(), level.as_str().into(), "json_env".into(), name.as_str().into()],
                    "it is no JSON object",
                    "correct it",
                );
            }
        }
    }
    for path in definition.files.keys() {
        let below_home = path.strip_prefix("{home}/").is_some_and(|rest| !rest.split('/').any(|part| part == ".."));
        if !below_home {
            found.add(
                &["files".into(), path.as_str().into()],
                format!("`{path}` is not below HOME"),
                "begin it with `{home}/`, without `..`",
            );
        }
    }
}

fn patterns(definition: &Definition, found: &mut Problems) {
    for (at, pattern) in definition.secret_env.iter().enumerate() {
        found.pattern(&["secret_env".into(), at.into()], pattern);
    }
    for (at, rule) in definition.errors.iter().enumerate() {
        found.pattern(&["errors".into(), at.into(), "pattern".into()], &rule.pattern);
    }
    let find = &definition.find;
    let path: [Step; 2] = ["find".into(), "version_pattern".into()];
    if !find.version_pattern.is_empty()
        && let Some(regex) = found.pattern(&path, &find.version_pattern)
        && regex.captures_len() < 2
    {
        found.add(&path, "version_pattern has no group", "put parentheses around the version");
    }
    if let Some(repl) = &definition.repl {
        let all = [
            ("hopeless", &repl.hopeless),
            ("version", &repl.version),
            ("prompt", &repl.prompt),
            ("head", &repl.head),
            ("tail", &repl.tail),
            ("aside", &repl.aside),
            ("ran", &repl.ran),
            ("error", &repl.error),
            ("retry", &repl.retry),
            ("changed", &repl.changed),
        ];
        for (key, pattern) in all {
            let path: [Step; 2] = ["repl".into(), key.into()];
            let groups = found.pattern_over_bytes(&path, pattern);
            if matches!(key, "version" | "aside" | "changed") && !pattern.is_empty() && groups == Some(0) {
                found.add(&path, format!("{key} has no group"), "put parentheses around what it is about");
            }
        }
        found.pattern_over_bytes(&["repl".into(), "context".into(), "done".into()], &repl.context.done);
        for pattern in repl.refuse.keys() {
            found.pattern_over_bytes(&["repl".into(), "refuse".into(), pattern.as_str().into()], pattern);
        }
    }
}

fn commands(definition: &Definition, found: &mut Problems) {
    if definition.driver != DriverKind::Repl && !definition.commands.context.is_empty() {
        let message = format!("the driver `{}` has no context commands", definition.driver.word());
        found.add(&["commands".into(), "context".into()], message, "leave it out: a job's files go with its prompt");
    }
    let mut seen = BTreeSet::new();
    let lists = [("context", &definition.commands.context), ("prompt", &definition.commands.prompt)];
    for (list, words) in lists {
        for (at, word) in words.iter().enumerate() {
            let path: [Step; 3] = ["commands".into(), list.into(), at.into()];
            if word.is_empty() || word.contains(char::is_whitespace) {
                found.add(&path, format!("{word:?} is not one word"), "write a command such as `/add`");
            } else if !seen.insert(word) {
                found.add(&path, format!("`{word}` is listed twice"), "leave it in one place");
            }
        }
    }
}

fn driver_settings(definition: &Definition, found: &mut Problems) {
    let levels = definition.permissions.iter().map(|(level, meaning)| {
        (vec!["permissions".into(), level.to_string().as_str().into(), "settings".into()], &meaning.settings)
    });
    for (path, values) in [(vec!["settings".into()], &definition.settings)].into_iter().chain(levels) {
        for (name, value) in values {
            if let Some((message, mend)) = settings::objection(definition.driver, name, value) {
                let path: Vec<Step> = path.iter().cloned().chain([name.as_str().into()]).collect();
                found.add(&path, message, mend);
            }
        }
    }
}

fn levels(definition: &Definition, found: &mut Problems) {
    let model = &definition.model;
    if !model.args.is_empty() && !model.args.iter().any(|arg| arg.contains("{}")) {
        found.add(&["model".into(), "args".into()], "no argument holds `{}`", "put it where the model's name goes");
    }
    for (name, value) in &model.env {
        if !value.contains("{}") {
            found.add(
                &["model".into(), "env".into(), name.as_str().into()],
                format!("`{name}` does not hold `{{}}`"),
                "put it where the model's name goes",
            );
        }
    }
    for (level, meaning) in &definition.permissions {
        let path: [Step; 3] = ["permissions".into(), level.to_string().as_str().into(), "refused".into()];
        for (at, place) in meaning.writable.iter().flatten().enumerate() {
            let known = ["{directory}", "{repository}", "{home}", "{tmp}"]
                .iter()
                .any(|root| place.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')));
            if !(known || place.starts_with('/')) || place.split('/').any(|part| part == "..") {
                let path = ["permissions".into(), level.to_string().as_str().into(), "writable".into(), at.into()];
                let mend = "begin it with `{directory}`, `{repository}`, `{home}`, `{tmp}` or `/`, without `..`";
                found.add(&path, format!("`{place}` is no place"), mend);
            }
        }
        if meaning.refused.is_empty() {
            continue;
        }
        if *level == Permissions::Full {
            found.add(&path, "`full` can't be refused", "say in `prevents` what the tool does not do even then");
        }
        if meaning.refused.trim().is_empty() {
            found.add(&path, "the reason is blank", "say why the tool can't hold the level, or take it out");
        }
        let used = meaning.writable.is_some();
        if used
            || !(meaning.args.is_empty()
                && meaning.env.is_empty()
                && meaning.json_env.is_empty()
                && meaning.settings.is_empty())
        {
            found.add(
                &path,
                format!("`{level}` is refused and has args, env or settings that would never be used"),
                "take out one or the other (`refused = \"\"` allows what a lower layer refuses)",
            );
        }
    }
}

fn limits(definition: &Definition, found: &mut Problems) {
    let limits = &definition.limits;
    let needed = [
        ("ready_seconds", limits.ready_seconds),
        ("reset_seconds", limits.reset_seconds),
        ("output_bytes", limits.output_bytes),
        ("prompt_bytes", limits.prompt_bytes),
    ];
    for (key, value) in needed {
        if value == 0 {
            found.add(&["limits".into(), key.into()], format!("{key} is 0, so no turn could run"), "give a number");
        }
    }
}

fn driver(definition: &Definition, found: &mut Problems) {
    let kind = definition.driver;
    let word = kind.word();
    let protocol = matches!(kind, DriverKind::Claude | DriverKind::Codex | DriverKind::Acp);
    if protocol && definition.transport != Transport::Pipe {
        found.add(
            &["transport".into()],
            format!("driver `{word}` reads messages from stdout, which nothing else may write to"),
            "use `pipe`",
        );
    }
    if definition.sharing == Sharing::Many && !matches!(kind, DriverKind::Codex | DriverKind::Acp) {
        found.add(
            &["sharing".into()],
            format!("driver `{word}` holds one conversation a process"),
            "use `one`, or leave it out",
        );
    }
    if definition.model.in_protocol && !protocol {
        found.add(
            &["model".into(), "in_protocol".into()],
            format!("driver `{word}` has no protocol to name a model in"),
            "use `args` or `env`",
        );
    }
    match (kind, &definition.repl) {
        (DriverKind::Repl, Some(_)) => repl(definition, found),
        (DriverKind::Repl, None) => {
            found.add(&["driver".into()], "driver `repl` needs a [repl] table", "add one with `fence` and `marker`");
        }
        (_, Some(_)) => {
            found.add(&["repl".into()], format!("[repl] means nothing to driver `{word}`"), "take it out");
        }
        (_, None) => {}
    }
    match (kind, &definition.oneshot) {
        (DriverKind::Oneshot, Some(settings)) => {
            let placed = definition.argv.iter().any(|word| word.contains("{prompt}"));
            if settings.prompt == PromptTo::Stdin && placed {
                found.add(
                    &["oneshot".into(), "prompt".into()],
                    "argv holds `{prompt}` but the prompt goes to stdin",
                    "use `prompt = \"arg\"`, or take it out of argv",
                );
            }
            if !settings.file_args.is_empty() && !settings.file_args.iter().any(|arg| arg.contains("{}")) {
                found.add(
                    &["oneshot".into(), "file_args".into()],
                    "no argument holds `{}`",
                    "put it where the path goes",
                );
            }
        }
        (DriverKind::Oneshot, None) => {
            found.add(
                &["driver".into()],
                "driver `oneshot` needs a [oneshot] table",
                "add one that says where the prompt goes: `prompt = \"stdin\"` or `prompt = \"arg\"`",
            );
        }
        (_, Some(_)) => {
            found.add(&["oneshot".into()], format!("[oneshot] means nothing to driver `{word}`"), "take it out");
        }
        (_, None) => {}
    }
}

fn repl(definition: &Definition, found: &mut Problems) {
    let Some(repl) = &definition.repl else { return };
    if (repl.frame == ReplFrame::Encoded) != repl.wrap.contains("{base64}") {
        let mend = "give both, or none: with this frame the prompt goes where `{base64}` stands in `wrap`";
        found.add(
            &["repl".into(), "wrap".into()],
            "`frame = \"encoded\"` and `wrap` with `{base64}` belong together",
            mend,
        );
    }
    let texts = [("fence", &repl.fence), ("marker", &repl.marker)];
    let mut whole = true;
    for (key, text) in texts {
        let path: [Step; 2] = ["repl".into(), key.into()];
        if text.is_empty() {
            whole = false;
            found.add(&path, format!("`{key}` is empty"), "a turn of a REPL ends by its fence's marker: give both");
        } else if !(text.contains("{a}") && text.contains("{b}")) {
            whole = false;
            found.add(&path, format!("`{key}` lacks `{{a}}` or `{{b}}`"), "use both halves of the nonce");
        }
    }
    // An input that is echoed must not look like the marker, or the echo would end the turn.
    let marker = repl.marker.split("{status}").max_by_key(|part| part.len()).unwrap_or_default().trim();
    if whole && repl.fence.contains(marker) {
        found.add(
            &["repl".into(), "fence".into()],
            "the fence contains its own marker, so that an echo of it would end the turn",
            "let the REPL join the halves, as in `print(\"{a}\" + \"{b}\")` with the marker `{a}{b}`",
        );
    }
    match (repl.reset.is_empty(), repl.reset_ack.is_empty()) {
        (false, true) => found.add(
            &["repl".into(), "reset".into()],
            "`reset` has no `reset_ack`, so that no reset could be proven",
            "give the line that the command prints, or leave `reset` out: a new process is always fresh",
        ),
        (true, false) => {
            found.add(&["repl".into(), "reset_ack".into()], "`reset_ack` has no `reset`", "give the command");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Vec<String> {
        let definition: Definition = toml::from_str(text).unwrap();
        problems(&definition)
            .into_iter()
            .map(|problem| {
                let path: Vec<_> = problem
                    .path
                    .iter()
                    .map(|step| match step {
                        Step::Key(key) => key.clone(),
                        Step::Index(index) => index.to_string(),
                    })
                    .collect();
                assert!(!problem.mend.is_empty());
                format!("{}: {}", path.join("."), problem.message)
            })
            .collect()
    }

    #[track_caller]
    fn finds(text: &str, what: &str) {
        let found = check(text);
        assert!(found.len() == 1 && found[0].contains(what), "{what:?} is not all of {found:#?}");
    }

    const ACP: &str = "id = \"t\"\ndriver = \"acp\"\nargv = [\"t\"]\n";
    const REPL: &str = "id = \"t\"\ndriver = \"repl\"\nargv = [\"t\"]\n[repl]\n";
    const FENCE: &str = "fence = 'print(\"{a}\"+\"{b}\")'\nmarker = \"{a}{b}\"\n";

    #[test]
    fn what_is_built_in_holds() {
        for (name, text) in super::super::BUILTIN {
            assert_eq!(check(text), [""; 0], "{name}");
        }
    }

    #[test]
    fn the_least_definitions_hold() {
        assert_eq!(check(ACP), [""; 0]);
        assert_eq!(check(&format!("{REPL}{FENCE}")), [""; 0]);
        assert_eq!(check("id = \"t\"\ndriver = \"oneshot\"\nargv = [\"t\"]\n[oneshot]\n"), [""; 0]);
    }

    #[test]
    fn a_bad_name_or_program_is_found() {
        finds(&ACP.replace("\"t\"\nd", "\"../t\"\nd"), "id: \"../t\" can't be a tool's name");
        finds(&ACP.replace("[\"t\"]", "[]"), "argv: argv is empty");
        finds(&ACP.replace("[\"t\"]", "[\"\"]"), "argv.0: the program's name is empty");
        finds(&ACP.replace("[\"t\"]", "[\"t\", \"a\\u0000\"]"), "argv.1: a word holds a NUL");
        finds(&format!("{ACP}[find]\ncommands = [[]]\n"), "find.commands.0: the command has no program");
    }

    #[test]
    fn a_bad_pattern_is_found_where_it_stands() {
        finds(&format!("{ACP}[[errors]]\npattern = '('\nkind = \"auth\"\n"), "errors.0.pattern: `(` is no regular");
        finds(&format!("{ACP}[find]\nversion_pattern = 'v'\n"), "find.version_pattern: version_pattern has no group");
        finds(&format!("{REPL}{FENCE}ran = '['\n"), "repl.ran: `[` is no regular expression: unclosed character class");
        finds(&format!("{REPL}{FENCE}version = 'v'\n"), "repl.version: version has no group");
        finds(&format!("{REPL}{FENCE}[repl.refuse]\n'(' = \"why\"\n"), "repl.refuse.(: `(` is no regular");
        assert_eq!(check(&format!("{REPL}{FENCE}head = '(?-u:\\xff)'\n")), [""; 0]);
        finds(&format!("{ACP}secret_env = ['*']\n"), "secret_env.0: `*` is no regular expression");
    }

    #[test]
    fn a_fence_that_could_be_taken_for_its_marker_is_found() {
        finds(&format!("{REPL}fence = 'echo {{a}}{{b}}'\nmarker = \"{{a}}{{b}}\"\n"), "contains its own marker");
        finds(
            &format!("{REPL}fence = 'echo {{a}}{{b}}'\nmarker = \"\\n{{a}}{{b}} {{status}}\\n\"\n"),
            "contains its own marker",
        );
        finds(&format!("{REPL}fence = '{{a}}'\nmarker = \"{{a}} {{b}}\"\n"), "repl.fence: `fence` lacks");
        finds(&format!("{REPL}marker = \"{{a}} {{b}}\"\n"), "repl.fence: `fence` is empty");
        finds(&format!("{REPL}{FENCE}reset = \"clear\"\n"), "repl.reset: `reset` has no `reset_ack`");
        finds(&format!("{REPL}{FENCE}reset_ack = \"done\"\n"), "repl.reset_ack: `reset_ack` has no `reset`");
    }

    #[test]
    fn what_a_driver_can_not_do_is_found() {
        finds("id = \"t\"\ndriver = \"repl\"\nargv = [\"t\"]\n", "driver `repl` needs a [repl] table");
        finds("id = \"t\"\ndriver = \"oneshot\"\nargv = [\"t\"]\n", "driver `oneshot` needs a [oneshot] table");
        finds(&format!("{ACP}[oneshot]\n"), "[oneshot] means nothing to driver `acp`");
        finds(&format!("{ACP}[repl]\n{FENCE}"), "[repl] means nothing to driver `acp`");
        finds(&format!("{ACP}transport = \"pty\"\n"), "reads messages from stdout");
        finds(&format!("sharing = \"many\"\n{REPL}{FENCE}"), "holds one conversation a process");
        finds(&format!("model = {{ in_protocol = true }}\n{REPL}{FENCE}"), "has no protocol to name a model in");
        finds(
            "id = \"t\"\ndriver = \"oneshot\"\nargv = [\"t\", \"{prompt}\"]\n[oneshot]\nprompt = \"stdin\"\n",
            "the prompt goes to stdin",
        );
    }

    #[test]
    fn levels_commands_environment_and_limits_are_checked() {
        finds(
            &format!("{ACP}[permissions.read]\nrefused = \"no\"\nargs = [\"-y\"]\n"),
            "`read` is refused and has args",
        );
        finds(&format!("{ACP}[permissions.read]\nrefused = \"  \"\n"), "the reason is blank");
        finds(&format!("{ACP}[permissions.full]\nrefused = \"no\"\n"), "`full` can't be refused");
        finds(&format!("{ACP}[commands]\nprompt = [\"/a\", \"/b\", \"/a\"]\n"), "commands.prompt.2: `/a` is listed");
        finds(&format!("{ACP}[commands]\nprompt = [\"/a b\"]\n"), "is not one word");
        finds(&format!("{ACP}[commands]\ncontext = [\"/a\"]\n"), "the driver `acp` has no context commands");
        finds(&format!("{ACP}[env]\n\"A=B\" = \"1\"\n"), "can't be a variable's name");
        finds(&format!("{ACP}[files]\n\"{{home}}/../x\" = \"1\"\n"), "is not below HOME");
        finds(&format!("{ACP}[settings]\nguard_befor = \"^/\"\n"), "the driver `acp` has no setting `guard_befor`");
        finds(&format!("{ACP}[permissions.read.settings]\ndenied = \"(\"\n"), "`(` is no regular expression");
        finds(&format!("{ACP}[settings]\nunasked = \"yes\"\n"), "`yes` is no value of `unasked`");
        finds(&format!("{ACP}[model]\nargs = [\"--model\"]\n"), "no argument holds `{}`");
        finds(&format!("{ACP}[limits]\nready_seconds = 0\n"), "ready_seconds is 0");
    }
}
