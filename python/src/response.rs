//! A response, as Python's `Response` looks into it.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};
use readyroom::cluster::Response;
use readyroom::driver::ContextCommand;
use readyroom::{Answer, Denials, Failure, Outcome, Text};

use crate::failure::{Parts, parts};

/// A turn's end.
#[pyclass(frozen)]
#[derive(Debug)]
pub struct RawResponse(pub Response);

/// Text as `str`; bytes that are not UTF-8 become lone surrogates, from which the bytes can be had back.
fn string<'py>(py: Python<'py>, text: &Text) -> PyResult<Bound<'py, PyAny>> {
    match std::str::from_utf8(text.as_bytes()) {
        Ok(text) => Ok(PyString::new(py, text).into_any()),
        Err(_) => PyBytes::new(py, text.as_bytes()).call_method1("decode", ("utf-8", "surrogateescape")),
    }
}

fn numbers(answer: &readyroom::Usage) -> (Option<u64>, Option<u64>, Option<f64>) {
    (answer.input_tokens, answer.output_tokens, answer.cost_usd)
}

#[pymethods]
impl RawResponse {
    #[getter]
    fn turn(&self) -> u64 {
        self.0.turn.0
    }

    #[getter]
    fn tool(&self) -> &str {
        &self.0.tool
    }

    #[getter]
    fn instance(&self) -> Option<usize> {
        self.0.instance
    }

    #[getter]
    fn generation(&self) -> u32 {
        self.0.generation
    }

    #[getter]
    fn ok(&self) -> bool {
        self.0.ok()
    }

    /// `succeeded`, `failed`, `cancelled`, `timed_out`, `lost`.
    #[getter]
    fn outcome(&self) -> &'static str {
        match &self.0.outcome {
            Outcome::Failed(_) => "failed",
            other => other.name(),
        }
    }

    /// Why it did not succeed, in parts.
    #[getter]
    fn failure(&self) -> Option<Parts> {
        let told = |name: &'static str, evidence: &str| {
            (
                name,
                self.0.outcome.to_string(),
                evidence.to_owned(),
                name != "cancelled",
                "caller".to_owned(),
                None,
                None,
            )
        };
        match &self.0.outcome {
            Outcome::Succeeded => None,
            Outcome::Failed(failure) => Some(parts(failure)),
            Outcome::TimedOut { evidence, .. } => Some(told("timed_out", evidence)),
            other => Some(told(other.name(), "")),
        }
    }

    fn text<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        string(py, &self.0.answer.text)
    }

    fn data<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.0.answer.text.as_bytes())
    }

    /// All text of all its prompts.
    fn transcript<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        if let [_, _, ..] = &self.0.turns[..] {
            let all: Vec<u8> =
                self.0.turns.iter().flat_map(|answer| answer.transcript.as_bytes().iter().copied()).collect();
            return string(py, &Text::from(all));
        }
        string(py, &self.0.answer.transcript)
    }

    /// The answers to all its prompts.
    fn answers<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyAny>>> {
        self.0.turns.iter().map(|answer| string(py, &answer.text)).collect()
    }

    #[getter]
    fn usage(&self) -> (Option<u64>, Option<u64>, Option<f64>) {
        numbers(&self.0.usage)
    }

    /// Seconds: queued, turn, reset.
    #[getter]
    fn timings(&self) -> (f64, f64, f64) {
        let timings = &self.0.timings;
        (timings.queued.as_secs_f64(), timings.turn.as_secs_f64(), timings.reset.as_secs_f64())
    }

    #[getter]
    fn changed_files(&self) -> Vec<String> {
        let answers: Vec<&Answer> =
            if self.0.turns.is_empty() { vec![&self.0.answer] } else { self.0.turns.iter().collect() };
        let mut files: Vec<String> = Vec::new();
        for file in answers.into_iter().flat_map(|answer| &answer.changed_files) {
            let file = file.to_string_lossy().into_owned();
            if !files.contains(&file) {
                files.push(file);
            }
        }
        files
    }

    /// Context commands with the tool's answers, or why they could not be carried out.
    #[getter]
    fn preamble(&self) -> Vec<(String, Option<String>, Option<Parts>)> {
        let words = |command: &ContextCommand| match command {
            ContextCommand::Add(path) => format!("/add {}", path.display()),
            ContextCommand::ReadOnly(path) => format!("/read-only {}", path.display()),
            ContextCommand::Drop(path) => format!("/drop {}", path.display()),
        };
        let told = |result: &Result<String, Failure>| match result {
            Ok(answer) => (Some(answer.clone()), None),
            Err(failure) => (None, Some(parts(failure))),
        };
        let replies = self.0.preamble.iter().map(|reply| (words(&reply.command), told(&reply.result)));
        replies.map(|(command, (answer, failure))| (command, answer, failure)).collect()
    }

    /// What was denied; None where the tool's protocol does not tell.
    #[getter]
    fn denials(&self) -> Option<Vec<String>> {
        match &self.0.answer.denials {
            Denials::Unknown => None,
            Denials::Known(denials) => Some(denials.clone()),
        }
    }

    #[getter]
    fn fresh(&self) -> bool {
        self.0.proof.is_some()
    }

    #[getter]
    fn context_lost(&self) -> bool {
        self.0.context_lost
    }

    /// All of it, as [`read_response`] takes it.
    fn json(&self) -> PyResult<String> {
        serde_json::to_string(&self.0).map_err(|error| PyValueError::new_err(error.to_string()))
    }
}

/// A response from its JSON.
#[pyfunction]
pub fn read_response(json: &str) -> PyResult<RawResponse> {
    serde_json::from_str(json).map(RawResponse).map_err(|error| PyValueError::new_err(error.to_string()))
}
