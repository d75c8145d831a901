//! All tools that are known here: the layers merged, checked, and looked up by name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::aim::{self, AimTool};
use super::discovery::{Found, find};
use super::document::{DefinitionError, Document, Layer, Source, Step, merge, read_bytes};
use super::layers::{Layers, ProjectFile, ProjectFileKind, definitions_in};
use super::trust::Standing;
use super::validate::problems;
use super::{BUILTIN, Definition};
use crate::error::{Failure, FailureKind};

/// Why the registry can't be used. A definition that is wrong is never passed over: the value that it was to set
/// might be the one that keeps a tool from writing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// Definitions that can't be used; never empty.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Definitions(Vec<DefinitionError>),
    /// The record of trusted files can't be read.
    #[error("{0}")]
    Trust(String),
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        Self::new(FailureKind::BadInput, error.to_string())
    }
}

/// A tool with where its definition comes from.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The definition in force.
    pub definition: Arc<Definition>,
    /// The layers that it was merged from, lowest first, each with the values that it sets.
    pub layers: Vec<(Source, toml::Table)>,
    /// The tool whose definition this one is under another name, by the JSON registry.
    pub other_name_of: Option<String>,
}

/// A tool that the JSON registry names and nothing says how to drive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undriven {
    /// What the registry says.
    pub tool: AimTool,
    /// Which registry.
    pub file: PathBuf,
}

/// A project's file that does not count until it is trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ignored {
    /// The file.
    pub path: PathBuf,
    /// Whether it is new or has changed.
    pub standing: Standing,
    /// The tools that it seems to define.
    pub tools: Vec<String>,
}

/// All known tools.
#[derive(Debug, Clone)]
pub struct Registry {
    entries: BTreeMap<String, Entry>,
    undriven: BTreeMap<String, Undriven>,
    ignored: Vec<Ignored>,
}

impl Registry {
    /// What is built in, and nothing else.
    ///
    /// # Errors
    /// Never for the definitions that are compiled in; a test sees to it.
    pub fn builtin() -> Result<Self, RegistryError> {
        Self::load(&Layers::default())
    }

    /// What is known for work in `directory`, by the process's environment.
    ///
    /// # Errors
    /// As [`Registry::load`].
    pub fn around(directory: &Path) -> Result<Self, RegistryError> {
        Self::load(&Layers::around(directory))
    }

    /// Reads and merges the layers.
    ///
    /// # Errors
    /// All mistakes in all files that count, each with its file, place and mend.
    pub fn load(layers: &Layers) -> Result<Self, RegistryError> {
        let (trusted, ignored) =
            layers.project_files()?.into_iter().partition(|file| file.standing == Standing::Trusted);
        Self::merged(layers, trusted, ignored)
    }

    /// As [`Registry::load`], as if `files` of the project were trusted too: whether they can be used at all.
    ///
    /// # Errors
    /// As [`Registry::load`].
    pub fn load_as_if_trusted(layers: &Layers, files: &[ProjectFile]) -> Result<Self, RegistryError> {
        let (trusted, ignored) = layers
            .project_files()?
            .into_iter()
            .partition(|file| file.standing == Standing::Trusted || files.contains(file));
        Self::merged(layers, trusted, ignored)
    }

    fn merged(layers: &Layers, trusted: Vec<ProjectFile>, ignored: Vec<ProjectFile>) -> Result<Self, RegistryError> {
        let mut loading = Loading::default();
        for (name, text) in BUILTIN {
            let source = Source { layer: Layer::BuiltIn, file: None };
            loading.document(Document::parse(source, name, text.to_owned(), None));
        }
        let own_aim = layers.aim.iter().filter(|aim| !aim.of_project);
        for aim in own_aim {
            loading.aim(&aim.path, &aim.base, read_bytes(&aim.path));
        }
        if let Some(directory) = &layers.user {
            match definitions_in(directory) {
                Ok(files) => loading.documents(Layer::User, &files, |_| directory.clone()),
                Err(error) => loading.errors.push(error),
            }
        }
        for file in trusted {
            let ProjectFile { path, base, kind, content, .. } = file;
            match kind {
                ProjectFileKind::Aim => loading.aim(&path, &base, Ok(content)),
                ProjectFileKind::Definition => {
                    loading.document(Document::from_bytes(Layer::Project, &path, &base, content));
                }
            }
        }
        loading.documents(Layer::Given, &layers.files, |path| {
            let directory = path.parent().unwrap_or(Path::new("")).to_owned();
            std::path::absolute(&directory).unwrap_or(directory)
        });
        loading.finish(ignored.into_iter().map(Ignored::from).collect())
    }

