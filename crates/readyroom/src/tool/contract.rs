//! The spawn contract: what all instances of a pool have in common, resolved to a command line and an environment.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Definition, DriverKind, EnvPolicy, Secrets};
use crate::check::Schema;
use crate::error::{Failure, FailureKind};
use crate::job::Permissions;
use crate::process;

/// What a caller chooses about the instances of a pool.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ContractOptions {
    /// Where the tool works; the current directory where it is empty. Must exist.
    pub cwd: PathBuf,
    /// What the tool may do.
    pub permissions: Permissions,
    /// The model's name; the tool's own default where there is none.
    pub model: Option<String>,
    /// Arguments added to the tool's command line.
    pub args: Vec<OsString>,
    /// Environment variables set over everything else.
    pub env: BTreeMap<String, String>,
    /// A HOME for the pool's instances; the caller's own where there is none.
    pub home: Option<PathBuf>,
    /// What all answers have to fit. A tool that takes such a schema at its launch only (Claude Code) is launched with it.
    /// A job is judged by its own [`Checks::schema`](crate::Checks::schema) all the same.
    pub schema: Option<Schema>,
}

/// A tool with everything that its launch needs. Two equal contracts can share a pool.
#[derive(Debug, Clone, PartialEq)]
pub struct Contract {
    /// The definition in force.
    pub definition: Arc<Definition>,
    /// The program, found.
    pub program: PathBuf,
    /// The arguments after the program.
    pub args: Vec<OsString>,
    /// The whole environment.
    pub env: BTreeMap<OsString, OsString>,
    /// The directory, absolute.
    pub cwd: PathBuf,
    /// What the tool may do.
    pub permissions: Permissions,
    /// Where it and all below it may write; `None`: wherever the user may.
    pub writable: Option<Vec<PathBuf>>,
    /// The model, where the driver passes it in its protocol.
    pub model: Option<String>,
    /// What all answers have to fit, for drivers that tell their tool so at its launch.
    pub schema: Option<Schema>,
}

