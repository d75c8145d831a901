//! The readers below the drivers: lines, and the fence's marker.

use readyroom::driver::line::Lines;
use readyroom::driver::repl::fence::{Finder, Nonce};

/// The first byte says how the rest is cut. Every line comes out once, as it would from a plain split, however it was
/// cut; a line above the bound is an error and nothing else is.
pub fn lines(data: &[u8]) {
    const LIMIT: usize = 64;
    let Some((cut, stream)) = data.split_first() else { return };
    let mut expected = Vec::new();
    let mut rest = stream;
    let fits = loop {
        let end = rest.iter().position(|byte| *byte == b'\n');
        let length = end.unwrap_or(rest.len());
        if length > LIMIT {
            break false;
        }
        let Some(end) = end else { break true };
        expected.push(rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]).to_vec());
        rest = &rest[end + 1..];
    };
    let mut lines = Lines::new(LIMIT);
    let mut found = Vec::new();
    let mut failed = false;
    for piece in stream.chunks(usize::from(*cut).max(1)) {
        lines.push(piece);
        loop {
            match lines.next_line() {
                Ok(Some(line)) => found.push(line),
                Ok(None) => break,
                Err(_) => {
                    failed = true;
                    break;
                }
            }
        }
        if failed {
            break;
        }
    }
    assert_eq!(failed, !fits);
    assert_eq!(found, expected);
    if fits {
        assert_eq!(lines.take_rest(), rest);
    }
}

/// The halves of the nonce that is looked for; its beginning stands in its middle too.
const HALVES: (&str, &str) = ("aaaabaaa", "aabaaaab");

/// The first byte chooses the marker and how the rest is cut. The marker is found where a search that looks at every
/// place finds it, and nowhere else.
pub fn fence(data: &[u8]) {
    let Some((choice, stream)) = data.split_first() else { return };
    let template = ["\n{a}{b}\n", "{a}{b}", "\n{a}{b} {status}\n", "{a}-{b}={status};"][usize::from(choice % 4)];
    let nonce = Nonce::of(HALVES.0, HALVES.1);
    let expected = plainly(&nonce.fill(template), stream);
    let mut finder = Finder::new(template, &nonce);
    let mut seen = 0;
    for piece in stream.chunks(usize::from(choice / 4).max(1)) {
        if let Some(found) = finder.feed(piece) {
            assert_eq!(Some((seen + found.end - found.length, seen + found.end, found.status)), expected);
            return;
        }
        seen += piece.len();
        assert!(finder.pending() <= seen);
    }
    assert_eq!(expected, None);
}

/// Where the marker that ends first begins and ends, and the number in it.
fn plainly(marker: &str, stream: &[u8]) -> Option<(usize, usize, Option<i32>)> {
    let (before, after) = match marker.split_once("{status}") {
        Some((before, after)) => (before.as_bytes(), Some(after.as_bytes())),
        None => (marker.as_bytes(), None),
    };
    (0..stream.len()).find_map(|start| {
        let behind = stream[start..].strip_prefix(before)?;
        let Some(after) = after else { return Some((start, start + before.len(), None)) };
        let digits = behind.iter().take(9).take_while(|byte| byte.is_ascii_digit()).count();
        let status = std::str::from_utf8(&behind[..digits]).ok()?.parse().ok()?;
        behind[digits..].starts_with(after).then_some((
            start,
            start + before.len() + digits + after.len(),
            Some(status),
        ))
    })
}
