//! Framing: how a prompt is put so that a REPL takes all of it as one input and as data.

use base64::Engine as _;

use super::fence::Nonce;
use crate::tool::ReplFrame;

/// A prompt as it is written to the tool: whole lines.
pub(super) fn frame(kind: ReplFrame, prompt: &str) -> String {
    match kind {
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
    }
}

/// How many lines the tool reads for `input`.
pub(super) fn lines(input: &str) -> usize {
    input.bytes().filter(|byte| *byte == b'\n').count()
}

/// The length of the longest run of letters in `text`, in bytes.
pub(super) fn longest_word(text: &str) -> usize {
    text.split(|letter: char| !letter.is_alphabetic()).map(str::len).max().unwrap_or(0)
}

fn encode(text: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(text)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        for kind in [ReplFrame::PythonExec, ReplFrame::BashEval] {
            let text = frame(kind, "a\n\"'\n$(x)\\");
            assert_eq!(lines(&text), 1);
            assert!(text.ends_with('\n') && !text.contains("$(x)"));
        }
    }

    #[test]
    fn words_are_measured_in_bytes_of_letters() {
        assert_eq!(longest_word("ab cde-f\nghij1k"), 4);
        assert_eq!(longest_word("ääa"), 5);
        assert_eq!(longest_word(""), 0);
    }
}
