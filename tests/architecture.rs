//! The crate keeps to its own rules: imports go downward only, `unsafe` stays in the device, nothing is left unfinished.

#![allow(missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All files with an extension below a folder, relative to the crate, with their text.
fn files(folder: &str, extension: &str) -> Vec<(String, String)> {
    fn walk(dir: &Path, extension: &str, into: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, extension, into);
            } else if path.extension().is_some_and(|e| e == extension) {
                into.push(path);
            }
        }
    }
    let mut paths = Vec::new();
    walk(&root().join(folder), extension, &mut paths);
    paths.sort();
    let name = |p: &Path| p.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/");
    paths.iter().map(|p| (name(p), fs::read_to_string(p).unwrap())).collect()
}

/// Levels by module, from the table in `src/lib.rs`.
fn levels() -> BTreeMap<String, usize> {
    let text = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let rows = text.lines().filter_map(|l| l.strip_prefix("//! | "));
    let mut levels = BTreeMap::new();
    for row in rows {
        let mut cells = row.split('|');
        let Ok(level) = cells.next().unwrap().trim().parse::<usize>() else { continue };
        for module in cells.next().unwrap().split('`').skip(1).step_by(2) {
            assert!(levels.insert(module.to_string(), level).is_none(), "{module} stands twice in the table");
        }
    }
    let declared: BTreeSet<String> = text
        .lines()
        .filter_map(|l| l.strip_prefix("pub mod ")?.strip_suffix(';').map(str::to_string))
        .collect();
    assert_eq!(declared, levels.keys().cloned().collect(), "the table in src/lib.rs and its modules differ");
    levels
}

