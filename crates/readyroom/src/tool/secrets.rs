//! Keeps the values of secret variables out of what is told: errors, events, logs.

use std::collections::BTreeMap;
use std::ffi::OsString;

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
        let secret = |(name, value): (&OsString, &OsString)| {
            let value = value.to_str()?.trim();
            (value.len() >= SHORTEST && is_secret(name.to_str()?)).then(|| value.to_owned())
        };
        let mut values: Vec<String> = env.iter().filter_map(secret).collect();
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
        ];
        let env = env.map(|(name, value)| (name.into(), value.into())).into();
        let secrets = Secrets::of(&definition, &env);
        let mut failure = Failure::new(FailureKind::Auth, "no: sk-0123456789 and abc")
            .with_stderr("key=sk-0123456789-longer, en_US.UTF-8");
        secrets.hide_in(&mut failure);
        assert_eq!(failure.message, "no: [secret] and abc");
        assert_eq!(failure.evidence, "key=[secret], en_US.UTF-8");
    }
}
