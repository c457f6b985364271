//! A reader of the pickles that hold state dicts. It executes nothing.
//!
//! A pickle is a program for a stack machine, and Python's own reader calls whatever function it names: opening a file
//! can delete another. This machine has no calls. It knows the dozen names of PyTorch's that a state dict is written
//! with, builds plain data from them, and refuses every other name and every instruction that it does not need.
//!
//! Objects live in one list and refer to each other by number, so that nothing recurses, however deep a pickle nests
//! and whatever circles it draws; their number is limited.

use super::Element;
use std::collections::HashMap;

/// Most objects of a pickle. A state dict has some twenty per tensor.
const MOST_OBJECTS: usize = 1 << 21;

/// Most axes of a tensor.
const MOST_AXES: usize = 8;

/// An object's number.
pub(super) type Id = usize;

/// What a pickle may name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Storage(Element),
}

impl Global {
    fn find(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("collections", "OrderedDict") => Global::OrderedDict,
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Global::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Global::RebuildParameter,
            ("torch" | "torch.storage", _) => Global::Storage(match name.strip_suffix("Storage")? {
                "Double" => Element::F64,
                "Float" => Element::F32,
                "Half" => Element::F16,
                "BFloat16" => Element::BF16,
                "Long" => Element::I64,
                "Int" => Element::I32,
                "Short" => Element::I16,
                "Char" => Element::I8,
                "Byte" => Element::U8,
                "Bool" => Element::Bool,
                _ => return None,
            }),
            _ => return None,
        })
    }
}

/// A value of a pickle.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Object<'a> {
    /// None or a fraction: nothing that a tensor is made of.
    Other,
    Bool(bool),
    Int(i64),
    /// A whole number of any length, least significant byte first.
    Long(&'a [u8]),
    Text(&'a str),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    Storage {
        element: Element,
        key: &'a str,
    },
    Tensor {
        storage: Id,
        offset: usize,
        size: Vec<usize>,
        stride: Vec<usize>,
    },
}

use Object::*;

/// A read pickle.
pub(super) struct Pickle<'a> {
    objects: Vec<Object<'a>>,
    /// The outermost object.
    pub root: Id,
    /// Bytes that it took.
    pub length: usize,
}

impl<'a> Pickle<'a> {
    /// Reads the pickle that `bytes` begin with.
    pub fn read(bytes: &'a [u8]) -> Result<Self, String> {
        Machine {
            bytes,
            at: 0,
            objects: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
        }
        .run()
    }

    pub fn get(&self, id: Id) -> &Object<'a> {
        &self.objects[id]
    }

    pub fn objects(&self) -> &[Object<'a>] {
        &self.objects
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    objects: Vec<Object<'a>>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
}

/// A name from a file, fit for a message.
pub(super) fn shown(name: &str) -> String {
    let short: String = name.chars().take(80).collect();
    short.escape_debug().to_string()
}

fn not(what: &str) -> String {
    format!("its pickle is not one of a state dict ({what})")
}

