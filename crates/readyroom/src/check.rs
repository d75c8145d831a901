//! What a job has to prove before it counts as done.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a job has to prove besides a good end of its turns. Nothing by default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Checks {
    /// A command that has to succeed after the job, where it worked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verify: Option<Verify>,
    /// It must have changed a file. Needs a worktree.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub require_change: bool,
    /// It may have changed its own files only. Needs a worktree.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub only_files: bool,
    /// What the answer has to hold; it stands behind the last prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<Schema>,
}

impl Checks {
    /// Whether there is nothing to prove.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A command that tells whether a job's work is good: it exits with 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verify {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// How often its failure goes back to the tool, as the next prompt of the same session.
    pub rounds: u32,
    /// The longest time that it may run; then it has failed.
    pub timeout: Duration,
}

/// A JSON Schema that a value in the answer has to fit.
///
/// ```
/// use readyroom::Schema;
/// use serde_json::json;
///
/// let schema = Schema::new(json!({"type": "object", "required": ["n"]})).unwrap();
/// assert_eq!(schema.find("Here it is:\n```json\n{\"n\": 1}\n```\n"), Ok(json!({"n": 1})));
/// assert!(schema.find("{\"m\": 1}").is_err());
/// assert!(Schema::new(json!({"type": 1})).is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Schema(Value);

impl Schema {
    /// A schema.
    ///
    /// # Errors
    /// It is none, or refers to one that is elsewhere.
    pub fn new(schema: Value) -> Result<Self, String> {
        match jsonschema::validator_for(&schema) {
            Ok(_) => Ok(Self(schema)),
            Err(error) => Err(error.to_string()),
        }
    }

    /// As it was given.
    pub fn as_value(&self) -> &Value {
        &self.0
    }

    /// Whether it is of the form that providers can hold a model to: an object, and in it all objects with all of their properties
    /// required and no others.
    pub fn is_strict(&self) -> bool {
        fn strict(schema: &Value) -> bool {
            let Some(fields) = schema.as_object() else { return true };
            let closed = match (&schema["properties"], &schema["required"]) {
                (Value::Object(properties), Value::Array(required)) => {
                    schema["additionalProperties"] == false
                        && properties.keys().all(|name| required.iter().any(|required| required == name))
                }
                _ => schema["type"] != "object",
            };
            closed
                && fields.iter().all(|(name, value)| match (name.as_str(), value) {
                    ("properties" | "$defs", Value::Object(named)) => named.values().all(strict),
                    ("anyOf", Value::Array(several)) => several.iter().all(strict),
                    ("items", value) => strict(value),
                    (
                        "type"
                        | "enum"
                        | "const"
                        | "description"
                        | "required"
                        | "additionalProperties"
                        | "$ref"
                        | "title",
                        _,
                    ) => true,
                    _ => false,
                })
        }
        self.0["type"] == "object" && strict(&self.0)
    }

    /// As the input of a tool that the model calls to answer, which has to be an object. Without `$schema`: what reads it
    /// may know one draft only.
    pub(crate) fn as_tool_input(&self) -> Option<Value> {
        let mut schema =
            self.0.as_object().filter(|fields| fields.get("type").is_some_and(|kind| kind == "object"))?.clone();
        schema.remove("$schema");
        Some(Value::Object(schema))
    }

    /// What is put behind a prompt to ask for such a value.
    pub(crate) fn request(&self) -> String {
        format!("\n\nAnswer with a JSON value that fits this JSON Schema:\n{self}\n")
    }

    /// The value in an answer that fits: all of the text, else what stands in a block of code, else what stands anywhere;
    /// the last one of several.
    ///
    /// # Errors
    /// Why none does, in a sentence.
    pub fn find(&self, text: &str) -> Result<Value, String> {
        let validator = jsonschema::validator_for(&self.0).map_err(|error| error.to_string())?;
        let mut refused = None;
        for value in candidates(text) {
            let problem = validator.iter_errors(&value).next().map(|error| {
                let place = error.instance_path().to_string();
                let place = if place.is_empty() { "the value".to_owned() } else { place };
                format!("{place}: {error}")
            });
            match problem {
                None => return Ok(value),
                Some(problem) => refused = refused.or(Some(problem)),
            }
        }
        Err(refused.unwrap_or_else(|| "there is no JSON value in the answer".into()))
    }
}

impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Values that stand in a text, the likeliest first.
fn candidates(text: &str) -> Vec<Value> {
    if let Ok(whole) = serde_json::from_str(text.trim()) {
        return vec![whole];
    }
    let fenced = text.split("```").skip(1).step_by(2).filter_map(|block| {
        let code = block.split_once('\n').map_or("", |(_, code)| code);
        serde_json::from_str(code).ok()
    });
    let mut found: Vec<Value> = fenced.collect();
    found.reverse();
    let mut anywhere: Vec<Value> = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '[']) {
        let mut values = serde_json::Deserializer::from_str(&rest[at..]).into_iter::<Value>();
        rest = match values.next() {
            Some(Ok(value)) => {
                anywhere.push(value);
                &rest[at + values.byte_offset()..]
            }
            _ => &rest[at + 1..],
        };
    }
    anywhere.reverse();
    found.append(&mut anywhere);
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_is_found_wherever_it_stands() {
        let schema =
            Schema::new(json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}));
        let schema = schema.unwrap();
        let one = json!({"n": 1});
        for text in [
            " {\"n\": 1}\n",
            "It is:\n\n```json\n{\"n\": 1}\n```\nDone {well}.",
            "```\n{\"m\": 1}\n```\nno:\n```\n{\"n\": 1}\n```",
            "so { it is {\"n\": 1}, I think [1]",
        ] {
            assert_eq!(schema.find(text), Ok(one.clone()), "{text}");
        }
        assert_eq!(schema.find("{\"n\":1} then {\"n\":2}"), Ok(json!({"n": 2})), "the last one");
    }

    #[test]
    fn what_does_not_fit_is_told_with_its_place() {
        let schema = Schema::new(json!({"properties": {"n": {"type": "integer"}}, "type": "object"})).unwrap();
        assert!(schema.find("{\"n\": \"x\"}").unwrap_err().starts_with("/n: "));
        assert_eq!(schema.find("none").unwrap_err(), "there is no JSON value in the answer");
    }

    #[test]
    fn only_closed_objects_are_strict() {
        let strict = |schema| Schema::new(schema).unwrap().is_strict();
        let inner = json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": false});
        assert!(strict(inner.clone()));
        let list = json!({"type": "array", "items": inner});
        assert!(strict(json!({
            "type": "object", "properties": {"l": list}, "required": ["l"], "additionalProperties": false,
        })));
        assert!(!strict(list), "no object");
        assert!(!strict(json!({"type": "object", "required": ["n"]})), "open");
        assert!(
            !strict(json!({
                "type": "object", "properties": {"n": {"type": "integer", "minimum": 5}}, "required": ["n"], "additionalProperties": false,
            })),
            "a keyword that providers do not know"
        );
    }

    #[test]
    fn an_object_is_a_tools_input() {
        let of = |schema| Schema::new(schema).unwrap().as_tool_input();
        let draft = "https://json-schema.org/draft/2020-12/schema";
        assert_eq!(of(json!({"$schema": draft, "type": "object"})), Some(json!({"type": "object"})));
        assert_eq!(of(json!({"type": "array"})), None);
        assert_eq!(of(json!(true)), None);
    }

    #[test]
    fn a_schema_that_is_elsewhere_is_refused() {
        assert!(Schema::new(json!({"$ref": "https://example.com/s.json"})).is_err());
    }
}
