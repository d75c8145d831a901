//! `readyroom tools show`: a tool's definition in force, as TOML that can be used as a definition again, under comments
//! that say where it comes from and what it overrides of the tool's own configuration.

use std::io::Write;

use anyhow::Context as _;
use readyroom::Permissions;
use readyroom::tool::{Definition, Entry, Registry, Secrets};

use super::table::printable;
use crate::exit::ExitStatus;

/// Stands for the value of a variable that holds a secret.
const NOT_SHOWN: &str = "(not shown)";

/// Prints the definition.
pub fn run(registry: &Registry, tool: &str, out: &mut dyn Write) -> anyhow::Result<ExitStatus> {
    let entry = registry.require(tool).map_err(|failure| anyhow::anyhow!(failure.message))?;
    for line in comments(entry) {
        writeln!(out, "{}", format!("# {}", printable(&line)).trim_end())?;
    }
    writeln!(out)?;
    let (definition, hidden) = without_secrets(&entry.definition);
    if hidden {
        writeln!(out, "# Values of variables that hold secrets are not shown.")?;
    }
    write!(out, "{}", text(&definition)?)?;
    out.flush()?;
    Ok(ExitStatus::Success)
}

fn comments(entry: &Entry) -> Vec<String> {
    let definition = &entry.definition;
    let mut lines = vec![format!("The definition of `{}` in force.", definition.id), String::new()];
    if let Some(known) = &entry.other_name_of {
        lines.push(format!("Another name of `{known}`, by the JSON registry."));
    }
    lines.push("From these layers, each over those before it:".into());
    for (source, table) in &entry.layers {
        lines.push(match source.file {
            Some(_) => format!("  {source}: {}", keys(table).join(", ")),
            None => format!("  {source}"),
        });
    }
    lines.push(match readyroom::tool::find(definition) {
        Ok(found) => format!("Program: {}", found.program.display()),
        Err(failure) => format!("Program: {}", failure.message),
    });
    lines.push(String::new());
    lines.push("Over the tool's own configuration and the caller's environment stand:".into());
    let before = lines.len();
    let arguments = |words: &[String]| words.join(" ");
    if definition.argv.len() > 1 {
        lines.push(format!("  arguments: {}", arguments(&definition.argv[1..])));
    }
    for (name, value) in &definition.env {
        lines.push(format!("  environment: {name}={}", self::value(definition, name, value)));
    }
    for name in &definition.unset_env {
        lines.push(format!("  environment: {name} is taken away"));
    }
    for (name, front) in definition.prepend_env.iter().filter(|(_, front)| !front.value.is_empty()) {
        lines.push(format!("  environment: {name} begins with {}", front.value));
    }
    for case in &definition.when {
        let env = case.env.iter().map(|(name, value)| format!("{name}={value}"));
        let added: Vec<String> = case.args.iter().cloned().chain(env).collect();
        lines.push(format!("  where `{}` fails: {}", case.fails.join(" "), added.join(" ")));
    }
    let settings = |settings: &std::collections::BTreeMap<String, String>| {
        settings.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(", ")
    };
    if !definition.settings.is_empty() {
        lines.push(format!("  by the driver: {}", settings(&definition.settings)));
    }
    for path in definition.files.keys() {
        lines.push(format!("  file: {path}"));
    }
    for permissions in [Permissions::Read, Permissions::Edit, Permissions::Full] {
        let level = definition.level(permissions);
        if !level.settings.is_empty() {
            lines.push(format!("  with permissions {permissions}, by the driver: {}", settings(&level.settings)));
        }
        if !level.args.is_empty() {
            lines.push(format!("  with permissions {permissions}, arguments: {}", arguments(&level.args)));
        }
        for (name, value) in &level.env {
            lines.push(format!(
                "  with permissions {permissions}, environment: {name}={}",
                self::value(definition, name, value)
            ));
        }
        for (name, text) in &level.json_env {
            let text = self::value(definition, name, text);
            lines.push(format!("  with permissions {permissions}, environment: {name} with {text} over what it holds"));
        }
        for case in &level.refused_where {
            let (directory, suffix) = (case.directory.display(), &case.suffix);
            lines.push(format!("  with permissions {permissions}, refused where {directory}/*{suffix} is"));
        }
        if let Some(places) = &level.writable {
            lines.push(format!("  with permissions {permissions}, written is only below {}", places.join(", ")));
        }
    }
    if lines.len() == before {
        lines.push("  nothing".into());
    }
    lines.push("Everything else of the tool's configuration is in force.".into());
    if !definition.keeps.is_empty() {
        lines.push(String::new());
        lines.push("What the tool keeps, and a fresh context does not clear:".into());
        lines.extend(definition.keeps.iter().map(|kept| format!("  {kept}")));
    }
    lines
}

