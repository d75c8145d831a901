//! The spawn contract: what all instances of a pool have in common, resolved to a command line and an environment.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Definition, EnvPolicy};
use crate::error::{Failure, FailureKind};
use crate::job::Permissions;

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
    /// The model, where the driver passes it in its protocol.
    pub model: Option<String>,
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
        let mut args: Vec<OsString> = definition.argv.iter().skip(1).map(OsString::from).collect();
        let here = definition.when.iter().filter(|when| when.holds(&cwd));
        args.extend(here.flat_map(|when| &when.args).map(OsString::from));
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
        for (name, value) in &options.env {
            env.insert(name.into(), value.into());
        }
        args.extend(options.args.iter().cloned());
        Ok(Self {
            definition,
            program: program.to_owned(),
            args,
            env,
            cwd,
            permissions: options.permissions,
            model: options.model.clone(),
        })
    }

    /// The value for the driver under `name`: the level's own, else the definition's.
    pub fn setting(&self, name: &str) -> Option<String> {
        let level = self.definition.level(self.permissions).settings.get(name).cloned();
        level.or_else(|| self.definition.settings.get(name).cloned())
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
