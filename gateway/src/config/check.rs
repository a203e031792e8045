//! Reads one file and finds everything in it that has not the form the schema states.
//!
//! serde stops at the first error, so the document is walked beside the schema first: unknown keys, missing keys,
//! wrong types and numbers out of bounds are noted with their place and then *taken out*. What is left always
//! deserialises, with defaults where something was taken out, so that the checks after this one can find their
//! errors in the same run. On the way the position of every key is noted.
//!
//! It knows the part of JSON Schema that schemars makes of our types, and no more. A value is never quoted, since
//! it may be a secret that stands in the wrong line.

use std::collections::HashMap;
use std::path::Path;
use std::sync::LazyLock;

use schemars::{JsonSchema, schema_for};
use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use toml::Spanned;
use toml::de::{DeArray, DeInteger, DeTable, DeValue};

use super::report::{ConfigError, Lines, Place, Position, Report, Source, did_you_mean, join, nearest};

/// Reads a file's text. Notes what is wrong; gives what could be read, nothing if it is not TOML at all.
pub(super) fn read<T: DeserializeOwned + JsonSchema>(
    text: &str,
    file: &Path,
    report: &mut Report,
) -> (Source, Option<T>) {
    let (mut document, syntax_errors) = DeTable::parse_recoverable(text);
    let lines = Lines::of(text);
    let mut source = Source { file: file.to_owned(), positions: HashMap::new() };
    for error in &syntax_errors {
        report.push(ConfigError {
            file: file.to_owned(),
            key: String::new(),
            position: error.span().map(|span| lines.position(span.start)),
            message: format!("this is not TOML: {}", error.message()),
        });
    }
    if !syntax_errors.is_empty() {
        return (source, None);
    }
    note_positions(document.get_ref(), "", &lines, &mut source.positions);
    let schema = schema_for!(T).to_value();
    let mut checker = Checker { definitions: schema.get("$defs"), report };
    checker.table(document.get_mut(), &schema, &Place::top(&source));
    match T::deserialize(toml::Deserializer::from(document)) {
        Ok(raw) => (source, Some(raw)),
        // A missing key of a type that is not only ours: it is noted, and what depends on it cannot be checked.
        Err(_) if report.holds(file) => (source, None),
        // For what the schema cannot say.
        Err(error) => {
            report.push(ConfigError {
                file: file.to_owned(),
                key: String::new(),
                position: error.span().map(|span| lines.position(span.start)),
                message: error.message().to_owned(),
            });
            (source, None)
        }
    }
}

fn note_positions(table: &DeTable<'_>, parent: &str, lines: &Lines<'_>, positions: &mut HashMap<String, Position>) {
    for (key, value) in table.iter() {
        let path = join(parent, key.get_ref());
        note_value(value.get_ref(), &path, lines, positions);
        positions.insert(path, lines.position(key.span().start));
    }
}

fn note_value(value: &DeValue<'_>, path: &str, lines: &Lines<'_>, positions: &mut HashMap<String, Position>) {
    match value {
        DeValue::Table(table) => note_positions(table, path, lines, positions),
        DeValue::Array(array) => {
            for (index, item) in array.iter().enumerate() {
                let path = format!("{path}[{index}]");
                note_value(item.get_ref(), &path, lines, positions);
                positions.insert(path, lines.position(item.span().start));
            }
        }
        _ => {}
    }
}

struct Checker<'s, 'r> {
    definitions: Option<&'s Json>,
    report: &'r mut Report,
}

