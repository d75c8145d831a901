//! The placeholders of prompts and output names: `{}`, `{/}`, `{//}`, `{.}`, `{/.}` and `{#}`, as GNU parallel has
//! them. Only these exact tokens are replaced. All other braces stay as they are, so that JSON and code can stand in a
//! prompt.

/// A part of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Token(Token),
}

/// A placeholder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Input,
    BaseName,
    Directory,
    Stem,
    BaseStem,
    Number,
}

impl Token {
    /// What the token stands for.
    fn value(self, input: &str, number: usize) -> String {
        match self {
            Self::Input => input.to_owned(),
            Self::BaseName => base_name(input).to_owned(),
            Self::Directory => directory(input).to_owned(),
            Self::Stem => without_extension(input).to_owned(),
            Self::BaseStem => without_extension(base_name(input)).to_owned(),
            Self::Number => number.to_string(),
        }
    }
}

/// A text with placeholders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
    input_token: String,
}

/// A replacement for `{}` that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadToken {
    /// Nothing.
    #[error("-I needs a string that is not empty")]
    Empty,
    /// Already a placeholder.
    #[error("-I {0} would hide the placeholder {0}; choose another string")]
    Taken(String),
}

const FIXED: [(&str, Token); 5] = [
    ("{/}", Token::BaseName),
    ("{//}", Token::Directory),
    ("{.}", Token::Stem),
    ("{/.}", Token::BaseStem),
    ("{#}", Token::Number),
];

impl Template {
    /// Finds the placeholders in `text`; `input_token` stands for the input (`{}` unless `-I` changes it).
    ///
    /// # Errors
    /// The token is empty or is another placeholder.
    pub fn parse(text: &str, input_token: &str) -> Result<Self, BadToken> {
        if input_token.is_empty() {
            return Err(BadToken::Empty);
        }
        if FIXED.iter().any(|(token, _)| *token == input_token) {
            return Err(BadToken::Taken(input_token.to_owned()));
        }
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let found = std::iter::once((input_token, Token::Input))
                .chain(FIXED)
                .find_map(|(token, kind)| rest.strip_prefix(token).map(|rest| (kind, rest)));
            match found {
                Some((token, after)) => {
                    if !literal.is_empty() {
                        parts.push(Part::Literal(std::mem::take(&mut literal)));
                    }
                    parts.push(Part::Token(token));
                    rest = after;
                }
                None => {
                    literal.push(first);
                    rest = &rest[first.len_utf8()..];
                }
            }
        }
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Ok(Self { parts, input_token: input_token.to_owned() })
    }

    /// The first placeholder that stands for the input or a part of it, as it is written.
    pub fn uses_input(&self) -> Option<&str> {
        self.parts.iter().find_map(|part| match part {
            Part::Token(Token::Input) => Some(self.input_token.as_str()),
            Part::Token(Token::Number) | Part::Literal(_) => None,
            Part::Token(token) => FIXED.iter().find(|(_, kind)| kind == token).map(|(text, _)| *text),
        })
    }

    /// The text with every placeholder replaced. Nothing in the input is looked at for placeholders again.
    pub fn fill(&self, input: &str, number: usize) -> String {
        self.parts
            .iter()
            .map(|part| match part {
                Part::Literal(text) => text.clone(),
                Part::Token(token) => token.value(input, number),
            })
            .collect()
    }
}

fn base_name(input: &str) -> &str {
    input.rsplit_once('/').map_or(input, |(_, base)| base)
}

fn directory(input: &str) -> &str {
    let trimmed = input.trim_end_matches('/');
    if trimmed.is_empty() && !input.is_empty() {
        return "/";
    }
    match trimmed.rsplit_once('/') {
        None => ".",
        Some((directory, _)) => match directory.trim_end_matches('/') {
            "" => "/",
            directory => directory,
        },
    }
}

fn without_extension(input: &str) -> &str {
    match input.rsplit_once('.') {
        Some((before, extension)) if !extension.is_empty() && !extension.contains('/') => before,
        _ => input,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fill(template: &str, input: &str) -> String {
        Template::parse(template, "{}").unwrap().fill(input, 7)
    }

    #[test]
    fn each_placeholder_is_replaced_as_gnu_parallel_does() {
        let template = "{}|{/}|{//}|{.}|{/.}|{#}";
        for (input, expected) in [
            ("src/a.b.py", "src/a.b.py|a.b.py|src|src/a.b|a.b|7"),
            ("a", "a|a|.|a|a|7"),
            ("/a", "/a|a|/|/a|a|7"),
            ("a.d/b", "a.d/b|b|a.d|a.d/b|b|7"),
            ("a b/c d.txt", "a b/c d.txt|c d.txt|a b|a b/c d|c d|7"),
            ("a//b.c", "a//b.c|b.c|a|a//b|b|7"),
            ("name.", "name.|name.|.|name.|name.|7"),
            ("dir/", "dir/||.|dir/||7"),
            ("/", "/||/|/||7"),
        ] {
            assert_eq!(fill(template, input), expected, "{input}");
        }
    }

    #[test]
    fn other_braces_stay() {
        let text = r#"{"a": {"b": [1]}} ${x} {{ }} { } {0} {/ } {...}"#;
        assert_eq!(fill(text, "input"), text);
        assert_eq!(fill("{{}}", "x"), "{x}");
        assert_eq!(fill("{}{}", "{#}"), "{#}{#}");
    }

    #[test]
    fn another_token_can_stand_for_the_input() {
        let template = Template::parse("fix %% as {} says in {/}", "%%").unwrap();
        assert_eq!(template.fill("d/f", 1), "fix d/f as {} says in f");
        assert_eq!(template.uses_input(), Some("%%"));
        assert_eq!(Template::parse("", ""), Err(BadToken::Empty));
        assert_eq!(Template::parse("", "{#}"), Err(BadToken::Taken("{#}".into())));
    }

    #[test]
    fn the_number_is_no_use_of_the_input() {
        assert_eq!(Template::parse("job {#}", "{}").unwrap().uses_input(), None);
        assert_eq!(Template::parse("{#} {//}", "{}").unwrap().uses_input(), Some("{//}"));
    }

    proptest! {
        #[test]
        fn text_without_tokens_is_unchanged(text in "[^}]*", input in ".*") {
            prop_assert_eq!(fill(&text, &input), text);
        }

        #[test]
        fn replacing_equals_splitting_at_the_token(parts in prop::collection::vec("[^{}]*", 1..6), input in "[^{}]*") {
            prop_assert_eq!(fill(&parts.join("{}"), &input), parts.join(&input));
        }

        #[test]
        fn directory_and_base_name_make_the_path_again(path in "[a-z]{1,4}(/[a-z.]{1,4}){1,3}") {
            prop_assert_eq!(fill("{//}/{/}", &path), path);
        }

        #[test]
        fn what_is_cut_off_is_an_extension(path in "([a-z.]{0,3}/){0,2}[a-z.]{0,5}") {
            let stem = fill("{.}", &path);
            let cut = path.strip_prefix(stem.as_str()).unwrap();
            prop_assert!(cut.is_empty() || (cut.starts_with('.') && cut.len() > 1 && !cut[1..].contains(['.', '/'])));
        }
    }
}
