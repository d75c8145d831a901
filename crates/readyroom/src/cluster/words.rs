//! What the text of a `send` is: a context command, or a prompt.

use std::path::PathBuf;

use crate::driver::ContextCommand;
use crate::error::{Failure, FailureKind};
use crate::job::Mode;
use crate::tool::Commands;

/// A text that was sent.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Sent {
    Context(ContextCommand),
    Prompt { mode: Mode, text: String },
}

/// Reads a text. Words that the tool does not have as commands are part of a prompt, whatever they begin with.
pub(super) fn read(text: &str, commands: &Commands) -> Result<Sent, Failure> {
    let (word, rest) = match text.find(char::is_whitespace) {
        Some(at) => (&text[..at], text[at..].trim_start()),
        None => (text, ""),
    };
    let known = |list: &[String], own: &[&str]| {
        if commands.native() { list.iter().any(|known| known == word) } else { own.contains(&word) }
    };
    if known(&commands.context, &["/add", "/drop"]) {
        let path = unquoted(rest.trim_end());
        if path.is_empty() {
            return Err(Failure::new(FailureKind::BadInput, format!("{word} needs a file: `{word} FILE`")));
        }
        let path = PathBuf::from(path);
        return match word {
            "/drop" => Ok(Sent::Context(ContextCommand::Drop(path))),
            "/read-only" => Ok(Sent::Context(ContextCommand::ReadOnly(path))),
            _ => Ok(Sent::Context(ContextCommand::Add(path))),
        };
    }
    if known(&commands.prompt, &["/ask", "/code"]) {
        let mode = match word {
            "/ask" => Mode::Ask,
            "/architect" => Mode::Architect,
            _ => Mode::Code,
        };
        if rest.trim().is_empty() {
            return Err(Failure::new(FailureKind::BadInput, format!("{word} needs a prompt: `{word} TEXT`")));
        }
        return Ok(Sent::Prompt { mode, text: rest.to_owned() });
    }
    if text.trim().is_empty() {
        return Err(Failure::new(FailureKind::BadInput, "the prompt is empty"));
    }
    Ok(Sent::Prompt { mode: Mode::Default, text: text.to_owned() })
}

/// A path is one file, spaces and all; a pair of quotes around the whole of it is taken off.
fn unquoted(path: &str) -> &str {
    for quote in ['"', '\''] {
        if let Some(inner) = path.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote))
            && !inner.contains(quote)
        {
            return inner;
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aider() -> Commands {
        Commands {
            context: ["/add", "/drop", "/read-only"].map(String::from).to_vec(),
            prompt: ["/ask", "/code", "/architect"].map(String::from).to_vec(),
        }
    }

    #[test]
    fn a_path_with_spaces_is_one_file() {
        for text in ["/add my file.py", "/add 'my file.py'", "/add \"my file.py\"\n"] {
            assert_eq!(
                read(text, &aider()).unwrap(),
                Sent::Context(ContextCommand::Add("my file.py".into())),
                "{text:?}"
            );
        }
    }

    #[test]
    fn what_a_prompt_command_carries_is_data() {
        assert_eq!(read("/ask !rm x", &aider()).unwrap(), Sent::Prompt { mode: Mode::Ask, text: "!rm x".into() });
    }

    #[test]
    fn other_words_are_prompts() {
        for text in ["/run ls", "!ls", "hello", "/adder x", "/read-only x"] {
            let own = Commands::default();
            assert_eq!(read(text, &own).unwrap(), Sent::Prompt { mode: Mode::Default, text: text.into() });
        }
    }

    #[test]
    fn nothing_is_refused_with_a_reason() {
        for text in ["", "  ", "/add", "/ask ", "/add  \n"] {
            assert_eq!(read(text, &aider()).unwrap_err().kind, FailureKind::BadInput, "{text:?}");
        }
    }
}