    /// The tool of that name.
    pub fn get(&self, id: &str) -> Option<&Entry> {
        self.entries.get(id)
    }

    /// The tool of that name.
    ///
    /// # Errors
    /// `BadInput` that says why there is none: it is not known at all, its definition is not trusted yet, or nothing
    /// says how to drive it.
    pub fn require(&self, id: &str) -> Result<&Entry, Failure> {
        let Some(entry) = self.entries.get(id) else {
            return Err(Failure::new(FailureKind::BadInput, self.why_not(id)));
        };
        Ok(entry)
    }

    /// Where the program of `definition` is on this machine; nothing is run.
    ///
    /// # Errors
    /// `ToolMissing`, with what was tried and how to install the tool.
    pub fn find(&self, definition: &Definition) -> Result<Found, Failure> {
        find(definition)
    }

    /// The tool of that name with its program: what a cluster is launched from.
    ///
    /// # Errors
    /// As [`Registry::require`] and [`Registry::find`].
    pub fn locate(&self, id: &str) -> Result<(Arc<Definition>, Found), Failure> {
        let entry = self.require(id)?;
        let found = find(&entry.definition)?;
        Ok((found.apply(&entry.definition), found))
    }

    /// All tools, by name.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// The tools that the JSON registry names and nothing says how to drive, by name.
    pub fn undriven(&self) -> impl Iterator<Item = &Undriven> {
        self.undriven.values()
    }

    /// The project's files that do not count until they are trusted.
    pub fn ignored(&self) -> &[Ignored] {
        &self.ignored
    }

    /// The registry in the form of the pool guide's JSON, with all tools that can be driven and all others that the
    /// JSON registry names: `{"tools": {NAME: {"detectCommands": [[..]], "capabilities": [..], "driver": ..}}}`.
    pub fn to_aim(&self) -> serde_json::Value {
        let mut tools = BTreeMap::new();
        for (id, entry) in &self.entries {
            let definition = &entry.definition;
            let mut detect = definition.find.commands.clone();
            for program in definition.argv.first().into_iter().chain(&definition.find.also) {
                let mut words = vec![program.clone()];
                words.extend(definition.find.version_args.iter().cloned());
                if !detect.contains(&words) {
                    detect.push(words);
                }
            }
            let tool = serde_json::json!({
                "detectCommands": detect,
                "capabilities": definition.capabilities,
                "driver": definition.driver,
            });
            tools.insert(id, tool);
        }
        for (id, undriven) in &self.undriven {
            let tool = serde_json::json!({
                "detectCommands": undriven.tool.detect,
                "capabilities": undriven.tool.capabilities,
                "driver": null,
            });
            tools.insert(id, tool);
        }
        serde_json::json!({ "tools": tools })
    }

    fn why_not(&self, id: &str) -> String {
        if let Some(undriven) = self.undriven.get(id) {
            return format!(
                "{} names the tool `{id}`, but nothing says how to drive it: add a definition with `driver` and `argv` \
                 (docs/definitions.md shows some)",
                undriven.file.display()
            );
        }
        if let Some(ignored) = self.ignored.iter().find(|ignored| ignored.tools.iter().any(|tool| tool == id)) {
            return format!(
                "the tool `{id}` is defined in {}, which {} and does not count until you have looked at it with \
                 `readyroom tools trust`",
                ignored.path.display(),
                match ignored.standing {
                    Standing::Changed => "has changed since it was trusted",
                    Standing::New | Standing::Trusted => "comes with the project",
                }
            );
        }
        let known: Vec<_> = self.entries.keys().map(String::as_str).collect();
        let near = known.iter().filter(|name| distance(name, id) <= 2).min_by_key(|name| distance(name, id));
        match near {
            Some(near) => format!("no tool is called {id:?}: did you mean `{near}`? Known are {}", known.join(", ")),
            None => format!("no tool is called {id:?}: known are {}; `readyroom tools` lists them", known.join(", ")),
        }
    }
}

