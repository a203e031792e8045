//! `multipart/form-data` as parameters: texts by their names, files as attachments.
//!
//! Enough for what HTTP clients send: quoted names, one body per part. A library would bring a stream parser for a
//! body that is in memory already. Files are measured, not kept: nothing here hands them out.

use serde_json::{Map, Value};

/// What was sent: parameters, and files in order.
#[derive(Debug, Default)]
pub(super) struct Form {
    pub(super) parameters: Map<String, Value>,
    pub(super) files: Vec<File>,
}

/// One file of `attachments[]`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct File {
    pub(super) name: String,
    pub(super) content_type: String,
    pub(super) bytes: usize,
}

/// The boundary a `Content-Type` names, if it is a form.
pub(super) fn boundary(content_type: &str) -> Option<&str> {
    let (kind, parameters) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let value = parameters.split(';').find_map(|parameter| parameter.trim().strip_prefix("boundary="))?;
    Some(value.trim_matches('"'))
}

/// Reads a body; a part that makes no sense is left out.
pub(super) fn read(body: &[u8], boundary: &str) -> Form {
    let mut form = Form::default();
    // Every boundary but the first follows the line break that ends the part before it.
    let mut rest = body.strip_prefix(format!("--{boundary}\r\n").as_bytes()).unwrap_or_default();
    let end = format!("\r\n--{boundary}");
    while let Some((part, after)) = split(rest, end.as_bytes()) {
        take(part, &mut form);
        rest = after.strip_prefix(b"\r\n").unwrap_or_default();
    }
    form
}

fn take(part: &[u8], form: &mut Form) {
    let Some((head, content)) = split(part, b"\r\n\r\n") else { return };
    let head = String::from_utf8_lossy(head);
    let field = |wanted: &str| {
        head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case(wanted).then(|| value.trim().to_owned())
        })
    };
    let Some(disposition) = field("content-disposition") else { return };
    let Some(name) = quoted(&disposition, "name") else { return };
    match quoted(&disposition, "filename") {
        Some(file) => form.files.push(File {
            name: file,
            content_type: field("content-type").unwrap_or_else(|| "application/octet-stream".to_owned()),
            bytes: content.len(),
        }),
        None => {
            let text = Value::String(String::from_utf8_lossy(content).into_owned());
            match name.strip_suffix("[]") {
                Some(list) => {
                    let list = form.parameters.entry(list).or_insert_with(|| Value::Array(Vec::new()));
                    list.as_array_mut().into_iter().for_each(|list| list.push(text.clone()));
                }
                None => drop(form.parameters.insert(name, text)),
            }
        }
    }
}

fn quoted(disposition: &str, name: &str) -> Option<String> {
    let value = disposition.split(';').find_map(|field| field.trim().strip_prefix(name)?.strip_prefix('='))?;
    Some(value.trim_matches('"').to_owned())
}

fn split<'a>(bytes: &'a [u8], at: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let found = bytes.windows(at.len()).position(|window| window == at)?;
    Some((bytes.get(..found)?, bytes.get(found + at.len()..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_lists_and_files_are_told_apart() {
        let content_type = "multipart/form-data; boundary=\"b1\"";
        let body = "--b1\r\nContent-Disposition: form-data; name=\"content\"\r\n\r\nHi\r\n\
            --b1\r\ncontent-disposition: form-data; name=\"attachments[]\"; filename=\"a;b.png\"\r\n\
            Content-Type: image/png\r\n\r\nPNG\r\n--\r\n\
            --b1\r\nContent-Disposition: form-data; name=\"attachments[]\"\r\n\r\nsigned\r\n--b1--\r\n";
        let form = read(body.as_bytes(), boundary(content_type).unwrap());
        assert_eq!(form.parameters["content"], "Hi");
        assert_eq!(form.parameters["attachments"], serde_json::json!(["signed"]));
        assert_eq!(form.files.len(), 1);
        assert_eq!((form.files[0].content_type.as_str(), form.files[0].bytes), ("image/png", 7));
        assert_eq!(boundary("application/json"), None);
        assert!(read(b"no form", "b1").parameters.is_empty());
    }
}