/// The keys that a layer sets, dotted; the elements of lists are not told apart.
fn keys(table: &toml::Table) -> Vec<String> {
    let mut keys = Vec::new();
    for (key, value) in table {
        match value {
            toml::Value::Table(below) if !below.is_empty() => {
                keys.extend(self::keys(below).into_iter().map(|below| format!("{key}.{below}")));
            }
            _ => keys.push(key.clone()),
        }
    }
    keys
}

/// The definition as TOML, without values that are empty and would be so anyway.
fn text(definition: &Definition) -> anyhow::Result<String> {
    let whole = toml::Table::try_from(definition).context("the definition can't be written as TOML")?;
    let mut table = whole.clone();
    prune(&mut table);
    let same = table.clone().try_into::<Definition>().is_ok_and(|read| read == *definition);
    Ok(toml::to_string_pretty(if same { &table } else { &whole })?)
}

fn prune(table: &mut toml::Table) {
    table.retain(|_, value| match value {
        toml::Value::Table(below) => {
            prune(below);
            !below.is_empty()
        }
        toml::Value::Array(list) => !list.is_empty(),
        toml::Value::String(text) => !text.is_empty(),
        toml::Value::Boolean(flag) => *flag,
        _ => true,
    });
}

/// A variable's value without what is secret in it.
fn value(definition: &Definition, name: &str, value: &str) -> String {
    if definition.secrecy()(name) {
        return NOT_SHOWN.into();
    }
    let mut shown = value.to_owned();
    Secrets::within(definition, value).hide(&mut shown);
    shown
}

fn without_secrets(definition: &Definition) -> (Definition, bool) {
    let mut shown = definition.clone();
    let levels = shown.permissions.values_mut().flat_map(|level| [&mut level.env, &mut level.json_env]);
    for (name, value) in levels.chain([&mut shown.env]).flatten() {
        *value = self::value(definition, name, value);
    }
    let hidden = shown != *definition;
    (shown, hidden)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_a_definition_again() {
        let registry = Registry::builtin().unwrap();
        for entry in registry.entries() {
            let mut out = Vec::new();
            run(&registry, &entry.definition.id, &mut out).unwrap();
            let text = String::from_utf8(out).unwrap();
            let read: Definition = toml::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
            assert_eq!(read, *entry.definition);
            assert!(text.contains("# Over the tool's own configuration"), "{text}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let definition: Definition = toml::from_str(
            "id = \"t\"\ndriver = \"acp\"\nargv = [\"t\"]\n[env]\nT_API_KEY = \"sk-1\"\nPLAIN = \"p\"\n\
             CONFIG = '{\"apiKey\":\"sk-34567890\",\"name\":\"p\"}'\n[permissions.edit]\nenv = { MY_TOKEN = \"sk-2\" }\n\
             json_env = { CONFIG = '{\"auth\":{\"token\":\"sk-45678901\"}}' }\n",
        )
        .unwrap();
        let (shown, hidden) = without_secrets(&definition);
        let text = text(&shown).unwrap();
        assert!(hidden && !text.contains("sk-") && text.contains("PLAIN = \"p\""), "{text}");
        assert!(text.contains(r#"{"apiKey":"[secret]","name":"p"}"#), "{text}");
    }

    #[test]
    fn the_keys_of_a_layer_are_dotted() {
        let table = toml::from_str("a = 1\n[env]\nX = \"\"\n[limits]\nready_seconds = 1\n").unwrap();
        assert_eq!(keys(&table), ["a", "env.X", "limits.ready_seconds"]);
    }
}