impl From<ProjectFile> for Ignored {
    fn from(file: ProjectFile) -> Self {
        let tools = match file.kind {
            ProjectFileKind::Definition => {
                let text = String::from_utf8_lossy(&file.content);
                let id = toml::from_str::<toml::Table>(&text)
                    .ok()
                    .and_then(|table| Some(table.get("id")?.as_str()?.to_owned()))
                    .or_else(|| Some(file.path.file_stem()?.to_string_lossy().into_owned()));
                id.into_iter().collect()
            }
            ProjectFileKind::Aim => aim::parse(&file.path, &file.base, file.content)
                .map(|tools| tools.into_iter().map(|tool| tool.id).collect())
                .unwrap_or_default(),
        };
        Self { path: file.path, standing: file.standing, tools }
    }
}

/// The layers while they are being read.
#[derive(Default)]
struct Loading {
    documents: BTreeMap<String, Vec<Document>>,
    aim: BTreeMap<String, Undriven>,
    errors: Vec<DefinitionError>,
}

impl Loading {
    fn documents(&mut self, layer: Layer, files: &[PathBuf], base: impl Fn(&Path) -> PathBuf) {
        for path in files {
            self.document(Document::read(layer, path, &base(path)));
        }
    }

    fn document(&mut self, document: Result<Document, DefinitionError>) {
        let document = match document {
            Ok(document) => document,
            Err(error) => return self.errors.push(error),
        };
        let others = self.documents.entry(document.id.clone()).or_default();
        // In one directory there is no order that would say which of two files counts.
        let directory =
            |document: &Document| document.source.file.as_deref().and_then(Path::parent).map(Path::to_owned);
        let twin = others.iter().find(|other| {
            document.source.layer != Layer::Given
                && other.source.layer == document.source.layer
                && directory(other) == directory(&document)
        });
        if let Some(twin) = twin {
            let message = format!("describes the tool `{}`, and so does {}", document.id, twin.source);
            let (error, _) =
                document.error_at(&["id".into()], &message, "keep one of them, or name a tool differently");
            self.errors.push(error);
        }
        others.push(document);
    }

    fn aim(&mut self, path: &Path, base: &Path, content: Result<Vec<u8>, DefinitionError>) {
        match content.and_then(|content| aim::parse(path, base, content)) {
            Ok(tools) => {
                let tools = tools.into_iter().map(|tool| (tool.id.clone(), Undriven { tool, file: path.to_owned() }));
                self.aim.extend(tools);
            }
            Err(error) => self.errors.push(error),
        }
    }

    /// Merges and checks what was read.
    fn finish(mut self, ignored: Vec<Ignored>) -> Result<Registry, RegistryError> {
        let mut entries = BTreeMap::new();
        let documents = std::mem::take(&mut self.documents);
        let (whole, partial): (Vec<_>, Vec<_>) = documents
            .into_iter()
            .partition(|(_, documents)| documents.iter().any(|document| document.table.contains_key("driver")));
        for (id, documents) in whole {
            let aim = self.aim.remove(&id);
            let layers = stack(&documents, Vec::new(), aim);
            self.errors.extend(
                self::entry(&id, &documents, layers, None)
                    .map(|entry| entries.insert(id, entry))
                    .err()
                    .into_iter()
                    .flatten(),
            );
        }
        // Names that only the JSON registry gives to a tool that is known under another one.
        let mut partial: BTreeMap<_, _> = partial.into_iter().collect();
        let mut undriven = BTreeMap::new();
        for (id, aim) in std::mem::take(&mut self.aim) {
            let known = aim.tool.programs().find_map(|program| same_program(&entries, program));
            let Some((known, below)) = known else {
                undriven.insert(id, aim);
                continue;
            };
            let documents = partial.remove(&id).unwrap_or_default();
            let layers = stack(&documents, below, Some(aim));
            match entry(&id, &documents, layers, Some(known)) {
                Ok(entry) => drop(entries.insert(id, entry)),
                Err(errors) => self.errors.extend(errors),
            }
        }
        for (id, documents) in partial {
            let Some(document) = documents.last() else { continue };
            let (error, _) = document.error_at(
                &["id".into()],
                &format!("`{id}` is no tool that is known below this file, and the file names no driver"),
                "give `driver` and `argv`, or correct the tool's name",
            );
            self.errors.push(error);
        }
        if self.errors.is_empty() {
            Ok(Registry { entries, undriven, ignored })
        } else {
            Err(RegistryError::Definitions(self.errors))
        }
    }
}

