//! Where definitions are looked for: the user's configuration, the project around a directory, files that were named,
//! and the JSON registry; and which of these must be trusted first.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::document::{DefinitionError, read_bytes};
use super::registry::RegistryError;
use super::trust::{Standing, TrustRecord};

/// The places of all layers above what is built in. Plain data: tests and programs may fill it in by hand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layers {
    /// The user's directory of definitions; it need not exist.
    pub user: Option<PathBuf>,
    /// Directories of the project that hold `.readyroom/tools`, outermost first.
    pub projects: Vec<PathBuf>,
    /// Files that the caller names, in order; each must exist.
    pub files: Vec<PathBuf>,
    /// The JSON registry.
    pub aim: Option<AimFile>,
    /// The user's record of trusted files. None: nothing of a project is trusted.
    pub trust: Option<PathBuf>,
}

/// A JSON registry's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AimFile {
    /// The file.
    pub path: PathBuf,
    /// Relative programs in it are below this directory.
    pub base: PathBuf,
    /// Whether the file belongs to the project and so needs trust. A file that `$AIM_REGISTRY_PATH` names by an absolute
    /// path outside the project is the user's own choice, like a file in the user's configuration.
    pub of_project: bool,
}

/// What a project's file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProjectFileKind {
    /// A definition, in TOML.
    Definition,
    /// The JSON registry.
    Aim,
}

/// A file of the project, as read once: what was judged is what is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectFile {
    /// The file, absolute.
    pub path: PathBuf,
    /// Relative programs in it are below this directory.
    pub base: PathBuf,
    /// What it is.
    pub kind: ProjectFileKind,
    /// Its content.
    pub content: Vec<u8>,
    /// What the user's record says about that content.
    pub standing: Standing,
}

impl Layers {
    /// The layers that hold for work in `directory`, by the process's environment: `$XDG_CONFIG_HOME`,
    /// `$XDG_STATE_HOME`, `$HOME` and `$AIM_REGISTRY_PATH`.
    pub fn around(directory: &Path) -> Self {
        Self::with_environment(directory, |name| std::env::var_os(name))
    }

    /// The same with one more file on top of all.
    #[must_use]
    pub fn with_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.files.push(file.into());
        self
    }

    fn with_environment(directory: &Path, variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = set("HOME");
        // The XDG specification has relative paths ignored.
        let below = |name: &str, default: &str| {
            set(name).filter(|path| path.is_absolute()).or_else(|| home.as_ref().map(|home| home.join(default)))
        };
        let directory = absolute(directory);
        let project = within_project(&directory, is_repository);
        Self {
            user: below("XDG_CONFIG_HOME", ".config").map(|config| config.join("readyroom/tools")),
            projects: project.iter().rev().filter(|dir| dir.join(".readyroom/tools").is_dir()).cloned().collect(),
            files: Vec::new(),
            aim: match set("AIM_REGISTRY_PATH") {
                Some(named) => {
                    let path = absolute(&directory.join(&named));
                    let root = project.last().unwrap_or(&directory);
                    let of_project = named.is_relative() || path.starts_with(root);
                    let base = path.parent().unwrap_or(Path::new("/")).to_owned();
                    Some(AimFile { path, base, of_project })
                }
                None => project.iter().find_map(|dir| {
                    let path = dir.join(".aim/aim-registry/registry.json");
                    path.is_file().then(|| AimFile { path, base: dir.clone(), of_project: true })
                }),
            },
            trust: below("XDG_STATE_HOME", ".local/state").map(|state| state.join("readyroom/trust.toml")),
        }
    }

    /// All files of the project that would count if they were trusted, with what the user's record says about each, in
    /// the order of their layers.
    ///
    /// # Errors
    /// Files, directories or a record that can't be read.
    pub fn project_files(&self) -> Result<Vec<ProjectFile>, RegistryError> {
        let mut files = Vec::new();
        let mut failed = Vec::new();
        if let Some(aim) = self.aim.as_ref().filter(|aim| aim.of_project) {
            files.push((aim.path.clone(), aim.base.clone(), ProjectFileKind::Aim));
        }
        for project in &self.projects {
            match definitions_in(&project.join(".readyroom/tools")) {
                Ok(found) => {
                    files.extend(found.into_iter().map(|path| (path, project.clone(), ProjectFileKind::Definition)));
                }
                Err(error) => failed.push(error),
            }
        }
        if files.is_empty() && failed.is_empty() {
            return Ok(Vec::new());
        }
        let record = match &self.trust {
            Some(path) => TrustRecord::read(path).map_err(|error| RegistryError::Trust(error.to_string()))?,
            None => TrustRecord::default(),
        };
        let mut read = Vec::new();
        for (path, base, kind) in files {
            match read_bytes(&path) {
                Ok(content) => {
                    let standing = record.standing(&path, &content);
                    read.push(ProjectFile { path, base, kind, content, standing });
                }
                Err(error) => failed.push(error),
            }
        }
        if failed.is_empty() { Ok(read) } else { Err(RegistryError::Definitions(failed)) }
    }
}

