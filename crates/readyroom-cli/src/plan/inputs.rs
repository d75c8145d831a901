//! Inputs: the words behind PROMPT, and stdin where one of them is `-`.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, ErrorKind};
use std::path::Path;

use anyhow::{Context as _, bail};

use super::records;

/// The longest input from stdin, in bytes.
const INPUT_LIMIT: usize = 1 << 20;

/// Collects the inputs; `-` is replaced by the records of `stdin`.
///
/// # Errors
/// An input is not UTF-8, or stdin can't be read.
pub fn collect(words: &[OsString], null: bool, stdin: &mut dyn BufRead) -> anyhow::Result<Vec<String>> {
    let mut inputs = Vec::new();
    for word in words {
        if word == "-" {
            let separator = if null { 0 } else { b'\n' };
            for (number, bytes) in records::read(stdin, separator, INPUT_LIMIT, "stdin")? {
                match String::from_utf8(bytes) {
                    Ok(input) => inputs.push(input),
                    Err(error) => bail!(
                        "stdin:{number}:{}: the input {:?} is not UTF-8; tools get names as text, so rename the file",
                        records::bad_utf8_column(&error.utf8_error()),
                        String::from_utf8_lossy(error.as_bytes())
                    ),
                }
            }
        } else {
            inputs.push(text(word, "input")?);
        }
    }
    Ok(inputs)
}

/// The word as text.
///
/// # Errors
/// It is not UTF-8.
pub fn text(word: &OsStr, what: &str) -> anyhow::Result<String> {
    word.to_str().map(str::to_owned).with_context(|| {
        format!(
            "the {what} {word:?} is not UTF-8; tools get text, so write it as UTF-8, and rename a file that it names"
        )
    })
}

/// What an input is, seen from the directory that the tool works in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A file that can be read.
    File,
    /// A directory.
    Directory,
    /// Nothing on disk, or something that is no plain file: a word.
    Word,
}

/// Looks at `input`.
///
/// # Errors
/// It is a file that can't be read.
pub fn kind(input: &str, directory: &Path) -> anyhow::Result<Kind> {
    let path = directory.join(input);
    match path.metadata() {
        Ok(data) if data.is_file() => {
            std::fs::File::open(&path)
                .with_context(|| format!("the file {input} can't be read; change its mode or leave it out"))?;
            Ok(Kind::File)
        }
        Ok(data) if data.is_dir() => Ok(Kind::Directory),
        Ok(_) => Ok(Kind::Word),
        Err(error) => match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidFilename | ErrorKind::InvalidInput => {
                Ok(Kind::Word)
            }
            _ => Err(error).with_context(|| format!("{input} can't be looked at; mend that or leave it out")),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;

    #[test]
    fn a_dash_stands_for_the_lines_of_stdin() {
        let words = ["a".into(), "-".into(), "b".into()];
        assert_eq!(collect(&words, false, &mut &b"x y\n\nz"[..]).unwrap(), ["a", "x y", "z", "b"]);
        assert_eq!(collect(&["-".into()], true, &mut &b"x\ny\0z\0"[..]).unwrap(), ["x\ny", "z"]);
        let untouched = collect(&["a".into()], false, &mut &b"x"[..]).unwrap();
        assert_eq!(untouched, ["a"]);
    }

    #[test]
    fn names_that_are_not_utf8_are_refused_with_the_reason() {
        let error = collect(&[OsString::from_vec(vec![b'a', 0xff])], false, &mut &b""[..]).unwrap_err().to_string();
        assert!(error.contains(r#""a\xFF" is not UTF-8"#), "{error}");
        let error = collect(&["-".into()], false, &mut &b"ok\na\xff\n"[..]).unwrap_err().to_string();
        assert!(error.starts_with("stdin:2:2: "), "{error}");
    }
}
