//! Keeps the values of secret variables, and what is secret in a variable that holds JSON, out of what is told: errors,
//! events, logs.

use std::collections::BTreeMap;
use std::ffi::OsString;

use serde_json::Value;

use super::Definition;
use crate::error::Failure;

/// Stands where a secret stood.
const HIDDEN: &str = "[secret]";

/// Shorter values are no secrets worth the name, and stand in other words by chance.
const SHORTEST: usize = 8;

/// The values of a tool's variables that hold secrets, by the rules of its definition.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Secrets(Vec<String>);

impl Secrets {
    /// Those of an environment.
    pub fn of(definition: &Definition, env: &BTreeMap<OsString, OsString>) -> Self {
        let is_secret = definition.secrecy();
        let texts = env.iter().filter_map(|(name, value)| Some((name.to_str()?, value.to_str()?)));
        Self::all(texts.flat_map(|(name, value)| match is_secret(name) {
            true => vec![value.trim().to_owned()],
            false => in_json(value, &is_secret),
        }))
    }

    /// Those in the value of a variable that is no secret as a whole.
    pub fn within(definition: &Definition, value: &str) -> Self {
        Self::all(in_json(value, &definition.secrecy()))
    }

    fn all(values: impl IntoIterator<Item = String>) -> Self {
        let mut values: Vec<String> = values.into_iter().filter(|value| value.len() >= SHORTEST).collect();
        // One that holds another goes first.
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        values.dedup();
        Self(values)
    }

    /// Takes them out of a text.
    pub fn hide(&self, text: &mut String) {
        for value in &self.0 {
            if text.contains(value.as_str()) {
                *text = text.replace(value.as_str(), HIDDEN);
            }
        }
    }

    /// Takes them out of a failure.
    pub fn hide_in(&self, failure: &mut Failure) {
        self.hide(&mut failure.message);
        self.hide(&mut failure.evidence);
    }
}

/// The texts in a JSON value that are secrets by their own name, or by that of something that they are in: as they are, and as
/// JSON writes them.
fn in_json(text: &str, is_secret: &impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    let Ok(whole) = serde_json::from_str::<Value>(text) else { return found };
    let mut open = vec![(&whole, false)];
    while let Some((value, secret)) = open.pop() {
        match value {
            Value::Object(members) => {
                open.extend(members.iter().map(|(name, value)| (value, secret || is_secret(name))));
            }
            Value::Array(values) => open.extend(values.iter().map(|value| (value, secret))),
            Value::String(text) if secret => {
                found.extend([text.clone(), value.to_string().trim_matches('"').to_owned()]);
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::FailureKind;

    #[test]
    fn values_of_secret_variables_are_taken_out_wherever_they_stand() {
        let definition: Definition = toml::from_str("id = \"t\"\ndriver = \"acp\"\nargv = [\"t\"]").unwrap();
        let env = [
            ("OPENAI_API_KEY", "sk-0123456789"),
            ("MY_TOKEN", "sk-0123456789-longer"),
            ("SHORT_KEY", "abc"),
            ("LANG", "en_US.UTF-8"),
            (
                "CONFIG",
                r#"{"name":"en_US.UTF-8","of":[{"apiKey":"in\\json-01"},{"tokens":{"a":"in-json-02"}}],"token":7}"#,
            ),
        ];
        let env = env.map(|(name, value)| (name.into(), value.into())).into();
        let secrets = Secrets::of(&definition, &env);
        let mut failure = Failure::new(FailureKind::Auth, "no: sk-0123456789 and abc")
            .with_stderr("key=sk-0123456789-longer, en_US.UTF-8");
        secrets.hide_in(&mut failure);
        assert_eq!(failure.message, "no: [secret] and abc");
        assert_eq!(failure.evidence, "key=[secret], en_US.UTF-8");
        let mut text = r#"{"apiKey":"in\\json-01"} is in\json-01, and in-json-02"#.to_owned();
        secrets.hide(&mut text);
        assert_eq!(text, r#"{"apiKey":"[secret]"} is [secret], and [secret]"#);
    }
}