impl Contract {
    /// Resolves `definition` with the program at `program` and the caller's `options`.
    ///
    /// # Errors
    /// `BadInput` where the directory is missing, the tool can't hold the permission level, or its model can't be
    /// chosen.
    pub fn resolve(definition: Arc<Definition>, program: &Path, options: &ContractOptions) -> Result<Self, Failure> {
        let bad = |message: String| Failure::new(FailureKind::BadInput, message);
        let cwd = if options.cwd.as_os_str().is_empty() { PathBuf::from(".") } else { options.cwd.clone() };
        let cwd =
            cwd.canonicalize().map_err(|error| bad(format!("directory {} can't be used: {error}", cwd.display())))?;
        if !cwd.is_dir() {
            return Err(bad(format!("{} is not a directory", cwd.display())));
        }
        let level = definition.level(options.permissions);
        if !level.refused.is_empty() {
            return Err(bad(format!(
                "{} can't hold permissions `{}`: {}; choose another level, or `full` to let it do everything",
                definition.id, options.permissions, level.refused
            )));
        }
        for case in &level.refused_where {
            if let Some(file) = case.found() {
                return Err(bad(format!(
                    "{} can't hold permissions `{}` on this machine, where {} is: {}; move it away, or choose `full` to \
                     let the tool do everything",
                    definition.id,
                    options.permissions,
                    file.display(),
                    case.why
                )));
            }
        }
        let mut args: Vec<OsString> = definition.argv.iter().skip(1).map(OsString::from).collect();
        let of_level = args.len()..args.len() + level.args.len();
        args.extend(level.args.iter().map(OsString::from));
        let mut env = base_environment(definition.env_policy);
        env.extend(definition.env.iter().map(|(name, value)| (name.into(), value.into())));
        // A higher layer can only take a variable of a lower one away by `unset_env`; what holds a level stays.
        for name in &definition.unset_env {
            env.remove(&OsString::from(name));
        }
        let mut set = |name: &str, value: &str| env.insert(OsString::from(name), OsString::from(value));
        for (name, value) in &level.env {
            set(name, value);
        }
        if let Some(model) = &options.model {
            let option = &definition.model;
            if option.args.is_empty() && option.env.is_empty() && !option.in_protocol {
                return Err(bad(format!(
                    "the definition of {} has no way to choose a model; use --tool-arg, or [model] in a definition",
                    definition.id
                )));
            }
            args.extend(option.args.iter().map(|arg| OsString::from(arg.replace("{}", model))));
            for (name, value) in &option.env {
                set(name, &value.replace("{}", model));
            }
        }
        if let Some(home) = &options.home {
            env.insert("HOME".into(), home.clone().into());
            for name in ["XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"] {
                env.remove(&OsString::from(name));
            }
        }
        // A shell that changes into the directory says so here, and some tools believe it rather than the system.
        env.insert("PWD".into(), cwd.clone().into());
        env.remove(&OsString::from("OLDPWD"));
        for (name, value) in &options.env {
            env.insert(name.into(), value.into());
        }
        for (name, text) in &level.json_env {
            let there = env.get(OsStr::new(name)).map(|value| value.to_string_lossy().into_owned());
            env.insert(name.into(), json_over(name, there.as_deref(), text).map_err(bad)?.into());
        }
        for when in &definition.when {
            if when.holds(&cwd, &env) {
                args.extend(when.args.iter().map(OsString::from));
                env.extend(when.env.iter().map(|(name, value)| (name.into(), value.into())));
            }
        }
        args.extend(options.args.iter().cloned());
        if let Some(home) = env.get(OsStr::new("HOME")).and_then(|home| home.to_str()).map(str::to_owned) {
            for (arg, text) in args[of_level].iter_mut().zip(&level.args) {
                *arg = text.replace("{home}", &home).into();
            }
            for (name, front) in definition.prepend_env.iter().filter(|(_, front)| !front.value.is_empty()) {
                let mut value = OsString::from(front.value.replace("{home}", &home));
                if let Some(there) = env.get(OsStr::new(name)).filter(|there| !there.is_empty()) {
                    value.push(&front.separator);
                    value.push(there);
                }
                env.insert(name.into(), value);
            }
        }
        let writable = level.writable.as_ref().map(|places| writable(places, &cwd, &env));
        Ok(Self {
            definition,
            program: program.to_owned(),
            args,
            env,
            cwd,
            permissions: options.permissions,
            writable,
            model: options.model.clone(),
            schema: options.schema.clone(),
        })
    }

    /// The warmed interpreter of which its processes are forks, where its definition has one in use and the program names
    /// its interpreter.
    pub fn zygote(&self) -> Option<process::Zygote> {
        let zygote = self.definition.zygote.as_ref().filter(|zygote| zygote.enabled)?;
        let interpreter = super::script::interpreter(&self.program)?;
        Some(process::Zygote { interpreter, imports: zygote.imports.clone(), warm: zygote.warm.clone() })
    }

    /// The value for the driver under `name`: the level's own, else the definition's.
    pub fn setting(&self, name: &str) -> Option<String> {
        let level = self.definition.level(self.permissions).settings.get(name).cloned();
        level.or_else(|| self.definition.settings.get(name).cloned())
    }

    /// Whether a model can run commands at this level, which a turn may leave running. What a person types into a REPL is
    /// no model's command.
    pub fn runs_commands(&self) -> bool {
        let agent = !matches!(self.definition.driver, DriverKind::Repl | DriverKind::Oneshot);
        agent && !self.definition.level(self.permissions).prevents.iter().any(|held| held == "shell")
    }

    /// The values of its environment that are not to be told.
    pub fn secrets(&self) -> Secrets {
        Secrets::of(&self.definition, &self.env)
    }

    /// The whole command line.
    pub fn argv(&self) -> Vec<OsString> {
        std::iter::once(self.program.clone().into_os_string()).chain(self.args.iter().cloned()).collect()
    }

