//! One file of a layer: read, checked for what can be checked before layers are merged, and able to say at which line
//! and column a value stands.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize as _;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer};

use super::Definition;

/// The most bytes that a definition may have; anything larger is not one.
const MAX_BYTES: u64 = 1 << 20;

/// What is wrong with a definition, where, and what mends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefinitionError {
    /// The file, or `built in NAME`.
    pub file: String,
    /// Line and column, both from 1, where the place is known.
    pub place: Option<(usize, usize)>,
    /// What is wrong, as a fragment.
    pub message: String,
    /// What mends it, as a fragment; may be empty.
    pub mend: String,
}

impl fmt::Display for DefinitionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some((line, column)) = self.place {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.message)?;
        if !self.mend.is_empty() {
            write!(f, "; {}", self.mend)?;
        }
        Ok(())
    }
}

impl std::error::Error for DefinitionError {}

/// Which layer a file belongs to, lowest first: a value in a higher layer replaces the same value in a lower one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// Compiled in.
    BuiltIn,
    /// The JSON registry.
    Aim,
    /// The user's configuration directory.
    User,
    /// The project's `.readyroom/tools`.
    Project,
    /// A file named on the command line.
    Given,
}

/// Where values of a definition come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The layer.
    pub layer: Layer,
    /// The file; none for what is built in.
    pub file: Option<PathBuf>,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(f, "{}", file.display()),
            None => f.write_str("built in"),
        }
    }
}

/// A step on the way to a value: a table's key or an array's index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A key.
    Key(String),
    /// An index from 0.
    Index(usize),
}

impl From<&str> for Step {
    fn from(key: &str) -> Self {
        Self::Key(key.into())
    }
}

impl From<usize> for Step {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

/// A file of a layer, as read.
#[derive(Debug, Clone)]
pub struct Document {
    /// Where it comes from.
    pub source: Source,
    /// The tool that it describes: its `id`, else the file's name without `.toml`.
    pub id: String,
    /// Its values. Relative programs have been made absolute.
    pub table: toml::Table,
    text: String,
}

impl Document {
    /// Reads `text`. `name` is the tool where the text has no `id`; relative programs (with a slash in them) are below
    /// `base`.
    ///
    /// # Errors
    /// Text that is not TOML, an unknown key, a value of the wrong type or an unknown word, each with line and column.
    pub fn parse(source: Source, name: &str, text: String, base: Option<&Path>) -> Result<Self, DefinitionError> {
        let file = source.to_string();
        let fail = |error: &toml::de::Error, mend: &str| DefinitionError {
            file: if source.file.is_some() { file.clone() } else { format!("built in {name}") },
            place: error.span().map(|span| position(&text, span.start)),
            message: error.message().trim().replace('\n', ", "),
            mend: mend.into(),
        };
        let spanned = DeTable::parse(&text).map_err(|error| fail(&error, "correct the TOML"))?;
        Definition::deserialize(Deserializer::from(complete(spanned, name)))
            .map_err(|error| fail(&error, mend_for(error.message())))?;
        let mut table: toml::Table = toml::from_str(&text).map_err(|error| fail(&error, "correct the TOML"))?;
        if let Some(base) = base {
            anchor_programs(&mut table, base);
        }
        let id = table.get("id").and_then(toml::Value::as_str).unwrap_or(name).to_owned();
        Ok(Self { source, id, table, text })
    }

    /// Reads the file at `path`.
    ///
    /// # Errors
    /// As [`Document::parse`], and a file that can't be read, is not a plain file, is too large or not UTF-8.
    pub fn read(layer: Layer, path: &Path, base: &Path) -> Result<Self, DefinitionError> {
        let bytes = read_bytes(path)?;
        Self::from_bytes(layer, path, base, bytes)
    }

    /// As [`Document::read`] for bytes that were read before (and whose hash was looked at).
    ///
    /// # Errors
    /// As [`Document::parse`], and text that is not UTF-8.
    pub fn from_bytes(layer: Layer, path: &Path, base: &Path, bytes: Vec<u8>) -> Result<Self, DefinitionError> {
        let text = utf8(path, bytes)?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Self::parse(Source { layer, file: Some(path.to_owned()) }, &name, text, Some(base))
    }

