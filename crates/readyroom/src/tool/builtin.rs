//! The tools that readyroom knows by itself: one TOML file each, compiled in.

/// Name and text of each built-in definition.
pub const BUILTIN: [(&str, &str); 5] = [
    ("aider", include_str!("builtin/aider.toml")),
    ("claude", include_str!("builtin/claude.toml")),
    ("codex", include_str!("builtin/codex.toml")),
    ("gemini", include_str!("builtin/gemini.toml")),
    ("opencode", include_str!("builtin/opencode.toml")),
];

#[cfg(test)]
mod tests {
    use super::BUILTIN;
    use crate::tool::Definition;

    #[test]
    fn every_builtin_definition_reads() {
        for (name, text) in BUILTIN {
            let definition: Definition = toml::from_str(text).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(definition.id, name);
        }
    }
}
