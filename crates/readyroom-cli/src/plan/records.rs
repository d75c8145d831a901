//! Reads records (lines, or pieces between NULs) with their numbers and with a bound on their length.

use std::io::BufRead;

use anyhow::{Context as _, bail};

/// Reads all records of `reader` that are not empty, each with its number from 1. `name` stands in errors.
///
/// # Errors
/// Reading fails, or a record is longer than `limit` bytes.
pub fn read(
    reader: &mut dyn BufRead,
    separator: u8,
    limit: usize,
    name: &str,
) -> anyhow::Result<Vec<(usize, Vec<u8>)>> {
    let mut records = Vec::new();
    for number in 1.. {
        let mut record = Vec::new();
        let mut bounded = std::io::Read::take(&mut *reader, limit as u64 + 2);
        let read = bounded.read_until(separator, &mut record).with_context(|| format!("{name} can't be read"))?;
        if read == 0 {
            break;
        }
        if record.last() == Some(&separator) {
            record.pop();
        }
        if record.len() > limit {
            bail!("{name}:{number}: longer than {limit} bytes; shorten it, or put the text into a file");
        }
        if !record.is_empty() {
            records.push((number, record));
        }
    }
    Ok(records)
}

/// The column, in bytes from 1, of the first byte of `record` that is not UTF-8.
pub fn bad_utf8_column(error: &std::str::Utf8Error) -> usize {
    error.valid_up_to() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_keep_their_numbers() {
        let records = read(&mut &b"a\n\nb"[..], b'\n', 10, "stdin").unwrap();
        assert_eq!(records, [(1, b"a".to_vec()), (3, b"b".to_vec())]);
        let records = read(&mut &b"a\nb\0c\0"[..], 0, 10, "stdin").unwrap();
        assert_eq!(records, [(1, b"a\nb".to_vec()), (2, b"c".to_vec())]);
    }

    #[test]
    fn a_record_has_a_bound() {
        assert!(read(&mut &b"12345\n12345"[..], b'\n', 5, "stdin").is_ok());
        let error = read(&mut &b"1\n123456\n"[..], b'\n', 5, "stdin").unwrap_err();
        assert!(error.to_string().starts_with("stdin:2: longer than 5 bytes"), "{error}");
    }
}