impl<'s> Checker<'s, '_> {
    /// Checks a value; false if it has to be taken out. A table never has to: what is wrong in it is taken out of it.
    fn value(&mut self, value: &mut Spanned<DeValue<'_>>, schema: &'s Json, place: &Place<'_>) -> bool {
        let schema = self.resolved(schema);
        let choices = Self::choices(schema);
        match choices.as_slice() {
            [] => {}
            [only] => return self.value(value, only, place),
            several => return self.one_of(value, schema, several, place),
        }
        let types = type_names(schema);
        if let (DeValue::Datetime(instant), true) = (value.get_ref(), types.contains(&"string")) {
            let text = instant.to_string();
            *value.get_mut() = DeValue::String(text.into());
        }
        match value.get_mut() {
            DeValue::Table(table) if types.contains(&"object") => {
                self.table(table, schema, place);
                true
            }
            DeValue::Array(array) if types.contains(&"array") => self.array(array, schema, place),
            DeValue::Boolean(_) if types.contains(&"boolean") => true,
            DeValue::String(text) if types.contains(&"string") => self.text(text, schema, place),
            DeValue::Integer(number) if types.contains(&"integer") => self.integer(number, schema, place),
            DeValue::Integer(number) if types.contains(&"number") => self.number(number.as_str(), schema, place),
            DeValue::Float(number) if types.contains(&"number") => self.number(number.as_str(), schema, place),
            other => {
                let expected = types.iter().map(|name| with_article(name)).collect::<Vec<_>>().join(" or ");
                self.report.add(place, format!("expected {expected}, found {}", found(other)));
                false
            }
        }
    }

    fn table(&mut self, table: &mut DeTable<'_>, schema: &'s Json, place: &Place<'_>) {
        static NONE: LazyLock<serde_json::Map<String, Json>> = LazyLock::new(serde_json::Map::new);
        let properties = schema.get("properties").and_then(Json::as_object).unwrap_or(&NONE);
        let others = schema.get("additionalProperties");
        let mut take_out = Vec::new();
        let mut meant = Vec::new();
        for (key, value) in table.iter_mut() {
            let key = key.get_ref().as_ref();
            let usable = match (properties.get(key), others) {
                (Some(schema), _) => self.value(value, schema, &place.key(key)),
                (None, Some(others)) if others.is_object() => self.value(value, others, &place.key(key)),
                (None, _) => {
                    let near = nearest(key, properties.keys().map(String::as_str));
                    meant.extend(near);
                    let help = near.map_or_else(|| known_keys(properties), |near| format!("did you mean \"{near}\"?"));
                    self.report.add(&place.key(key), format!("unknown key; {help}"));
                    false
                }
            };
            if !usable {
                take_out.push(key.to_owned());
            }
        }
        for key in schema.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str) {
            if !table.contains_key(key) && !meant.contains(&key) {
                let what = properties.get(key).map(|schema| description(self.resolved(schema))).unwrap_or_default();
                self.report.add(&place.key(key), format!("missing: {}", sentence_end(what)));
            }
        }
        for key in take_out {
            table.remove(key.as_str());
        }
    }

    /// An array loses no elements, because those after would be called by the wrong number: it goes as a whole.
    fn array(&mut self, array: &mut DeArray<'_>, schema: &'s Json, place: &Place<'_>) -> bool {
        let Some(items) = schema.get("items") else { return true };
        let mut usable = true;
        for (index, item) in array.iter_mut().enumerate() {
            usable &= self.value(item, items, &place.item(index));
        }
        usable
    }

    fn text(&mut self, text: &str, schema: &'s Json, place: &Place<'_>) -> bool {
        let words = words(schema);
        let usable = words.is_empty() || words.contains(&text);
        if !usable {
            self.report.add(place, one_of_words(text, &words));
        }
        usable
    }

    fn integer(&mut self, number: &DeInteger<'_>, schema: &'s Json, place: &Place<'_>) -> bool {
        let value = i128::from_str_radix(number.as_str(), number.radix()).unwrap_or(i128::MAX);
        let bound = |name: &str| {
            let number = schema.get(name)?;
            number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from))
        };
        let (format_min, format_max) = match schema.get("format").and_then(Json::as_str) {
            Some("uint8") => (0, i128::from(u8::MAX)),
            Some("uint16") => (0, i128::from(u16::MAX)),
            Some("uint32") => (0, i128::from(u32::MAX)),
            Some("uint" | "uint64") => (0, i128::from(u64::MAX)),
            _ => (i128::from(i64::MIN), i128::from(i64::MAX)),
        };
        let low = bound("minimum").unwrap_or(format_min).max(format_min);
        let high = bound("maximum").unwrap_or(format_max).min(format_max);
        let usable = (low..=high).contains(&value);
        if !usable {
            self.report.add(place, format!("must be a whole number from {low} to {high}"));
        }
        usable
    }

    fn number(&mut self, text: &str, schema: &'s Json, place: &Place<'_>) -> bool {
        let bound = |name: &str| schema.get(name).and_then(Json::as_f64);
        let low = bound("minimum").unwrap_or(f64::MIN);
        let high = bound("maximum").unwrap_or(f64::MAX);
        let usable = text.parse().is_ok_and(|value: f64| (low..=high).contains(&value));
        if !usable {
            self.report.add(place, format!("must be a number from {low} to {high}"));
        }
        usable
    }

    /// Several forms are allowed: an integer or a word, for one.
    fn one_of(
        &mut self,
        value: &mut Spanned<DeValue<'_>>,
        schema: &'s Json,
        several: &[&'s Json],
        place: &Place<'_>,
    ) -> bool {
        for choice in several {
            let mut attempt = Report::default();
            let mut copy = value.clone();
            let mut checker = Checker { definitions: self.definitions, report: &mut attempt };
            if checker.value(&mut copy, choice, place) && attempt.is_empty() {
                *value = copy;
                return true;
            }
        }
        let words: Vec<&str> = several.iter().flat_map(|choice| words(choice)).collect();
        let message = match value.get_ref() {
            DeValue::String(text) if words.len() == several.len() => one_of_words(text, &words),
            other if description(schema).is_empty() => format!("{} is not understood here", found(other)),
            _ => format!("expected {}", sentence_end(description(schema))),
        };
        self.report.add(place, message);
        false
    }

    /// The alternatives of a schema, less `null`, which TOML does not have.
    fn choices(schema: &'s Json) -> Vec<&'s Json> {
        let listed = ["anyOf", "oneOf"].iter().find_map(|name| schema.get(name)).and_then(Json::as_array);
        listed
            .into_iter()
            .flatten()
            .filter(|choice| choice.get("type").and_then(Json::as_str) != Some("null"))
            .collect()
    }

    fn resolved(&self, schema: &'s Json) -> &'s Json {
        let name = schema.get("$ref").and_then(Json::as_str).and_then(|path| path.strip_prefix("#/$defs/"));
        name.and_then(|name| self.definitions?.get(name)).unwrap_or(schema)
    }
}

/// The types a schema allows, less `null`. A schema of words alone allows strings.
fn type_names(schema: &Json) -> Vec<&str> {
    match schema.get("type") {
        Some(Json::String(name)) => vec![name],
        Some(Json::Array(names)) => names.iter().filter_map(Json::as_str).filter(|name| *name != "null").collect(),
        _ => vec!["string"],
    }
}

/// The words a schema allows; none if it allows any text.
fn words(schema: &Json) -> Vec<&str> {
    let listed = schema.get("enum").and_then(Json::as_array).into_iter().flatten();
    listed.chain(schema.get("const")).filter_map(Json::as_str).collect()
}

fn one_of_words(text: &str, words: &[&str]) -> String {
    let known = words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
    format!("must be one of {known}{}", did_you_mean(text, words.iter().copied()))
}

fn known_keys(properties: &serde_json::Map<String, Json>) -> String {
    format!("known here are {}", properties.keys().map(String::as_str).collect::<Vec<_>>().join(", "))
}

fn description(schema: &Json) -> &str {
    schema.get("description").and_then(Json::as_str).unwrap_or_default()
}

/// The first sentence of a description as the end of another: begins small unless its first word is all capitals.
fn sentence_end(description: &str) -> String {
    let text = description.replace('\n', " ");
    let text = text.split_once(". ").map_or(text.as_str(), |(first, _)| first).trim_end_matches('.').to_owned();
    let mut letters = text.chars();
    match (letters.next(), letters.clone().next()) {
        (Some(first), Some(second)) if !second.is_uppercase() => first.to_lowercase().chain(letters).collect(),
        _ => text,
    }
}

fn with_article(type_name: &str) -> &'static str {
    match type_name {
        "object" => "a table",
        "array" => "an array",
        "boolean" => "true or false",
        "integer" => "a whole number",
        "number" => "a number",
        _ => "a string",
    }
}

fn found(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}