    /// An error about the value at `path`, at the line and column of the deepest part of the path that this file has.
    /// The second value says how many steps of the path are in this file.
    pub fn error_at(&self, path: &[Step], message: &str, mend: &str) -> (DefinitionError, usize) {
        let (place, depth) = match DeTable::parse(&self.text) {
            Ok(table) => locate(&table, path),
            Err(_) => (None, 0),
        };
        let file = match self.source.file {
            Some(_) => self.source.to_string(),
            None => format!("built in {}", self.id),
        };
        let place = place.map(|offset| position(&self.text, offset));
        (DefinitionError { file, place, message: message.into(), mend: mend.into() }, depth)
    }
}

/// The bytes of a definition file.
///
/// # Errors
/// A file that can't be read, is not a plain file (reading a FIFO would wait for ever) or is too large.
pub fn read_bytes(path: &Path) -> Result<Vec<u8>, DefinitionError> {
    let fail = |message: String, mend: &str| DefinitionError {
        file: path.display().to_string(),
        place: None,
        message,
        mend: mend.into(),
    };
    let unreadable = |error: std::io::Error| fail(format!("can't be read: {error}"), "check its path and permissions");
    let facts = std::fs::metadata(path).map_err(unreadable)?;
    if !facts.is_file() {
        return Err(fail("is not a plain file".into(), "name a file"));
    }
    if facts.len() > MAX_BYTES {
        return Err(fail(format!("has {} bytes, more than a definition may have", facts.len()), "name another file"));
    }
    std::fs::read(path).map_err(unreadable)
}

/// Text from a file's bytes, or the place of the first byte that is not UTF-8.
///
/// # Errors
/// Bytes that are not UTF-8.
pub fn utf8(path: &Path, bytes: Vec<u8>) -> Result<String, DefinitionError> {
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let before = String::from_utf8_lossy(&error.as_bytes()[..valid]).into_owned();
        DefinitionError {
            file: path.display().to_string(),
            place: Some(position(&before, valid)),
            message: "is not UTF-8".into(),
            mend: "save the file as UTF-8".into(),
        }
    })
}

/// Lays `over` on `base`: tables merge key by key, everything else (lists too) is replaced.
pub fn merge(base: &mut toml::Table, over: toml::Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(above)) => merge(below, above),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

/// Line and column, from 1, of a byte offset; columns count characters.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let offset = (0..=offset.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    let before = &text[..offset];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}

/// A layer's file may be partial. The keys that a whole definition must have are filled in here, so that its other
/// keys can be checked with their places.
fn complete<'i>(mut table: Spanned<DeTable<'i>>, name: &str) -> Spanned<DeTable<'i>> {
    let at = 0..0;
    let mut fill = |key: &'static str, value: DeValue<'i>| {
        let map = table.get_mut();
        if !map.contains_key(key) {
            map.insert(Spanned::new(at.clone(), key.into()), Spanned::new(at.clone(), value));
        }
    };
    fill("id", DeValue::String(name.to_owned().into()));
    fill("driver", DeValue::String("repl".into()));
    fill("argv", DeValue::Array(Default::default()));
    table
}

fn mend_for(message: &str) -> &'static str {
    if message.starts_with("unknown field") {
        "remove it or correct its name"
    } else if message.starts_with("unknown variant") {
        "use one of these words"
    } else {
        "correct the value"
    }
}

/// The byte offset of the deepest part of `path` that the table has, and its depth.
fn locate(table: &Spanned<DeTable<'_>>, path: &[Step]) -> (Option<usize>, usize) {
    let Some(Step::Key(first)) = path.first() else { return (None, 0) };
    let Some((key, mut value)) = table.get_ref().get_key_value(first.as_str()) else { return (None, 0) };
    let mut offset = key.span().start;
    for (depth, step) in path.iter().enumerate().skip(1) {
        let next = match (value.get_ref(), step) {
            (DeValue::Table(table), Step::Key(key)) => {
                table.get_key_value(key.as_str()).map(|(key, value)| (key.span().start, value))
            }
            (DeValue::Array(array), Step::Index(index)) => array.get(*index).map(|value| (value.span().start, value)),
            _ => None,
        };
        match next {
            Some((at, below)) => {
                offset = at;
                value = below;
            }
            None => return (Some(offset), depth),
        }
    }
    (Some(offset), path.len())
}