/// The layers of a tool, lowest first: what is `below`, then built in, then the JSON registry, then the rest.
fn stack(
    documents: &[Document],
    mut below: Vec<(Source, toml::Table)>,
    aim: Option<Undriven>,
) -> Vec<(Source, toml::Table)> {
    let mut own: Vec<_> = documents.iter().map(|document| (document.source.clone(), document.table.clone())).collect();
    own.extend(aim.map(|aim| (Source { layer: Layer::Aim, file: Some(aim.file) }, aim.tool.table())));
    own.sort_by_key(|(source, _)| source.layer);
    below.append(&mut own);
    below
}

/// A known tool whose program has this name, with its layers.
fn same_program(entries: &BTreeMap<String, Entry>, program: &str) -> Option<(String, Vec<(Source, toml::Table)>)> {
    let name = |path: &str| Path::new(path).file_name().map(|name| name.to_string_lossy().into_owned());
    entries
        .iter()
        .filter(|(_, entry)| entry.other_name_of.is_none())
        .find(|(_, entry)| entry.definition.argv.first().and_then(|first| name(first)).as_deref() == Some(program))
        .map(|(id, entry)| (id.clone(), entry.layers.clone()))
}

/// Merges a tool's layers and checks the whole.
fn entry(
    id: &str,
    documents: &[Document],
    mut layers: Vec<(Source, toml::Table)>,
    other_name_of: Option<String>,
) -> Result<Entry, Vec<DefinitionError>> {
    layers.drain(..first_in_force(&layers));
    let mut merged = toml::Table::new();
    for (_, table) in &layers {
        merge(&mut merged, table.clone());
    }
    merged.insert("id".into(), id.into());
    let at = |path: &[Step], message: &str, mend: &str| {
        let places = documents.iter().rev().map(|document| document.error_at(path, message, mend));
        // The highest layer that has the value, or the most of the way to it.
        places.reduce(|best, other| if other.1 > best.1 { other } else { best }).map(|(error, _)| error).unwrap_or_else(
            || DefinitionError { file: id.to_owned(), place: None, message: message.into(), mend: mend.into() },
        )
    };
    if !merged.contains_key("argv") {
        return Err(vec![at(
            &["driver".into()],
            &format!("the definition of `{id}` has no `argv`"),
            "give the command line",
        )]);
    }
    let definition: Definition =
        merged.try_into().map_err(|error: toml::de::Error| vec![at(&[], error.message(), "correct the value")])?;
    let errors: Vec<_> =
        problems(&definition).iter().map(|problem| at(&problem.path, &problem.message, &problem.mend)).collect();
    if errors.is_empty() { Ok(Entry { definition: Arc::new(definition), layers, other_name_of }) } else { Err(errors) }
}

/// The lowest layer that counts: what layers below one with another driver say, and what their levels prevent, is true of
/// their driver only.
fn first_in_force(layers: &[(Source, toml::Table)]) -> usize {
    let (mut first, mut driver) = (0, None);
    for (at, (_, table)) in layers.iter().enumerate() {
        let own = table.get("driver");
        if own.is_some() && driver.is_some() && own != driver {
            first = at;
        }
        driver = own.or(driver);
    }
    first
}

/// How many letters must be added, taken out or changed to make `b` of `a`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let changed = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