/// The definition files in a directory, by name. A directory that does not exist has none; hidden files (an editor's)
/// are not definitions.
pub(super) fn definitions_in(directory: &Path) -> Result<Vec<PathBuf>, DefinitionError> {
    let fail = |error: std::io::Error| DefinitionError {
        file: directory.display().to_string(),
        place: None,
        message: format!("can't be read: {error}"),
        mend: "check its permissions".into(),
    };
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(fail(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(fail)?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if !hidden && path.extension().is_some_and(|extension| extension == "toml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// `directory` and those above it, up to the root of its git repository; `directory` alone where there is none, so
/// that nothing in a shared `/tmp` or `/` is ever taken for a project.
fn within_project(directory: &Path, is_root: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    let mut within = Vec::new();
    for above in directory.ancestors() {
        within.push(above.to_owned());
        if is_root(above) {
            return within;
        }
    }
    vec![directory.to_owned()]
}

/// Whether a git repository's tree begins here. An empty `.git` directory is none: some sandboxes leave one behind.
fn is_repository(directory: &Path) -> bool {
    let git = directory.join(".git");
    git.is_file() || git.join("HEAD").exists()
}

fn absolute(path: &Path) -> PathBuf {
    path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new(files: &[&str]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            for file in files {
                let path = dir.path().join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, "").unwrap();
            }
            Self(dir)
        }

        fn path(&self, below: &str) -> PathBuf {
            self.0.path().canonicalize().unwrap().join(below)
        }

        fn around(&self, directory: &str, environment: &[(&str, &str)]) -> Layers {
            Layers::with_environment(&self.path(directory), |name| {
                environment.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())
            })
        }
    }

    #[test]
    fn the_users_directories_follow_xdg() {
        let tree = Tree::new(&["w/x"]);
        let layers = tree.around("w", &[("HOME", "/h")]);
        assert_eq!(layers.user, Some("/h/.config/readyroom/tools".into()));
        assert_eq!(layers.trust, Some("/h/.local/state/readyroom/trust.toml".into()));
        let layers =
            tree.around("w", &[("HOME", "/h"), ("XDG_CONFIG_HOME", "/c"), ("XDG_STATE_HOME", "relative/is/ignored")]);
        assert_eq!(layers.user, Some("/c/readyroom/tools".into()));
        assert_eq!(layers.trust, Some("/h/.local/state/readyroom/trust.toml".into()));
        assert_eq!(tree.around("w", &[("HOME", "")]).user, None);
    }

    #[test]
    fn projects_are_searched_up_to_the_git_root() {
        let tree = Tree::new(&[
            ".readyroom/tools/above.toml",
            "repo/.git/HEAD",
            "repo/.readyroom/tools/a.toml",
            "repo/sub/deep/.git/description",
            "repo/sub/.readyroom/tools/b.toml",
            "repo/sub/deep/x",
        ]);
        assert_eq!(tree.around("repo/sub/deep", &[]).projects, [tree.path("repo"), tree.path("repo/sub")]);
        assert_eq!(tree.around("repo", &[]).projects, [tree.path("repo")]);
    }

    #[test]
    fn without_a_repository_only_the_directory_itself_is_a_project() {
        let directory = Path::new("/a/b/c");
        assert_eq!(within_project(directory, |_| false), [directory]);
        assert_eq!(within_project(directory, |above| above.ends_with("b")), [directory, Path::new("/a/b")]);
    }

    #[test]
    fn the_json_registry_is_found_upward_and_by_the_variable() {
        let tree = Tree::new(&[
            "repo/.git/HEAD",
            "repo/.aim/aim-registry/registry.json",
            "repo/sub/x",
            "own/registry.json",
            "repo/other.json",
        ]);
        let found = tree.around("repo/sub", &[]).aim.unwrap();
        assert_eq!((found.path, found.base), (tree.path("repo/.aim/aim-registry/registry.json"), tree.path("repo")));
        assert!(found.of_project);

        let named = |path: &str| tree.around("repo/sub", &[("AIM_REGISTRY_PATH", path)]).aim.unwrap();
        let own = named(tree.path("own/registry.json").to_str().unwrap());
        assert!(!own.of_project);
        assert_eq!(own.base, tree.path("own"));
        assert!(named(tree.path("repo/other.json").to_str().unwrap()).of_project, "the project can change it");
        let relative = named("../../own/registry.json");
        assert!(relative.of_project, "which file it is depends on where one stands");
        assert_eq!(relative.path, tree.path("own/registry.json"));
    }

    #[test]
    fn hidden_files_and_other_kinds_are_no_definitions() {
        let tree = Tree::new(&["t/b.toml", "t/a.toml", "t/.a.toml", "t/a.toml~", "t/readme.md"]);
        assert_eq!(definitions_in(&tree.path("t")).unwrap(), [tree.path("t/a.toml"), tree.path("t/b.toml")]);
        assert!(definitions_in(&tree.path("nowhere")).unwrap().is_empty());
    }
}
