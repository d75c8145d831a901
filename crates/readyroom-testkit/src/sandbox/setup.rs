//! How each tool is pointed at the local model: the configuration that a person would write by hand.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;

type Variables = BTreeMap<String, String>;

fn variables<const N: usize>(pairs: [(&str, String); N]) -> Variables {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// What all sandboxes have. Tools that find no name for commits write one into the repository's configuration (aider,
/// and two of them at once get into each other's way), so HOME has one.
pub(super) fn common(home: &Path) -> Variables {
    let config = "[user]\n\tname = test\n\temail = test@localhost\n";
    std::fs::write(home.join(".gitconfig"), config).expect("HOME can be written");
    variables([
        ("HOME", home.display().to_string()),
        ("LANG", "C.UTF-8".into()),
        ("TERM", "xterm-256color".into()),
        ("GIT_CONFIG_NOSYSTEM", "1".into()),
    ])
}

/// Names of the caller's variables that would change what a tool does: keys, addresses, settings of the tools.
pub(super) fn foreign_variables() -> Vec<String> {
    const PARTS: [&str; 3] = ["API_KEY", "BASE_URL", "API_BASE"];
    const PREFIXES: [&str; 14] = [
        "AIDER_",
        "ANTHROPIC_",
        "AWS_",
        "AZURE_",
        "CLAUDE",
        "CODEX",
        "GEMINI",
        "GOOGLE_",
        "LITELLM_",
        "OPENAI_",
        "OPENCODE",
        "OPENROUTER_",
        "READYROOM_",
        "XDG_",
    ];
    std::env::vars_os()
        .filter_map(|(name, _)| name.into_string().ok())
        .filter(|name| {
            PARTS.iter().any(|part| name.contains(part)) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        })
        .collect()
}

/// Writes the tool's configuration below `home` and gives the variables that it needs.
pub(super) fn configure(tool: &str, url: &str, home: &Path) -> Variables {
    let write = |path: &str, text: String| {
        let path = home.join(path);
        std::fs::create_dir_all(path.parent().expect("a path below HOME")).expect("its directory can be made");
        std::fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    };
    match tool {
        "aider" => {
            write(".aider.conf.yml", "model: openai/gpt-4o\n".into());
            // Naming a model replaces its known settings, so they are repeated here.
            write(
                ".aider.model.settings.yml",
                "- name: openai/gpt-4o\n  edit_format: diff\n  weak_model_name: openai/gpt-4o-mini\n  \
                 use_repo_map: true\n  extra_params: { max_retries: 0, num_retries: 0 }\n"
                    .into(),
            );
            // A price list that is young and not empty keeps aider from asking the network for one.
            write(".aider/caches/model_prices_and_context_window.json", json!({ "none": {} }).to_string());
            variables([("OPENAI_API_BASE", format!("{url}/v1")), ("OPENAI_API_KEY", "sk-local".into())])
        }
        "claude" => variables([
            ("ANTHROPIC_BASE_URL", url.to_owned()),
            ("ANTHROPIC_API_KEY", "sk-ant-local".into()),
            ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1".into()),
            ("DISABLE_AUTOUPDATER", "1".into()),
        ]),
        "codex" => {
            write(
                ".codex/config.toml",
                format!(
                    "model = \"gpt-5\"\nmodel_provider = \"local\"\n\n[model_providers.local]\nname = \"local\"\n\
                     base_url = \"{url}/v1\"\nenv_key = \"LOCAL_MODEL_KEY\"\nwire_api = \"responses\"\n"
                ),
            );
            variables([("LOCAL_MODEL_KEY", "sk-local".into())])
        }
        "gemini" => {
            write(
                ".gemini/settings.json",
                json!({
                    "security": { "auth": { "selectedType": "gemini-api-key" }, "folderTrust": { "enabled": false } },
                    "telemetry": { "enabled": false },
                    "model": { "name": "gemini-2.5-flash", "skipNextSpeakerCheck": true },
                    "general": { "enableAutoUpdate": false },
                    "privacy": { "usageStatisticsEnabled": false },
                })
                .to_string(),
            );
            variables([
                ("GEMINI_API_KEY", "local".into()),
                ("GOOGLE_GEMINI_BASE_URL", url.to_owned()),
                ("GEMINI_CLI_TRUST_WORKSPACE", "true".into()),
            ])
        }
        "opencode" => {
            // A file and not the variable OPENCODE_CONFIG_CONTENT, which is left to definitions.
            write(
                ".config/opencode/opencode.json",
                json!({
                    "provider": { "local": {
                        "npm": "@ai-sdk/openai-compatible",
                        "name": "local",
                        "options": { "baseURL": format!("{url}/v1"), "apiKey": "local" },
                        "models": { "m": { "name": "m" } },
                    } },
                    "model": "local/m",
                    "autoupdate": false,
                })
                .to_string(),
            );
            variables([("OPENCODE_DISABLE_MODELS_FETCH", "1".into()), ("OPENCODE_DISABLE_AUTOUPDATE", "1".into())])
        }
        _ => panic!("no set-up is known for {tool}; use Sandbox::bare"),
    }
}
