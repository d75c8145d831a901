//! A tool's version, by running it. The only thing on this floor that starts a process, and it leaves none behind.

use std::time::Duration;

use tokio::io::AsyncReadExt as _;

use super::discovery::version_args;
use super::{Definition, Found};
use crate::error::{Exit, Failure, FailureKind};
use crate::process::{self, Command, Io, Tail};

/// How long a tool may take to tell its version. On a busy machine some need several seconds.
const LIMIT: Duration = Duration::from_secs(30);
/// How long what the tool started may go on after its answer.
const GRACE: Duration = Duration::from_millis(200);
/// How much of its output is looked at.
const KEPT: usize = 64 << 10;

/// Asks the tool that was found for its version: `None` where its definition does not say how. Nothing of the tool's own
/// permissions or model matters for that, and its environment is the definition's.
///
/// # Errors
/// `ToolMissing` that says "found but": it can't be started, ends with another status than 0, does not end within 30 s,
/// or prints nothing that looks like a version.
pub async fn version(definition: &Definition, found: &Found) -> Result<Option<String>, Failure> {
    version_within(definition, found, LIMIT).await
}

/// As [`version`], with another limit than 30 s.
///
/// # Errors
/// As [`version`].
pub async fn version_within(
    definition: &Definition,
    found: &Found,
    limit: Duration,
) -> Result<Option<String>, Failure> {
    let args = version_args(definition);
    if args.is_empty() {
        return Ok(None);
    }
    let mut command = Command::new(&found.program);
    command.io = Io::Merged;
    command.args = found.words.iter().chain(&args).map(Into::into).collect();
    command.env.extend(definition.env.iter().map(|(name, value)| (name.into(), value.into())));
    for name in &definition.unset_env {
        command.env.remove(std::ffi::OsStr::new(name));
    }
    let shown = std::iter::once(found.program.to_string_lossy().into_owned())
        .chain(found.words.iter().chain(&args).cloned())
        .collect::<Vec<_>>()
        .join(" ");
    let broken = |why: String, output: &Tail| {
        let mut message = format!("`{}` was found but is broken: `{shown}` {why}", definition.id);
        if !definition.find.install.is_empty() {
            message.push_str(&format!("; install it again with: {}", definition.find.install));
        }
        Failure::new(FailureKind::ToolMissing, message).with_stderr(output.text())
    };
    let mut output = Tail::new(KEPT);
    let process = process::spawn(&command).await;
    let mut process = match process {
        Ok(process) => process,
        Err(error @ process::SpawnError::Guardian(_)) => {
            return Err(Failure::new(FailureKind::NotReady, error.to_string()));
        }
        Err(error) => return Err(broken(format!("can't be started: {error}"), &output)),
    };
    drop(process.stdin);
    let read = async {
        let mut bytes = vec![0; 8192];
        // The end of the output may never come where a child has inherited it, so the leader's end counts too.
        loop {
            tokio::select! {
                biased;
                read = process.stdout.read(&mut bytes) => match read {
                    Ok(0) | Err(_) => break process.handle.wait().await,
                    Ok(length) => output.push(&bytes[..length]),
                },
                exit = process.handle.wait() => {
                    // What was written before the end is in the pipe by now.
                    while let Ok(Ok(length @ 1..)) =
                        tokio::time::timeout(GRACE, process.stdout.read(&mut bytes)).await
                    {
                        output.push(&bytes[..length]);
                    }
                    break exit;
                }
            }
        }
    };
    let exit = tokio::time::timeout(limit, read).await;
    process.handle.end_tree(GRACE).await;
    match exit {
        Err(_) => Err(broken(format!("did not end within {} s", limit.as_secs_f64()), &output)),
        Ok(Exit::Status(0)) => match pick(definition, &output.text()) {
            Some(version) => Ok(Some(version)),
            None => Err(broken("printed no version".into(), &output)),
        },
        Ok(exit) => {
            let text = output.text();
            let last = text.lines().map(str::trim).rfind(|line| !line.is_empty());
            let said = last.map(|line| format!(", after it said: {line}")).unwrap_or_default();
            Err(broken(format!("ended with {exit}{said}"), &output))
        }
    }
}

/// The version in what a tool printed: the pattern's first group, else the first line.
fn pick(definition: &Definition, text: &str) -> Option<String> {
    let pattern = &definition.find.version_pattern;
    if pattern.is_empty() {
        return text.lines().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned);
    }
    let pattern = regex::Regex::new(&format!("(?m){pattern}")).ok()?;
    Some(pattern.captures(text)?.get(1)?.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(more: &str) -> Definition {
        toml::from_str(&format!("id = \"t\"\ndriver = \"acp\"\nargv = [\"t\"]\n[find]\n{more}\n")).unwrap()
    }

    #[test]
    fn the_version_is_picked_by_the_pattern_on_any_line() {
        let definition = tool(r"version_pattern = '^(\d+\.\d+)'");
        assert_eq!(pick(&definition, "warning: 9.9\n1.2 (Tool)\n").as_deref(), Some("1.2"));
        assert_eq!(pick(&definition, "none"), None);
        assert_eq!(pick(&tool(""), "\n tool 3 \n").as_deref(), Some("tool 3"));
        assert_eq!(pick(&tool(""), "\n"), None);
    }
}
