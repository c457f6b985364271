//! A recipe as text: overrides from the command line, and serde's messages as sentences for people.

use crate::error::{Error, Result};
use toml::{Table, Value};

/// Applies `a.b=c`: `c` is read as TOML, or as a string if it is none.
pub fn set(table: &mut Table, assignment: &str) -> Result<()> {
    let (key, text) = assignment.split_once('=').ok_or_else(|| {
        Error::usage(format!("--set {assignment}: write it as key=value, for example --set train.batch=4"))
    })?;
    let value = match format!("v = {text}").parse::<Table>() {
        Ok(mut t) => t.remove("v").unwrap_or(Value::String(text.into())),
        Err(_) => Value::String(text.into()),
    };
    let parts: Vec<&str> = key.trim().split('.').collect();
    let Some((last, parents)) = parts.split_last().filter(|_| parts.iter().all(|p| !p.is_empty())) else {
        return Err(Error::usage(format!(
            "--set {assignment}: `{key}` is no key; write for example train.batch"
        )));
    };
    let mut at = table;
    for part in parents {
        at = at
            .entry(part.to_string())
            .or_insert_with(|| Value::Table(Table::new()))
            .as_table_mut()
            .ok_or_else(|| {
                Error::usage(format!("--set {assignment}: `{part}` holds a value, not a table of keys"))
            })?;
    }
    at.insert(last.to_string(), value);
    Ok(())
}

/// serde's message as one sentence with the full key and, for an unknown one, the nearest known one.
pub fn explain(path: &str, message: &str) -> String {
    // The lines behind the first one say where, which the path does as well.
    let message = message.lines().next().unwrap_or(message);
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let parent = if path == "." { "" } else { path };
    if message.starts_with("unknown field") || message.starts_with("unknown variant") {
        let (wrong, known) = (quoted.first().copied().unwrap_or(""), &quoted[1.min(quoted.len())..]);
        let nearest = known.iter().min_by_key(|k| strsim::damerau_levenshtein(k, wrong));
        let hint = nearest.map_or(String::new(), |n| format!("; did you mean `{n}`?"));
        let all =
            if known.len() > 1 { format!(" (known here: {})", known.join(", ")) } else { String::new() };
        return if message.starts_with("unknown field") {
            // The path already ends in the wrong key, or stops at the table that holds it.
            let table = parent.strip_suffix(wrong).unwrap_or(parent).trim_end_matches('.');
            let full = if table.is_empty() { wrong.to_string() } else { format!("{table}.{wrong}") };
            format!("unknown key `{full}`{hint}{all}")
        } else {
            format!("`{parent}` can't be \"{wrong}\"{hint}{all}")
        };
    }
    if let Some(key) = message.strip_prefix("missing field ").map(|k| k.split('`').nth(1).unwrap_or(k)) {
        let full = if parent.is_empty() { key.to_string() } else { format!("{parent}.{key}") };
        return format!("the key `{full}` is missing; add it");
    }
    let first = plain(message);
    if parent.is_empty() {
        format!("{first}; correct the value")
    } else {
        format!("`{parent}`: {first}; correct the value")
    }
}

/// serde's message without the names that types have in the program.
fn plain(message: &str) -> String {
    let Some((got, expected)) = message.split_once("expected ") else { return message.to_string() };
    let expected = match expected {
        "usize" | "u64" | "u32" | "u16" | "u8" => "a whole number that is not negative",
        "i64" | "i32" => "a whole number",
        "f64" | "f32" => "a number",
        "a boolean" => "true or false",
        "a sequence" => "a list, such as [\"t1\", \"t2\"]",
        e if e.starts_with("struct ") || e == "a map" || e.contains("enum") => "a table of keys",
        e => e,
    };
    format!("{got}expected {expected}")
}
