//! PyTorch's own files: since version 1.6 a zip archive, before it pickles in a row with the elements behind them.

use super::pickle::{Id, Object, Pickle, asks_for, shown};
use super::{Contents, Element, Tensor};
use std::collections::{HashMap, HashSet};
use std::io::Cursor;
use std::ops::Range;
use zip::{CompressionMethod, ZipArchive};

/// What an old file begins with: a pickle of this number.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// How deep in a checkpoint's dictionaries state dicts are looked for.
const DEEPEST: usize = 3;

/// A tensor's elements: the type and, by the file, where its storage's bytes are.
type Find<'a> = dyn Fn(&str) -> Option<Range<usize>> + 'a;

/// Reads the state dicts of a file.
pub(super) fn read(file: &[u8]) -> Result<Contents, String> {
    match file {
        [b'P', b'K', ..] => read_zip(file),
        [0x80, ..] => read_legacy(file),
        _ => Err("it is neither a PyTorch file (.pth, .pt) nor a safetensors file".into()),
    }
}

fn read_zip(file: &[u8]) -> Result<Contents, String> {
    let broken =
        |e: zip::result::ZipError| format!("its zip archive is damaged or cut short ({e}); copy it again");
    let mut archive = ZipArchive::new(Cursor::new(file)).map_err(broken)?;
    let mut records: HashMap<String, Range<usize>> = HashMap::new();
    for i in 0..archive.len() {
        let entry = archive.by_index_raw(i).map_err(broken)?;
        let name = entry.name().map_err(broken)?.into_owned();
        if entry.compression() != CompressionMethod::Stored || entry.encrypted() {
            return Err(format!(
                "its entry {} is compressed or encrypted, which PyTorch never does; save it with torch.save",
                shown(&name)
            ));
        }
        let start = entry.data_start().and_then(|s| usize::try_from(s).ok());
        let size = usize::try_from(entry.size()).ok();
        let range = start.zip(size).and_then(|(s, n)| Some(s..s.checked_add(n)?));
        let range = range.filter(|r| r.end <= file.len());
        let range = range
            .ok_or_else(|| format!("its entry {} sticks out of the file; copy it again", shown(&name)))?;
        // Everything lies in a folder that is named like the file once was.
        let inner = name.split_once('/').map_or(name.clone(), |(_, inner)| inner.to_string());
        records.insert(inner, range);
    }
    let at = |name: &str| records.get(name).cloned();
    if at("constants.pkl").is_some() {
        return Err("it is a TorchScript program, which holds code; save the weights alone, with torch.save(net.state_dict(), ...)".into());
    }
    let main =
        at("data.pkl").ok_or("it is a zip archive of something else than PyTorch's (it has no data.pkl)")?;
    if at("byteorder").is_some_and(|r| file[r] != *b"little") {
        return Err("it was written on a big-endian machine; save it on a usual one".into());
    }
    let pickle = Pickle::read(&file[main])?;
    contents(&pickle, &|key| at(&format!("data/{key}")))
}

fn read_legacy(file: &[u8]) -> Result<Contents, String> {
    let mut at = 0;
    let mut next = || {
        let pickle = Pickle::read(&file[at..])?;
        at += pickle.length;
        Ok::<_, String>((pickle, at))
    };
    let (magic, _) = next()?;
    if *magic.get(magic.root) != Object::Long(&MAGIC) {
        let other =
            "it is a pickle, but none of PyTorch's; save the weights with torch.save(net.state_dict(), ...)";
        return Err(magic.foreign.first().map_or(other.into(), |name| asks_for(name)));
    }
    let (version, _) = next()?;
    if *version.get(version.root) != Object::Int(1001) {
        return Err("it is in a form of PyTorch's that nobody knows; save it with a current PyTorch".into());
    }
    let (system, _) = next()?;
    if let Object::Dict(facts) = system.get(system.root)
        && facts.iter().any(|(k, v)| {
            *system.get(*k) == Object::Text("little_endian") && *system.get(*v) == Object::Bool(false)
        })
    {
        return Err("it was written on a big-endian machine; save it on a usual one".into());
    }
    let (pickle, _) = next()?;
    let (keys, mut begin) = next()?;
    let types = storage_types(&pickle)?;
    let cut = || "it ends before its last tensor; copy it again".to_string();
    let mut records: HashMap<&str, Range<usize>> = HashMap::new();
    let Object::List(list) = keys.get(keys.root) else {
        return Err("it does not list its storages; copy it again".into());
    };
    for id in list {
        let Object::Text(key) = keys.get(*id) else {
            return Err("it does not list its storages; copy it again".into());
        };
        let element = types.get(key).ok_or("it lists a storage that no tensor uses; copy it again")?;
        let count = file.get(begin..).and_then(|f| f.first_chunk()).map(|b| u64::from_le_bytes(*b));
        let bytes = count.and_then(|c| usize::try_from(c).ok()?.checked_mul(element.bytes()));
        let end = bytes.and_then(|b| (begin + 8).checked_add(b)).filter(|e| *e <= file.len());
        let end = end.ok_or_else(cut)?;
        records.insert(key, begin + 8..end);
        begin = end;
    }
    contents(&pickle, &|key| records.get(key).cloned())
}