/// The text without comments, strings' contents and character literals; lines stay where they are.
fn code(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let keep_lines = |s: &str| "\n".repeat(s.matches('\n').count());
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |i| i + 2)
        } else if let Some(raw) = rest.strip_prefix("r#\"") {
            raw.find("\"#").map_or(rest.len(), |i| i + 5)
        } else if c == '"' {
            let mut end = 1;
            let bytes = rest.as_bytes();
            while end < bytes.len() && bytes[end] != b'"' {
                end += if bytes[end] == b'\\' { 2 } else { 1 };
            }
            (end + 1).min(rest.len())
        } else if rest.starts_with("'\"'") {
            3
        } else {
            0
        };
        if skipped > 0 {
            out.push_str(&keep_lines(&rest[..skipped]));
            rest = &rest[skipped..];
        } else {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    out
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The modules of the crate's top level that a file names: `crate::x`, `crate::{x, y::z}`, and `super::x` where `super`
/// is the crate.
fn named(file: &str, code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let parts = file.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    let mut roots = vec!["crate::".to_string()];
    // How far up the crate is from this file's module.
    roots.push("super::".repeat(parts.split('/').count()));
    for start in roots {
        for (at, _) in code.match_indices(&start) {
            if code[..at].ends_with(is_word) || code[..at].ends_with("::") {
                continue;
            }
            let rest = &code[at + start.len()..];
            let word = |s: &str| s.chars().take_while(|c| is_word(*c)).collect::<String>();
            let Some(list) = rest.strip_prefix('{') else {
                found.insert(word(rest));
                continue;
            };
            let mut depth = 0;
            let mut first = true;
            for (i, c) in list.char_indices() {
                match c {
                    '}' if depth == 0 => break,
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    ',' if depth == 0 => first = true,
                    c if is_word(c) && first && depth == 0 => {
                        found.insert(word(&list[i..]));
                        first = false;
                    }
                    _ => {}
                }
            }
        }
    }
    found.remove("super");
    found
}

#[test]
fn imports_go_downward_only() {
    let levels = levels();
    let all = files("src", "rs");
    // Exported macros live at the crate's root; they count as the module that defines them.
    let module = |file: &str| {
        let name = file.trim_start_matches("src/").split('/').next().unwrap();
        name.trim_end_matches(".rs").to_string()
    };
    let mut macros = BTreeMap::new();
    for (file, text) in &all {
        let code = code(text);
        for (at, mark) in code.match_indices("macro_rules! ") {
            let name: String = code[at + mark.len()..].chars().take_while(|c| is_word(*c)).collect();
            macros.insert(name, module(file));
        }
    }
    let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for (file, text) in all.iter().filter(|(f, _)| f != "src/lib.rs" && f != "src/main.rs") {
        let own = module(file);
        for name in named(file, &code(text)) {
            let target = macros.get(&name).unwrap_or(&name).clone();
            let Some(level) = levels.get(&target) else { continue };
            seen += 1;
            if *level > levels[&own] {
                wrong.push(format!("{file} (level {}) uses {target} (level {level})", levels[&own]));
            }
            if target != own {
                uses.entry(own.clone()).or_default().insert(target);
            }
        }
    }
    assert!(seen > 100, "only {seen} imports were found: the test looks in the wrong place");
    assert!(wrong.is_empty(), "imports that go upward:\n{}", wrong.join("\n"));
    // On one level, too, nothing goes round in circles.
    for start in uses.keys() {
        let mut reached = BTreeSet::new();
        let mut next: Vec<&String> = uses[start].iter().collect();
        while let Some(m) = next.pop() {
            if reached.insert(m) {
                next.extend(uses.get(m).into_iter().flatten());
            }
        }
        assert!(!reached.contains(start), "{start} uses itself through {reached:?}");
    }
}

/// The modules that a file names below the crate's top level, as paths of files: the longest beginning of a path in code
/// (`crate::x::y::Z`, `super::y`, also within braces) that is a file.
fn files_named(file: &str, text: &str, all: &BTreeSet<String>) -> BTreeSet<String> {
    let base: Vec<String> = module_of(file).split("::").map(str::to_string).collect();
    let mut found = BTreeSet::new();
    for path in paths(text) {
        let mut parts: Vec<&str> = path.split("::").collect();
        let mut full: Vec<String> = match parts[0] {
            "crate" => Vec::new(),
            "super" => {
                let ups = parts.iter().take_while(|p| **p == "super").count();
                parts.drain(..ups - 1);
                base[..base.len().saturating_sub(ups)].to_vec()
            }
            _ => continue,
        };
        full.extend(parts[1..].iter().map(ToString::to_string));
        let known = (1..=full.len()).rev().map(|n| full[..n].join("::")).find(|p| all.contains(p));
        found.extend(known.filter(|k| *k != module_of(file)));
    }
    found
}

fn module_of(file: &str) -> String {
    let name = file.trim_start_matches("src/").trim_end_matches(".rs");
    name.trim_end_matches("/mod").replace('/', "::")
}

/// All paths that begin with `crate::` or `super::`, with what stands in braces written out.
fn paths(code: &str) -> Vec<String> {
    fn tail(rest: &str, prefix: &str, into: &mut Vec<String>) -> usize {
        let word = rest.chars().take_while(|c| is_word(*c)).map(char::len_utf8).sum::<usize>();
        if word == 0 && rest.starts_with('{') {
            let mut at = 1;
            while let Some(c) = rest[at..].chars().next() {
                match c {
                    '}' => return at + 1,
                    c if is_word(c) => at += tail(&rest[at..], prefix, into),
                    c => at += c.len_utf8(),
                }
            }
            return at;
        }
        let path = format!("{prefix}{}", &rest[..word]);
        if rest[word..].starts_with("::") && rest[word + 2..].starts_with(|c| is_word(c) || c == '{') {
            return word + 2 + tail(&rest[word + 2..], &format!("{path}::"), into);
        }
        into.push(path);
        word
    }
    let mut all = Vec::new();
    for start in ["crate::", "super::"] {
        for (at, _) in code.match_indices(start) {
            if !code[..at].ends_with(is_word) && !code[..at].ends_with("::") {
                tail(&code[at..], "", &mut all);
            }
        }
    }
    all
}

/// Files that lead back to themselves.
fn circles(uses: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let mut found = Vec::new();
    for start in uses.keys() {
        let mut reached = BTreeSet::new();
        let mut next: Vec<&String> = uses[start].iter().collect();
        while let Some(m) = next.pop() {
            if reached.insert(m) {
                next.extend(uses.get(m).into_iter().flatten());
            }
        }
        if reached.contains(start) {
            found.push(start.clone());
        }
    }
    found
}

/// Within rooms, too, imports go round in no circle. (A folder's own file, `mod.rs`, is its front: files below may name what
/// stands there.) Tests within a file may look anywhere.
#[test]
fn no_file_imports_itself_through_others() {
    let all: Vec<(String, String)> = files("src", "rs")
        .into_iter()
        .filter(|(f, _)| f != "src/lib.rs" && f != "src/main.rs")
        .map(|(f, t)| (f, code(t.split("#[cfg(test)]\nmod tests").next().unwrap())))
        .collect();
    let names: BTreeSet<String> = all.iter().map(|(f, _)| module_of(f)).collect();
    let front = |m: &String| names.iter().any(|n| n.starts_with(&format!("{m}::")));
    let uses: BTreeMap<String, BTreeSet<String>> = all
        .iter()
        .map(|(f, t)| (module_of(f), t))
        .filter(|(m, _)| !front(m))
        .map(|(m, t)| {
            let file = format!("src/{}.rs", m.replace("::", "/"));
            let named = files_named(&file, t, &names).into_iter().filter(|n| !front(n)).collect();
            (m, named)
        })
        .collect();
    let edges: usize = uses.values().map(BTreeSet::len).sum();
    assert!(edges > 500, "only {edges} imports between files were found: the test looks in the wrong place");
    let found = circles(&uses);
    assert!(found.is_empty(), "files that import themselves through others: {found:?}");
}

/// A planted circle is seen, whichever way the imports are written.
#[test]
fn circles_are_recognised() {
    let names: BTreeSet<String> = ["a::x", "a::y", "a::z", "b"].map(String::from).into();
    let uses = |texts: [(&str, &str); 3]| -> BTreeMap<String, BTreeSet<String>> {
        texts
            .into_iter()
            .map(|(m, t)| {
                (m.to_string(), files_named(&format!("src/{}.rs", m.replace("::", "/")), &code(t), &names))
            })
            .collect()
    };
    let round = uses([
        ("a::x", "use super::y::{self, Z};"),
        ("a::y", "use crate::{b, a::{z::{A, B}}};"),
        ("a::z", "fn f() { super::x::g() }"),
    ]);
    assert_eq!(round["a::y"], ["a::z", "b"].map(String::from).into());
    assert_eq!(circles(&round), ["a::x", "a::y", "a::z"]);
    let straight =
        uses([("a::x", "use super::y;"), ("a::y", "use crate::a::z;"), ("a::z", "// use super::x;")]);
    assert!(circles(&straight).is_empty());
}

/// The tools of this test see what they should.
#[test]
fn imports_are_recognised() {
    let text = "use crate::{error::Result, ops::{conv, pad}, rng};\n// crate::train\nlet s = \"crate::cli\";\nuse super::nn;\nuse super::super::data;\nlet x = crate::exec::f();\n";
    let names = |file| named(file, &code(text)).into_iter().collect::<Vec<_>>();
    assert_eq!(names("src/shape.rs"), ["error", "exec", "nn", "ops", "rng"]);
    assert_eq!(names("src/graph/mod.rs"), ["error", "exec", "nn", "ops", "rng"]);
    assert_eq!(names("src/graph/var.rs"), ["data", "error", "exec", "ops", "rng"]);
    assert_eq!(levels()["cli"], 14);
}

#[test]
fn unsafe_code_is_the_devices() {
    let all = files("src", "rs");
    let has = |text: &str| {
        code(text).lines().any(|l| {
            l.match_indices("unsafe")
                .any(|(i, w)| !l[..i].ends_with(is_word) && !l[i + w.len()..].starts_with(is_word))
        })
    };
    let users: Vec<&String> = all.iter().filter(|(_, t)| has(t)).map(|(f, _)| f).collect();
    assert!(!users.is_empty(), "the test sees no `unsafe` at all");
    let strays: Vec<_> = users.iter().filter(|f| !f.starts_with("src/device/")).collect();
    assert!(strays.is_empty(), "`unsafe` outside src/device: {strays:?}");
}

#[test]
fn nothing_is_unfinished_and_no_file_is_a_monster() {
    let marks =
        [["to", "do!("], ["unimple", "mented!("], ["FIX", "ME"], ["XX", "X:"], ["TO", "DO"], ["db", "g!("]];
    let sources: Vec<_> =
        ["src", "tests", "examples", "benches"].iter().flat_map(|d| files(d, "rs")).collect();
    assert!(sources.len() > 50);
    for (file, text) in &sources {
        for mark in marks.map(|m| m.concat()) {
            assert!(!text.contains(&mark), "{file} contains {mark}");
        }
        let lines = text.lines().count();
        assert!(lines <= 700, "{file} has {lines} lines; 700 are the most, 500 the aim");
    }
}

#[test]
fn every_recipe_is_valid() {
    let recipes = files("recipes", "toml");
    assert!(recipes.len() >= 2);
    for (file, text) in recipes {
        let recipe = gan::recipe::Recipe::parse(&text, &file, &[]).unwrap_or_else(|e| panic!("{e}"));
        let stem = Path::new(&file).file_stem().unwrap().to_string_lossy().into_owned();
        assert_eq!(recipe.name, stem, "{file}: a recipe is named like its file");
        let again = gan::recipe::Recipe::parse(&recipe.to_toml(), &file, &[]).unwrap();
        assert_eq!(again, recipe, "{file}: the resolved recipe reads back as another");
        if let Some(manifest) = &recipe.data.manifest {
            assert!(
                root().join(manifest).is_file(),
                "{file} names {}, which is not there",
                manifest.display()
            );
        }
    }
}
