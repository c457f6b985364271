//! A reader of the pickles that hold state dicts. It executes nothing.
//!
//! A pickle is a program for a stack machine, and Python's own reader calls whatever function it names: opening a file
//! can delete another. This machine has no calls. It knows the dozen names of PyTorch's that a state dict is written
//! with and builds plain data from them. What any other name makes (the hyper-parameters that whole checkpoints hold beside
//! the weights, say) is an object without content, whatever is done to it; [`Pickle::foreign`] tells the names.
//!
//! Objects live in one list and refer to each other by number, so that nothing recurses, however deep a pickle nests
//! and whatever circles it draws; their number is limited.

use super::Element;
use std::collections::HashMap;

/// Most objects of a pickle. A state dict has some twenty per tensor.
const MOST_OBJECTS: usize = 1 << 21;

/// Most foreign names that are told.
const MOST_NAMES: usize = 16;

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
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => {
                Global::RebuildParameter
            }
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
    /// None, a fraction, bytes, a set: nothing that a tensor is made of.
    Other,
    /// A name that weights don't need, or what it would make: it stays unknown.
    Foreign,
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
    /// Names that weights don't need, fit for a message, each once. None was run.
    pub foreign: Vec<String>,
    /// The outermost object.
    pub root: Id,
    /// Bytes that it took.
    pub length: usize,
}

impl<'a> Pickle<'a> {
    /// Reads the pickle that `bytes` begin with.
    pub fn read(bytes: &'a [u8]) -> Result<Self, String> {
        let mut machine = Machine {
            bytes,
            at: 0,
            objects: Vec::new(),
            foreign: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
        };
        match machine.run() {
            Ok(root) => {
                let Machine { objects, foreign, at, .. } = machine;
                Ok(Pickle { objects, foreign, root, length: at })
            }
            // It is broken, or made for something else: a name says more.
            Err(why) => Err(machine.foreign.first().map_or(why, |name| asks_for(name))),
        }
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
    foreign: Vec<String>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
}

/// A name from a file, fit for a message.
pub(super) fn shown(name: &str) -> String {
    let short: String = name.chars().take(80).collect();
    short.escape_debug().to_string()
}

/// That a pickle names what is not needed.
pub(super) fn asks_for(name: &str) -> String {
    format!(
        "its pickle asks for `{name}`, which weights don't need and which was not run; save the weights alone, with torch.save(net.state_dict(), ...)"
    )
}

fn not(what: &str) -> String {
    format!("its pickle is not one of a state dict ({what})")
}

impl<'a> Machine<'a> {
    /// Runs to the end; the outermost object.
    fn run(&mut self) -> Result<Id, String> {
        loop {
            let code = self.take(1)?[0];
            match code {
                // PROTO; FRAME
                0x80 => drop(self.take(1)?),
                0x95 => drop(self.take(8)?),
                b'.' => return self.pop(),
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
                // NEWOBJ, NEWOBJ_EX: objects of classes.
                0x81 | 0x92 => {
                    for _ in 0..if code == 0x92 { 3 } else { 2 } {
                        self.pop()?;
                    }
                    self.push(Foreign)?;
                }
                // BINBYTES, SHORT_BINBYTES, BINBYTES8, BYTEARRAY8
                b'B' | b'C' | 0x8e | 0x96 => {
                    let n = self.length(match code {
                        b'B' => 4,
                        b'C' => 1,
                        _ => 8,
                    })?;
                    self.take(n)?;
                    self.push(Other)?;
                }
                // EMPTY_SET, ADDITEMS, FROZENSET
                0x8f => self.push(Other)?,
                0x90 => drop((self.since_mark()?, self.top()?)),
                0x91 => {
                    self.since_mark()?;
                    self.push(Other)?;
                }
                // POP, DUP
                b'0' => drop(self.pop()?),
                b'2' => {
                    let id = self.top()?;
                    self.stack.push(id);
                }
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
        match Global::find(module, name) {
            Some(global) => self.push(Global(global)),
            None => {
                let full = format!("{}.{}", shown(module), shown(name));
                if self.foreign.len() < MOST_NAMES && !self.foreign.contains(&full) {
                    self.foreign.push(full);
                }
                self.push(Foreign)
            }
        }
    }

    fn extend(&mut self, mut items: Vec<Id>) -> Result<(), String> {
        match &mut self.objects[self.stack.last().copied().ok_or_else(|| not("its stack is empty"))?] {
            List(list) => {
                list.append(&mut items);
                Ok(())
            }
            Foreign => Ok(()),
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
            Foreign => Ok(()),
            _ => Err(not("it sets an item of what is no dictionary")),
        }
    }

    /// A "call": one of the known names with its arguments becomes data.
    fn reduce(&mut self) -> Result<(), String> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        if self.objects[function] == Foreign {
            return self.push(Foreign);
        }
        let (Global(global), Tuple(arguments)) = (&self.objects[function], &self.objects[arguments]) else {
            return Err(not("it calls what is no name"));
        };
        let made = match (*global, arguments.as_slice()) {
            (Global::OrderedDict, []) => Some(Dict(Vec::new())),
            (Global::OrderedDict, &[list]) => self.pairs(list).map(Dict),
            // A tensor of a kind that weights have not.
            (Global::RebuildTensor, &[storage, ..]) if self.objects[storage] == Foreign => Some(Foreign),
            (Global::RebuildParameter, &[data, ..]) if self.objects[data] == Foreign => Some(Foreign),
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
            Dict(_) | Foreign => Ok(()),
            // Python gives attributes to a parameter or a tensor that has some.
            Tensor { .. } => Ok(()),
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
        if found.is_some_and(|(_, kind, _)| self.objects[kind] == Foreign) {
            return self.push(Foreign);
        }
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