    /// HOME as the tool sees it.
    pub fn home(&self) -> Option<&Path> {
        self.env.get(std::ffi::OsStr::new("HOME")).map(Path::new)
    }
}

/// The JSON object `text` put over the one that the variable `name` holds.
fn json_over(name: &str, there: Option<&str>, text: &str) -> Result<String, String> {
    fn put(over: serde_json::Value, under: &mut serde_json::Value) {
        match (over, under) {
            (serde_json::Value::Object(over), serde_json::Value::Object(under)) => {
                for (key, value) in over {
                    put(value, under.entry(key).or_insert(serde_json::Value::Null));
                }
            }
            (over, under) => *under = over,
        }
    }
    let Some(there) = there.filter(|there| !there.trim().is_empty()) else { return Ok(text.to_owned()) };
    let over = serde_json::from_str(text).map_err(|error| format!("`json_env.{name}` of the definition: {error}"))?;
    // Its text may hold a key, so only the place is told.
    let mut under: serde_json::Value = serde_json::from_str(there).ok().filter(serde_json::Value::is_object).ok_or_else(
        || format!("{name} in the environment is no JSON object, which the permission level has to add to; correct or unset it"),
    )?;
    put(over, &mut under);
    Ok(under.to_string())
}

/// The places that a level's `writable` names.
fn writable(places: &[String], cwd: &Path, env: &BTreeMap<OsString, OsString>) -> Vec<PathBuf> {
    let variable = |name: &str| env.get(OsStr::new(name)).map(PathBuf::from);
    let mut found = Vec::new();
    for place in places {
        let (root, rest) = place.split_once('}').map_or((place.as_str(), ""), |(root, rest)| (root, rest));
        let roots = match root {
            "{directory" => vec![cwd.to_owned()],
            "{repository" => git_directories(cwd),
            "{home" => variable("HOME").into_iter().collect(),
            "{tmp" => vec![variable("TMPDIR").unwrap_or_else(|| PathBuf::from("/tmp"))],
            _ => vec![PathBuf::from(place)],
        };
        found.extend(roots.into_iter().map(|root| root.join(rest.trim_start_matches('/'))));
    }
    found
}

/// The git directory of the repository that holds `directory`; two of them for a worktree, which shares the other's.
fn git_directories(directory: &Path) -> Vec<PathBuf> {
    let Some(entry) = directory
        .ancestors()
        .map(|above| above.join(".git"))
        .find(|entry| entry.is_file() || entry.join("HEAD").exists())
    else {
        return Vec::new();
    };
    let pointed = |file: &Path, prefix: &str| {
        let text = std::fs::read_to_string(file).ok()?;
        let path = text.trim_end().strip_prefix(prefix)?.trim_start();
        Some(file.parent()?.join(path))
    };
    if entry.is_dir() {
        return vec![entry];
    }
    let own = pointed(&entry, "gitdir:");
    let shared = own.as_ref().and_then(|own| pointed(&own.join("commondir"), ""));
    own.into_iter().chain(shared).collect()
}

