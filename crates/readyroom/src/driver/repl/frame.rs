//! Framing: how a prompt is put so that a REPL takes all of it as one input and as data.

use base64::Engine as _;

use super::fence::Nonce;
use crate::tool::{ReplFrame, ReplSettings};

/// A prompt as it is written to the tool: whole lines.
pub(super) fn frame(settings: &ReplSettings, prompt: &str) -> String {
    match settings.frame {
        ReplFrame::Raw => format!("{prompt}\n"),
        ReplFrame::AiderBlock => {
            let tag = loop {
                let tag = Nonce::fresh().whole();
                if !prompt.contains(&tag) {
                    break tag;
                }
            };
            // The empty line keeps aider from taking a prompt that begins with `/` or `!` for a command.
            format!("{{{tag}\n\n{prompt}\n{tag}}}\n")
        }
        // As one `single` unit, so that the values of bare expressions are printed, as they are at a prompt.
        ReplFrame::PythonExec => format!(
            "import ast,base64;exec(compile(ast.Interactive(ast.parse(base64.b64decode('{}')).body),'<job>','single'))\n",
            encode(prompt)
        ),
        ReplFrame::BashEval => format!("eval \"$(printf %s {} | base64 -d)\" </dev/null\n", encode(prompt)),
        ReplFrame::Encoded => format!("{}\n", settings.wrap.replace("{base64}", &encode(prompt))),
    }
}

/// How many lines the tool reads for `input`.
pub(super) fn lines(input: &str) -> usize {
    input.bytes().filter(|byte| *byte == b'\n').count()
}

/// The length of the longest run of letters, of spaces or of signs in `text`, in bytes. Digits end a run.
pub(super) fn longest_run(text: &str) -> usize {
    let (mut longest, mut run, mut last) = (0, 0, Kind::Digit);
    for sign in text.chars() {
        let kind = Kind::of(sign);
        run = if kind == Kind::Digit {
            0
        } else if kind == last {
            run + sign.len_utf8()
        } else {
            sign.len_utf8()
        };
        last = kind;
        longest = longest.max(run);
    }
    longest
}

/// The kinds of signs that tokenisers keep together.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Letter,
    Space,
    Digit,
    Other,
}

impl Kind {
    fn of(sign: char) -> Self {
        match sign {
            _ if sign.is_alphabetic() => Self::Letter,
            _ if sign.is_whitespace() => Self::Space,
            _ if sign.is_numeric() => Self::Digit,
            _ => Self::Other,
        }
    }
}

fn encode(text: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: ReplFrame, prompt: &str) -> String {
        super::frame(&ReplSettings { frame: kind, wrap: "run('{base64}')".into(), ..ReplSettings::default() }, prompt)
    }

    #[test]
    fn a_block_begins_with_an_empty_line_and_ends_with_its_own_tag() {
        let text = frame(ReplFrame::AiderBlock, "/add x\n}\n!rm y");
        let tag = text[1..].split('\n').next().unwrap();
        assert!(tag.len() == 16 && tag.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        assert_eq!(text, format!("{{{tag}\n\n/add x\n}}\n!rm y\n{tag}}}\n"));
        assert_eq!(lines(&text), 6);
    }

    #[test]
    fn the_encoded_frames_are_one_line_whatever_the_prompt_holds() {
        for kind in [ReplFrame::PythonExec, ReplFrame::BashEval, ReplFrame::Encoded] {
            let text = frame(kind, "a\n\"'\n$(x)\\");
            assert_eq!(lines(&text), 1);
            assert!(text.ends_with('\n') && !text.contains("$(x)"));
        }
    }

    #[test]
    fn runs_are_measured_in_bytes() {
        assert_eq!(longest_run("ab cde-f\nghij1k"), 4);
        assert_eq!(longest_run("ääa"), 5);
        assert_eq!(longest_run("a \n\t b"), 4);
        assert_eq!(longest_run("a(){};b"), 5);
        assert_eq!(longest_run("1234567890"), 0);
        assert_eq!(longest_run(""), 0);
    }
}
