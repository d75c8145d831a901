//! Answers on stdout: under a heading where there are several jobs, in the jobs' order where that is asked for.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write};
use std::sync::Arc;

use readyroom::Text;

use super::Broken;
use crate::plan::Plan;
use crate::report::text;

/// Writes answers to stdout.
pub struct Answers {
    plan: Arc<Plan>,
    /// Whether stdout is a terminal; control characters of an answer are then shown and not obeyed.
    terminal: bool,
    order: Order,
    out: Box<dyn Write + Send>,
}

enum Order {
    /// As jobs end.
    AsTheyEnd,
    /// In the jobs' order.
    Kept {
        /// The job whose turn it is.
        next: usize,
        held: Held,
    },
}

/// Answers that wait for earlier ones. They lie in a file without a name, so that they take no memory.
#[derive(Default)]
struct Held {
    file: Option<File>,
    end: u64,
    /// Where each one lies: its place and its length; none where a job has nothing to show.
    places: BTreeMap<usize, Option<(u64, usize)>>,
}

impl Answers {
    /// Answers of `plan`'s jobs.
    pub fn new(plan: Arc<Plan>, keep_order: bool, terminal: bool) -> Self {
        let order = if keep_order { Order::Kept { next: 0, held: Held::default() } } else { Order::AsTheyEnd };
        Self { plan, terminal, order, out: Box::new(io::stdout()) }
    }

    /// Takes the answer of a job that has ended, or nothing where it has none to show. `out` gets the jobs of which all is
    /// written by now.
    pub fn ended(&mut self, job: usize, answer: Option<&Text>, out: &mut Vec<usize>) -> Result<(), Broken> {
        let label = (self.plan.jobs.len() > 1).then(|| self.plan.label(job));
        let rendered = answer.map(|answer| render(label.as_deref(), answer, self.terminal));
        match &mut self.order {
            Order::Kept { next, held } if job != *next => held
                .put(job, rendered.as_deref())
                .map_err(|error| Broken::new("a temporary file for --keep-order", error)),
            order => {
                if let Some(bytes) = rendered {
                    write(&mut self.out, &bytes)?;
                }
                out.push(job);
                let Order::Kept { next, held } = order else { return Ok(()) };
                *next += 1;
                while let Some(bytes) = held.take(*next)? {
                    write(&mut self.out, &bytes)?;
                    out.push(*next);
                    *next += 1;
                }
                Ok(())
            }
        }
    }

    /// Writes what still waits for jobs that will never end. `out` gets the jobs of which all is written.
    pub fn finish(&mut self, out: &mut Vec<usize>) -> Result<(), Broken> {
        if let Order::Kept { held, .. } = &mut self.order {
            while let Some((&job, _)) = held.places.first_key_value() {
                let bytes = held.take(job)?.unwrap_or_default();
                write(&mut self.out, &bytes)?;
                out.push(job);
            }
        }
        Ok(())
    }
}

/// Writes an answer to stdout, under a heading.
pub fn write_one(label: &str, answer: &Text, terminal: bool) -> Result<(), Broken> {
    write(&mut io::stdout(), &render(Some(label), answer, terminal))
}

/// An answer as stdout gets it, under a heading where it has a label.
pub fn render(label: Option<&str>, answer: &Text, terminal: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(label) = label {
        bytes.extend(format!("==> {} <==\n", text::one_line(label)).into_bytes());
    }
    if terminal {
        bytes.extend(harmless(&answer.to_string_lossy()).into_bytes());
    } else {
        bytes.extend_from_slice(answer.as_bytes());
    }
    if bytes.last().is_some_and(|&last| last != b'\n') {
        bytes.push(b'\n');
    }
    bytes
}