impl<'a> Machine<'a> {
    fn run(mut self) -> Result<Pickle<'a>, String> {
        loop {
            let code = self.take(1)?[0];
            match code {
                // PROTO; FRAME
                0x80 => drop(self.take(1)?),
                0x95 => drop(self.take(8)?),
                b'.' => {
                    let root = self.pop()?;
                    return Ok(Pickle { objects: self.objects, root, length: self.at });
                }
                b'(' => self.marks.push(self.stack.len()),
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.global(module, name)?;
                }
                // STACK_GLOBAL
                0x93 => {
                    let (name, module) = (self.pop_text()?, self.pop_text()?);
                    self.global(module, name)?;
                }
                b'N' => self.push(Other)?,
                0x88 | 0x89 => self.push(Bool(code == 0x88))?,
                b'G' => {
                    self.take(8)?;
                    self.push(Other)?;
                }
                b'K' => self.number(1)?,
                b'M' => self.number(2)?,
                b'J' => {
                    let value = self.length(4)? as u32 as i32;
                    self.push(Int(value.into()))?;
                }
                // LONG1
                0x8a => {
                    let n = self.length(1)?;
                    let digits = self.take(n)?;
                    self.push(long(digits))?;
                }
                // BINUNICODE, SHORT_BINUNICODE, BINUNICODE8, and Python 2's SHORT_BINSTRING and BINSTRING
                b'X' | b'T' => self.text(4)?,
                0x8c | b'U' => self.text(1)?,
                0x8d => self.text(8)?,
                b')' => self.push(Tuple(Vec::new()))?,
                b']' => self.push(List(Vec::new()))?,
                b'}' => self.push(Dict(Vec::new()))?,
                b't' => {
                    let items = self.since_mark()?;
                    self.push(Tuple(items))?;
                }
                0x85..=0x87 => {
                    let from = self.stack.len().checked_sub(usize::from(code - 0x84));
                    let from = from.filter(|f| self.marks.last().is_none_or(|m| f >= m));
                    let items = self.stack.split_off(from.ok_or_else(|| not("its stack is empty"))?);
                    self.push(Tuple(items))?;
                }
                b'a' => {
                    let item = self.pop()?;
                    self.extend(vec![item])?;
                }
                b'e' => {
                    let items = self.since_mark()?;
                    self.extend(items)?;
                }
                b's' => {
                    let (value, key) = (self.pop()?, self.pop()?);
                    self.set(vec![key, value])?;
                }
                b'u' => {
                    let items = self.since_mark()?;
                    self.set(items)?;
                }
                b'R' => self.reduce()?,
                b'b' => self.build()?,
                // BINPERSID
                b'Q' => self.storage()?,
                // BINPUT, LONG_BINPUT, MEMOIZE; BINGET, LONG_BINGET
                b'q' => {
                    let slot = self.length(1)?;
                    self.remember(slot as u64)?;
                }
                b'r' => {
                    let slot = self.length(4)?;
                    self.remember(slot as u64)?;
                }
                0x94 => self.remember(self.memo.len() as u64)?,
                b'h' => {
                    let slot = self.length(1)?;
                    self.recall(slot as u64)?;
                }
                b'j' => {
                    let slot = self.length(4)?;
                    self.recall(slot as u64)?;
                }
                other => return Err(not(&format!("instruction {other:#04x} at byte {}", self.at - 1))),
            }
        }
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(n).filter(|e| *e <= self.bytes.len());
        let end = end.ok_or("it ends in the middle of its pickle; copy it again")?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    /// An unsigned number of `n` bytes; one that is too large becomes the largest, which nothing is as long as.
    fn length(&mut self, n: usize) -> Result<usize, String> {
        let mut all = [0; 8];
        all[..n].copy_from_slice(self.take(n)?);
        Ok(usize::try_from(u64::from_le_bytes(all)).unwrap_or(usize::MAX))
    }

    fn line(&mut self) -> Result<&'a str, String> {
        let rest = &self.bytes[self.at..];
        let n = rest
            .iter()
            .position(|b| *b == b'\n')
            .ok_or("it ends in the middle of its pickle; copy it again")?;
        self.at += n + 1;
        std::str::from_utf8(&rest[..n]).map_err(|_| not("a name is no text"))
    }

    fn push(&mut self, object: Object<'a>) -> Result<(), String> {
        if self.objects.len() >= MOST_OBJECTS {
            return Err(not(&format!("it makes more than {MOST_OBJECTS} objects")));
        }
        self.stack.push(self.objects.len());
        self.objects.push(object);
        Ok(())
    }

    fn pop(&mut self) -> Result<Id, String> {
        let above = self.marks.last().is_none_or(|m| self.stack.len() > *m);
        self.stack.pop().filter(|_| above).ok_or_else(|| not("its stack is empty"))
    }

    fn top(&self) -> Result<Id, String> {
        self.stack.last().copied().ok_or_else(|| not("its stack is empty"))
    }

    fn pop_text(&mut self) -> Result<&'a str, String> {
        let id = self.pop()?;
        self.as_text(id).ok_or_else(|| not("a name is no text"))
    }

    fn as_text(&self, id: Id) -> Option<&'a str> {
        if let Text(t) = &self.objects[id] { Some(t) } else { None }
    }

    fn as_tuple(&self, id: Id) -> Option<&[Id]> {
        if let Tuple(items) = &self.objects[id] { Some(items) } else { None }
    }

    fn as_size(&self, id: Id) -> Option<usize> {
        if let Int(v) = self.objects[id] { usize::try_from(v).ok() } else { None }
    }

    /// A tuple of a few whole numbers that are not negative.
    fn as_sizes(&self, id: Id) -> Option<Vec<usize>> {
        let items = self.as_tuple(id).filter(|t| t.len() <= MOST_AXES)?;
        items.iter().map(|i| self.as_size(*i)).collect()
    }

    fn since_mark(&mut self) -> Result<Vec<Id>, String> {
        let mark =
            self.marks.pop().filter(|m| *m <= self.stack.len()).ok_or_else(|| not("a mark is missing"))?;
        Ok(self.stack.split_off(mark))
    }

    fn number(&mut self, bytes: usize) -> Result<(), String> {
        let value = self.length(bytes)?;
        self.push(Int(value as i64))
    }

    fn text(&mut self, width: usize) -> Result<(), String> {
        let n = self.length(width)?;
        let text = std::str::from_utf8(self.take(n)?).map_err(|_| not("a string is no text"))?;
        self.push(Text(text))
    }

    fn remember(&mut self, slot: u64) -> Result<(), String> {
        let id = self.top()?;
        self.memo.insert(slot, id);
        Ok(())
    }

    fn recall(&mut self, slot: u64) -> Result<(), String> {
        let id = *self.memo.get(&slot).ok_or_else(|| not("it recalls what it never made"))?;
        self.stack.push(id);
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str) -> Result<(), String> {
        let global = Global::find(module, name).ok_or_else(|| {
            format!(
                "its pickle asks for `{}.{}`, which weights don't need and which was not run; save the weights alone, with torch.save(net.state_dict(), ...)",
                shown(module),
                shown(name)
            )
        })?;
        self.push(Global(global))
    }

    fn extend(&mut self, mut items: Vec<Id>) -> Result<(), String> {
        match &mut self.objects[self.stack.last().copied().ok_or_else(|| not("its stack is empty"))?] {
            List(list) => {
                list.append(&mut items);
                Ok(())
            }
            _ => Err(not("it appends to what is no list")),
        }
    }

    fn set(&mut self, items: Vec<Id>) -> Result<(), String> {
        let id = self.top()?;
        match &mut self.objects[id] {
            Dict(entries) if items.len().is_multiple_of(2) => {
                entries.extend(items.chunks_exact(2).map(|p| (p[0], p[1])));
                Ok(())
            }
            _ => Err(not("it sets an item of what is no dictionary")),
        }
    }

    /// A "call": one of the known names with its arguments becomes data.
    fn reduce(&mut self) -> Result<(), String> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let (Global(global), Tuple(arguments)) = (&self.objects[function], &self.objects[arguments]) else {
            return Err(not("it calls what is no name"));
        };
        let made = match (*global, arguments.as_slice()) {
            (Global::OrderedDict, []) => Some(Dict(Vec::new())),
            (Global::OrderedDict, &[list]) => self.pairs(list).map(Dict),
            (Global::RebuildTensor, &[storage, offset, size, stride, ..]) => {
                self.tensor(storage, offset, size, stride)
            }
            (Global::RebuildParameter, &[data, ..]) => {
                Some(self.objects[data].clone()).filter(|d| matches!(d, Tensor { .. }))
            }
            _ => None,
        };
        self.push(made.ok_or_else(|| not("a tensor's description is not what PyTorch writes"))?)
    }

    /// What Python 2 passed to an ordered dictionary. It is taken out of the list: one that is passed again and again
    /// must not multiply.
    fn pairs(&mut self, list: Id) -> Option<Vec<(Id, Id)>> {
        let List(items) = &mut self.objects[list] else { return None };
        std::mem::take(items)
            .into_iter()
            .map(|i| match &self.objects[i] {
                List(pair) | Tuple(pair) if pair.len() == 2 => Some((pair[0], pair[1])),
                _ => None,
            })
            .collect()
    }

    fn tensor(&self, storage: Id, offset: Id, size: Id, stride: Id) -> Option<Object<'a>> {
        let (size, stride) = (self.as_sizes(size)?, self.as_sizes(stride)?);
        let fits = matches!(self.objects[storage], Storage { .. }) && size.len() == stride.len();
        fits.then_some(Tensor { storage, offset: self.as_size(offset)?, size, stride })
    }

    /// Attributes: `_metadata` of a state dict (versions of modules), which has no weights. Nothing else has any.
    fn build(&mut self) -> Result<(), String> {
        self.pop()?;
        let id = self.top()?;
        match self.objects[id] {
            Dict(_) => Ok(()),
            _ => Err(not("it sets attributes of what has none")),
        }
    }

    /// `("storage", type, key, device, number of elements)`, in old files with a sixth entry that is None.
    fn storage(&mut self) -> Result<(), String> {
        let id = self.pop()?;
        let parts = self.as_tuple(id).unwrap_or_default();
        let found = match *parts {
            [tag, kind, key, _, _] => Some((tag, kind, key)),
            [tag, kind, key, _, _, view] if self.objects[view] == Other => Some((tag, kind, key)),
            _ => None,
        };
        let found = found.filter(|(tag, ..)| self.as_text(*tag) == Some("storage"));
        let storage = found.and_then(|(_, kind, key)| match (&self.objects[kind], self.as_text(key)) {
            (Global(Global::Storage(element)), Some(key)) => Some(Storage { element: *element, key }),
            _ => None,
        });
        self.push(storage.ok_or_else(|| not("a storage's description is not what PyTorch writes"))?)
    }
}

/// A whole number of any length; one that fits is as good as any other.
fn long(digits: &[u8]) -> Object<'_> {
    if digits.len() > 8 {
        return Long(digits);
    }
    let fill = if digits.last().is_some_and(|d| *d >= 0x80) { 0xff } else { 0 };
    let mut all = [fill; 8];
    all[..digits.len()].copy_from_slice(digits);
    Int(i64::from_le_bytes(all))
}