/// The element type of every storage that a pickle names.
fn storage_types<'a>(pickle: &Pickle<'a>) -> Result<HashMap<&'a str, Element>, String> {
    let mut types = HashMap::new();
    for object in pickle.objects() {
        if let Object::Storage { element, key } = object
            && types.insert(*key, *element).is_some_and(|e| e != *element)
        {
            return Err(format!("its storage {} has two types; copy it again", shown(key)));
        }
    }
    Ok(types)
}

/// The entries of a dictionary, by their objects' numbers.
type Entries<'p> = &'p [(Id, Id)];

/// The state dicts of a pickle and what lies beside them.
fn contents(pickle: &Pickle, find: &Find) -> Result<Contents, String> {
    let Object::Dict(outer) = pickle.get(pickle.root) else {
        return Err(pickle.foreign.first().map_or_else(
            || "it is no state dict but something else that was pickled; save the weights with torch.save(net.state_dict(), ...)".into(),
            |name| asks_for(name),
        ));
    };
    let mut dicts = Vec::new();
    collect(pickle, pickle.root, "", DEEPEST, &mut HashSet::new(), &mut dicts);
    let whole = dicts.first().is_some_and(|(path, _)| path.is_empty());
    // A state dict alone needs no other name. A checkpoint holds whatever its program put there.
    if let Some(name) = pickle.foreign.first().filter(|_| whole || dicts.is_empty()) {
        return Err(asks_for(name));
    }
    if dicts.is_empty() {
        // Nothing in it is a state dict: let its own entries say why.
        return Ok(Contents {
            dicts: vec![(String::new(), tensors(pickle, outer, find)?)],
            ..Default::default()
        });
    }
    let names = outer.iter().filter_map(|(k, _)| match pickle.get(*k) {
        Object::Text(name) if !whole => Some(shown(name)),
        _ => None,
    });
    let mut beside: Vec<String> = names.collect();
    if !pickle.foreign.is_empty() {
        beside.push(format!("objects of {}, none of which was run", pickle.foreign.join(", ")));
    }
    let read = |(path, entries): (String, Entries)| Ok((path, tensors(pickle, entries, find)?));
    Ok(Contents { dicts: dicts.into_iter().map(read).collect::<Result<_, String>>()?, beside })
}

/// Finds the state dicts, that is the dictionaries of tensors by name, in `id` and in what it holds by name.
fn collect<'p>(
    pickle: &'p Pickle,
    id: Id,
    path: &str,
    depth: usize,
    seen: &mut HashSet<Id>,
    found: &mut Vec<(String, Entries<'p>)>,
) {
    let Object::Dict(entries) = pickle.get(id) else { return };
    if !seen.insert(id) {
        return;
    }
    let text = |k: &Id| if let Object::Text(name) = pickle.get(*k) { Some(*name) } else { None };
    let is_tensor = |v: &Id| matches!(pickle.get(*v), Object::Tensor { .. });
    let fits = |(k, v): &(Id, Id)| text(k).is_some_and(|name| is_tensor(v) || extra(name));
    if entries.iter().any(|(_, v)| is_tensor(v)) && entries.iter().all(fits) {
        found.push((path.to_string(), entries));
        return;
    }
    for (name, value) in entries.iter().filter(|_| depth > 0).filter_map(|(k, v)| Some((text(k)?, *v))) {
        let inner = if path.is_empty() { shown(name) } else { format!("{path}.{}", shown(name)) };
        collect(pickle, value, &inner, depth - 1, seen, found);
    }
}

/// What PyTorch keeps of a module that is no tensor.
fn extra(key: &str) -> bool {
    key == "_extra_state" || key.ends_with("._extra_state")
}

/// The tensors of a state dict, with their elements' places in the file.
fn tensors(pickle: &Pickle, entries: Entries, find: &Find) -> Result<Vec<(String, Tensor)>, String> {
    let mut out = Vec::new();
    for &(key, value) in entries {
        let Object::Text(key) = pickle.get(key) else {
            return Err("it is no state dict: a key is no text".into());
        };
        match pickle.get(value) {
            Object::Tensor { storage, offset, size, stride } => {
                let Object::Storage { element, key: record } = pickle.get(*storage) else {
                    return Err(format!("tensor {} has no storage; copy it again", shown(key)));
                };
                let bytes = find(record).ok_or_else(|| {
                    format!("the elements of tensor {} are not in it; copy it again", shown(key))
                })?;
                let tensor = Tensor {
                    shape: size.clone(),
                    stride: stride.clone(),
                    offset: *offset,
                    element: *element,
                    bytes,
                };
                out.push((key.to_string(), tensor));
            }
            _ if extra(key) => {}
            _ => {
                return Err(format!(
                    "it is no state dict: its entry {} is no tensor; save the weights alone, with torch.save(net.state_dict(), ...)",
                    shown(key)
                ));
            }
        }
    }
    Ok(out)
}