fn base_environment(policy: EnvPolicy) -> BTreeMap<OsString, OsString> {
    const KEPT: [&str; 8] = ["PATH", "HOME", "USER", "LOGNAME", "LANG", "TERM", "TMPDIR", "TZ"];
    std::env::vars_os()
        .filter(|(name, _)| match policy {
            EnvPolicy::Inherit => true,
            EnvPolicy::Clean => {
                let name = name.to_string_lossy();
                KEPT.contains(&name.as_ref()) || name.starts_with("LC_")
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    fn resolve(toml: &str, options: &ContractOptions) -> Result<Contract, Failure> {
        let definition = toml::from_str(&format!("id = \"t\"\ndriver = \"acp\"\nargv = [\"t\"]\n{toml}")).unwrap();
        Contract::resolve(Arc::new(definition), Path::new("/bin/true"), options)
    }

    #[test]
    fn the_tool_is_told_its_directory_as_a_shell_would() {
        let directory = tempfile::tempdir().unwrap();
        let options = ContractOptions { cwd: directory.path().into(), ..ContractOptions::default() };
        let contract = resolve("", &options).unwrap();
        let canonical = directory.path().canonicalize().unwrap();
        assert_eq!(contract.env.get(OsStr::new("PWD")), Some(&canonical.clone().into_os_string()));
        assert_eq!(contract.cwd, canonical);
        assert!(!contract.env.contains_key(OsStr::new("OLDPWD")));
    }

    #[test]
    fn what_the_caller_sets_wins_over_the_definition() {
        let options = ContractOptions { env: [("A".into(), "2".into())].into(), ..ContractOptions::default() };
        let contract = resolve("[env]\nA = \"1\"\nB = \"1\"", &options).unwrap();
        assert_eq!(contract.env.get(OsStr::new("A")), Some(&OsString::from("2")));
        assert_eq!(contract.env.get(OsStr::new("B")), Some(&OsString::from("1")));
    }

    #[test]
    fn what_is_put_in_front_keeps_what_is_there() {
        let toml = "[prepend_env.A]\nvalue = \"{home}/a\"\nseparator = \":\"";
        let with = |env: &[(&str, &str)], toml: &str| {
            let env = env.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
            let options = ContractOptions { env, home: Some("/h".into()), ..ContractOptions::default() };
            resolve(toml, &options).unwrap().env.get(OsStr::new("A")).cloned()
        };
        assert_eq!(with(&[], toml).unwrap(), "/h/a");
        assert_eq!(with(&[("A", "")], toml).unwrap(), "/h/a");
        assert_eq!(with(&[("A", "/mine:/own")], toml).unwrap(), "/h/a:/mine:/own");
        assert_eq!(with(&[], "[prepend_env.A]\nvalue = \"\"\nseparator = \":\""), None);
    }

    #[test]
    fn a_levels_json_stands_over_the_callers() {
        let toml = r#"permissions.edit.json_env.A = '{"a":{"b":1},"c":[1]}'"#;
        let with = |value: &str| {
            let options = ContractOptions { env: [("A".into(), value.into())].into(), ..ContractOptions::default() };
            resolve(toml, &options).map(|contract| contract.env[OsStr::new("A")].clone())
        };
        assert_eq!(with("").unwrap(), r#"{"a":{"b":1},"c":[1]}"#);
        assert_eq!(with(r#"{"a":{"b":2,"k":3},"c":[2],"m":4}"#).unwrap(), r#"{"a":{"b":1,"k":3},"c":[1],"m":4}"#);
        let error = with("sk-secret").unwrap_err().message;
        assert!(error.starts_with("A in the environment is no JSON object") && !error.contains("secret"), "{error}");
    }

    #[test]
    fn a_level_is_refused_where_something_takes_it_away() {
        let place = tempfile::tempdir().unwrap();
        let toml = format!(
            "[[permissions.edit.refused_where]]\ndirectory = {:?}\nsuffix = '.toml'\nwhy = 'it comes first'",
            place.path()
        );
        std::fs::write(place.path().join("read.me"), "").unwrap();
        resolve(&toml, &ContractOptions::default()).unwrap();
        std::fs::write(place.path().join("all.toml"), "").unwrap();
        let error = resolve(&toml, &ContractOptions::default()).unwrap_err().message;
        assert!(error.contains("all.toml") && error.contains("it comes first"), "{error}");
        let full = ContractOptions { permissions: Permissions::Full, ..ContractOptions::default() };
        resolve(&toml, &full).unwrap();
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_reason() {
        let options = ContractOptions { model: Some("m".into()), ..ContractOptions::default() };
        assert!(resolve("", &options).unwrap_err().message.contains("model"));
        let refused = "[permissions.edit]\nrefused = \"it writes anywhere\"";
        assert!(resolve(refused, &ContractOptions::default()).unwrap_err().message.contains("it writes anywhere"));
        let options = ContractOptions { cwd: "/no/such/directory".into(), ..ContractOptions::default() };
        assert!(resolve("", &options).unwrap_err().message.contains("/no/such/directory"));
    }
}
