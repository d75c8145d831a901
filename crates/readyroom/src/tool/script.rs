//! Scripts: which interpreter a program that is a text names for itself.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// As much of a script as its interpreter can stand in.
const HEAD: u64 = 4096;

/// The Python interpreter that a script names, as an absolute path; `None` where it is no script, or names another.
pub fn interpreter(program: &Path) -> Option<PathBuf> {
    let mut head = Vec::new();
    File::open(program).ok()?.take(HEAD).read_to_end(&mut head).ok()?;
    named(&String::from_utf8_lossy(&head)).filter(|path| path.is_absolute())
}

/// `#!/path/python`, or what installers write where that line would be too long or holds a blank: a shell that executes
/// the path in quotes.
fn named(head: &str) -> Option<PathBuf> {
    let mut lines = head.lines();
    let first = lines.next()?.strip_prefix("#!")?.trim();
    let path = match first {
        "/bin/sh" => {
            let rest = lines.next()?.strip_prefix("'''exec' ")?;
            match rest.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"')?.0,
                None => rest.split_once(' ')?.0,
            }
        }
        // Options of the interpreter change what a fork of it would have to be.
        _ if first.contains(' ') => return None,
        _ => first,
    };
    let path = PathBuf::from(path);
    path.file_name()?.to_str()?.starts_with("python").then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interpreter_is_what_the_first_line_names() {
        let python = |head: &str| named(head).map(|path| path.display().to_string());
        assert_eq!(python("#!/v/bin/python3.11\nimport x\n"), Some("/v/bin/python3.11".into()));
        assert_eq!(python("#!/bin/sh\n'''exec' /a/long/python \"$0\" \"$@\"\n"), Some("/a/long/python".into()));
        assert_eq!(python("#!/bin/sh\n'''exec' \"/a b/python\" \"$0\" \"$@\"\n"), Some("/a b/python".into()));
        for other in [
            "",
            "#!/bin/sh\nexec python\n",
            "#!/usr/bin/env python3\n",
            "#!/v/python -E\n",
            "#!/bin/bash\n",
            "\u{7f}ELF",
        ] {
            assert_eq!(python(other), None, "{other:?}");
        }
    }
}