impl Held {
    fn put(&mut self, job: usize, bytes: Option<&[u8]>) -> io::Result<()> {
        let Some(bytes) = bytes else {
            self.places.insert(job, None);
            return Ok(());
        };
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(tempfile::tempfile()?),
        };
        file.seek(SeekFrom::Start(self.end))?;
        file.write_all(bytes)?;
        self.places.insert(job, Some((self.end, bytes.len())));
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// What `job` left here, empty where it had nothing to show; none where it has not ended.
    fn take(&mut self, job: usize) -> Result<Option<Vec<u8>>, Broken> {
        let Some(place) = self.places.remove(&job) else { return Ok(None) };
        let (Some((start, length)), Some(file)) = (place, &mut self.file) else { return Ok(Some(Vec::new())) };
        let mut bytes = vec![0; length];
        let mut read = || {
            file.seek(SeekFrom::Start(start))?;
            file.read_exact(&mut bytes)
        };
        read().map_err(|error| Broken::new("a temporary file for --keep-order", error))?;
        Ok(Some(bytes))
    }
}

fn write(out: &mut dyn Write, bytes: &[u8]) -> Result<(), Broken> {
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| Broken::new("stdout", error))
}

/// The text as a terminal may get it: an answer must not move the cursor or set the window's title.
fn harmless(answer: &str) -> String {
    answer
        .chars()
        .map(|char| match char {
            '\n' | '\t' => char,
            '\u{7f}' => '\u{2421}',
            control if control.is_control() => {
                char::from_u32(0x2400 + u32::from(control)).filter(|_| control < ' ').unwrap_or('\u{fffd}')
            }
            other => other,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::report::view::tests::plan;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn answers(inputs: &[&str], keep_order: bool, terminal: bool) -> (Answers, Kept) {
        let kept = Kept::default();
        let mut answers = Answers::new(plan("x", 1, inputs), keep_order, terminal);
        answers.out = Box::new(kept.clone());
        (answers, kept)
    }

    fn text(kept: &Kept) -> String {
        String::from_utf8(kept.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn answers_come_as_jobs_end_with_headings() {
        let (mut answers, kept) = answers(&["a", "b\nc"], false, false);
        let mut out = Vec::new();
        answers.ended(1, Some(&"two\u{1b}[1m\n".into()), &mut out).unwrap();
        answers.ended(0, Some(&"one".into()), &mut out).unwrap();
        answers.finish(&mut out).unwrap();
        assert_eq!(text(&kept), "==> b\\nc <==\ntwo\u{1b}[1m\n==> a <==\none\n");
    }

    #[test]
    fn a_single_answer_stands_alone_and_bytes_stay() {
        let (mut answers, kept) = answers(&["a"], false, false);
        let mut out = Vec::new();
        answers.ended(0, Some(&Text::from(vec![0xff, b'x', b'\n'])), &mut out).unwrap();
        assert_eq!(*kept.0.lock().unwrap(), [0xff, b'x', b'\n']);
    }

    #[test]
    fn the_order_is_kept_also_around_jobs_without_answers() {
        let (mut answers, kept) = answers(&["a", "b", "c", "d", "e"], true, false);
        let mut out = Vec::new();
        answers.ended(2, Some(&"3".into()), &mut out).unwrap();
        answers.ended(1, None, &mut out).unwrap();
        assert_eq!((text(&kept).as_str(), &out[..]), ("", &[][..]));
        answers.ended(0, Some(&"1".into()), &mut out).unwrap();
        assert_eq!((text(&kept).as_str(), &out[..]), ("==> a <==\n1\n==> c <==\n3\n", &[0, 1, 2][..]));
        answers.ended(4, Some(&"5".into()), &mut out).unwrap();
        answers.finish(&mut out).unwrap();
        assert_eq!(text(&kept), "==> a <==\n1\n==> c <==\n3\n==> e <==\n5\n");
        assert_eq!(out, [0, 1, 2, 4]);
    }

    #[test]
    fn a_terminal_sees_control_characters_and_does_not_obey_them() {
        let (mut answers, kept) = answers(&["a"], false, true);
        let mut out = Vec::new();
        answers.ended(0, Some(&"\u{1b}]0;title\u{7}\tx\u{9b}\n".into()), &mut out).unwrap();
        assert_eq!(text(&kept), "\u{241b}]0;title\u{2407}\tx\u{fffd}\n");
    }
}
