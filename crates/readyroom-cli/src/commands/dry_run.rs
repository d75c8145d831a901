//! `readyroom run --dry-run`: what would be done, in words, with nothing started.

use std::ffi::OsStr;
use std::fmt::Write as _;

use readyroom::tool::Contract;

use crate::plan::Plan;
use crate::report::text;
use crate::settings::Settings;

/// The plan as text. `contracts` holds that of each pool.
pub fn describe(plan: &Plan, contracts: &[Contract], settings: &Settings) -> String {
    let mut out = String::new();
    for (at, (pool, contract)) in plan.pools.iter().zip(contracts).enumerate() {
        let kind = &pool.kind;
        let _ = writeln!(out, "pool {}: {} of {}", at + 1, text::count(pool.instances, "instance"), kind.tool);
        let argv: Vec<String> = contract.argv().iter().map(|word| quote(word)).collect();
        let _ = writeln!(out, "  command      {}", argv.join(" "));
        let _ = writeln!(out, "  directory    {}", kind.directory.display());
        if kind.worktree {
            let _ = writeln!(out, "  workspace    a git worktree for each instance");
        }
        let _ = writeln!(out, "  permissions  {}", kind.permissions);
        if let Some(model) = &kind.model {
            let _ = writeln!(out, "  model        {model}");
        }
        if settings.isolated_home {
            let _ = writeln!(out, "  HOME         a new, empty directory");
        }
        if settings.one_shot {
            let _ = writeln!(out, "  processes    one for each job");
        }
    }
    for (at, planned) in plan.jobs.iter().enumerate() {
        let _ = writeln!(out, "\njob {}: {} (pool {})", at + 1, text::one_line(&plan.label(at)), planned.pool + 1);
        for prompt in &planned.job.prompts {
            let _ = writeln!(out, "  prompt       {}", prompt.replace('\n', "\n               "));
        }
        for file in &planned.job.files {
            let _ = writeln!(out, "  file         {}", text::one_line(&file.to_string_lossy()));
        }
        if let Some(key) = &planned.job.key {
            let _ = writeln!(out, "  key          {}", text::one_line(key));
        }
        if let Some(limit) = planned.job.timeout {
            let _ = writeln!(out, "  timeout      {}", text::time(limit));
        }
        let checks = &planned.job.checks;
        if let Some(verify) = &checks.verify {
            let argv: Vec<String> = verify.argv.iter().map(|word| quote(word.as_ref())).collect();
            let _ = writeln!(out, "  verify       {} ({} rounds)", argv.join(" "), verify.rounds);
        }
        let needs = [
            (checks.require_change, "a change"),
            (checks.only_files, "no change of other files"),
            (checks.schema.is_some(), "a JSON value that fits the schema"),
        ];
        for (_, need) in needs.iter().filter(|(wanted, _)| *wanted) {
            let _ = writeln!(out, "  needs        {need}");
        }
        if let Some(output) = &planned.output {
            let _ = writeln!(out, "  answer to    {}", text::one_line(&output.to_string_lossy()));
        }
    }
    out
}

/// The word as a shell would need it.
fn quote(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |char: char| char.is_ascii_alphanumeric() || "-_./=:,@%+".contains(char);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_a_shell_needs_it() {
        for (word, quoted) in [("--a=b", "--a=b"), ("a b", "'a b'"), ("it's", r"'it'\''s'"), ("", "''")] {
            assert_eq!(quote(OsStr::new(word)), quoted);
        }
    }
}