/// Makes programs that are written as a relative path absolute, from `base`; `~/` is the user's HOME. Plain names stay,
/// they are looked up in PATH.
fn anchor_programs(table: &mut toml::Table, base: &Path) {
    let anchor = |value: &mut toml::Value| {
        if let toml::Value::String(program) = value
            && let Some(anchored) = anchored(program, base)
        {
            *program = anchored;
        }
    };
    if let Some(first) = table.get_mut("argv").and_then(toml::Value::as_array_mut).and_then(|argv| argv.first_mut()) {
        anchor(first);
    }
    let Some(find) = table.get_mut("find").and_then(toml::Value::as_table_mut) else { return };
    if let Some(also) = find.get_mut("also").and_then(toml::Value::as_array_mut) {
        also.iter_mut().for_each(anchor);
    }
    if let Some(commands) = find.get_mut("commands").and_then(toml::Value::as_array_mut) {
        for command in commands {
            if let Some(first) = command.as_array_mut().and_then(|words| words.first_mut()) {
                anchor(first);
            }
        }
    }
}

/// `program` as an absolute path where it is a relative one; `None` where it stays as it is.
pub fn anchored(program: &str, base: &Path) -> Option<String> {
    if let Some(below) = program.strip_prefix("~/") {
        let home = std::env::var_os("HOME").filter(|home| !home.is_empty())?;
        return Some(Path::new(&home).join(below).to_string_lossy().into_owned());
    }
    let relative = program.contains('/') && !program.starts_with('/');
    relative.then(|| base.join(program.strip_prefix("./").unwrap_or(program)).to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn source() -> Source {
        Source { layer: Layer::User, file: Some("/u/x.toml".into()) }
    }

    fn parse(text: &str) -> Result<Document, DefinitionError> {
        Document::parse(source(), "x", text.into(), Some(Path::new("/base")))
    }

    #[test]
    fn an_unknown_key_is_named_with_its_place_and_mend() {
        let error = parse("summary = \"s\"\n[find]\nalso = []\nalzo = []\n").unwrap_err();
        assert_eq!(error.place, Some((4, 1)));
        assert!(error.to_string().starts_with("/u/x.toml:4:1: unknown field `alzo`"), "{error}");
        assert!(error.mend.contains("correct its name"));
    }

    #[test]
    fn an_unknown_driver_is_named_with_its_place() {
        let error = parse("\n  driver = \"telepathy\"\n").unwrap_err();
        assert_eq!(error.place, Some((2, 12)));
        assert!(error.message.contains("telepathy") && error.message.contains("`oneshot`"), "{error}");
    }

    #[test]
    fn text_that_is_not_toml_has_a_place() {
        let error = parse("a = \"é\" b\n").unwrap_err();
        assert_eq!(error.place, Some((1, 9)));
    }

    #[test]
    fn bytes_that_are_not_utf8_have_a_place() {
        let error =
            Document::from_bytes(Layer::User, Path::new("/u/x.toml"), Path::new("/u"), b"id = \"x\"\n# \xff".to_vec())
                .unwrap_err();
        assert_eq!(error.place, Some((2, 3)));
    }

    #[test]
    fn a_partial_file_is_named_after_its_file_and_keeps_only_what_it_says() {
        let document = parse("[env]\nA = \"1\"\n").unwrap();
        assert_eq!(document.id, "x");
        assert_eq!(document.table.keys().collect::<Vec<_>>(), ["env"]);
    }

    #[test]
    fn relative_programs_are_anchored_and_names_are_not() {
        let document =
            parse("argv = [\"./bin/t\", \"./a\"]\nfind = { also = [\"t\", \"sub/t\", \"/abs/t\"] }\n").unwrap();
        assert_eq!(document.table["argv"][0].as_str(), Some("/base/bin/t"));
        assert_eq!(document.table["argv"][1].as_str(), Some("./a"));
        let also: Vec<_> =
            document.table["find"]["also"].as_array().unwrap().iter().filter_map(toml::Value::as_str).collect();
        assert_eq!(also, ["t", "/base/sub/t", "/abs/t"]);
    }

    #[test]
    fn a_place_is_found_within_arrays_of_tables() {
        let document =
            parse("[[errors]]\npattern = 'a'\nkind = \"auth\"\n[[errors]]\npattern = '('\nkind = \"auth\"\n");
        let (error, depth) =
            document.unwrap().error_at(&["errors".into(), 1.into(), "pattern".into()], "is no regular expression", "");
        assert_eq!((error.place, depth), (Some((5, 1)), 3));
    }

    #[test]
    fn a_higher_layer_adds_to_tables_and_replaces_lists() {
        let mut base: toml::Table = toml::from_str("l = [1, 2]\n[t]\na = 1\nb = 1\n").unwrap();
        merge(&mut base, toml::from_str("l = [3]\n[t]\nb = 2\nc = 2\n").unwrap());
        assert_eq!(base, toml::from_str("l = [3]\n[t]\na = 1\nb = 2\nc = 2\n").unwrap());
    }

    /// Tables of up to three levels whose leaves stand below `k0`, `k1`, ... and whose tables stand below `t0`, `t1`, ...
    /// so that a key is always a table or always a leaf.
    fn tables() -> impl Strategy<Value = toml::Table> {
        let leaf = prop_oneof![
            any::<i64>().prop_map(toml::Value::Integer),
            "[a-z]{0,5}".prop_map(toml::Value::String),
            prop::collection::vec(any::<bool>().prop_map(toml::Value::Boolean), 0..3).prop_map(toml::Value::Array),
        ];
        let leaves = prop::collection::btree_map("k[0-4]", leaf, 0..4);
        let flat = leaves.clone().prop_map(|map| map.into_iter().collect::<toml::Table>());
        flat.prop_recursive(3, 24, 3, move |below| {
            (leaves.clone(), prop::collection::btree_map("t[0-2]", below, 0..3)).prop_map(|(leaves, tables)| {
                leaves.into_iter().chain(tables.into_iter().map(|(key, table)| (key, table.into()))).collect()
            })
        })
    }

    fn merged(a: &toml::Table, b: &toml::Table) -> toml::Table {
        let mut merged = a.clone();
        merge(&mut merged, b.clone());
        merged
    }

    proptest! {
        #[test]
        fn merging_is_associative(a in tables(), b in tables(), c in tables()) {
            prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
        }

        #[test]
        fn merging_disjoint_tables_commutes(a in tables(), b in tables()) {
            let under = |key: &str, table: toml::Table| toml::Table::from_iter([(key.to_owned(), table.into())]);
            let (a, b) = (under("a", a), under("b", b));
            let both = |table: toml::Table| (table["a"].clone(), table["b"].clone());
            prop_assert_eq!(both(merged(&a, &b)), both(merged(&b, &a)));
        }

        #[test]
        fn reading_never_panics(text in ".{0,200}", bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&text);
            let _ = parse(&format!("[repl]\nran = {text}\n"));
            let _ = Document::from_bytes(Layer::Given, Path::new("f.toml"), Path::new("/"), bytes);
        }

        #[test]
        fn any_toml_value_anywhere_is_read_or_refused_with_a_place(
            key in prop_oneof![Just("argv"), Just("driver"), Just("env"), Just("permissions"), Just("limits"), Just("nope")],
            table in tables(),
        ) {
            let text = toml::to_string(&toml::Table::from_iter([(key.to_owned(), table.into())])).unwrap();
            if let Err(error) = parse(&text) {
                prop_assert!(error.place.is_some(), "{} in {}", error, text);
            }
        }
    }
}
