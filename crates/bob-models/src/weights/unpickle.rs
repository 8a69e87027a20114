//! What a pickle would build, as plain data: nothing is looked up in Python and nothing is called.
//!
//! The opcodes are those of `Lib/pickletools.py` of CPython. Values lie in one list and name each other by their
//! places in it, so that a pickle that nests or repeats itself without end costs no more than its own length.

use std::collections::HashMap;
use std::io::{self, BufRead};
use std::rc::Rc;

use burn::store::pytorch_reader::OpCode;

use super::opcodes::{Opcodes, invalid};

/// Longest text that is kept; a name or a type is far shorter.
const MAX_TEXT: u64 = 1 << 16;

/// Most values of a pickle: the largest models have a few ten thousand, and a compressed pickle may claim any number.
const MAX_VALUES: usize = 1 << 20;

/// The place of a value.
pub(super) type Id = usize;

/// A value of a pickle.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// A number that is no integer, a set, or anything else of no use here.
    Other,
    Bool(bool),
    Int(i64),
    Text(Rc<str>),
    /// Bytes, by where they lie in the pickle.
    Bytes {
        start: u64,
        len: u64,
    },
    /// `module.name`.
    Global(Rc<str>),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// What the pickle leaves to its container to find.
    Persistent(Id),
    /// An object: what would make it, from which arguments, and what would be set on it then.
    Object {
        made_by: Id,
        arguments: Id,
        state: Option<Id>,
    },
}

/// The values of one pickle.
#[derive(Debug)]
pub(super) struct Pickle {
    values: Vec<Value>,
    /// The place of the whole.
    pub(super) root: Id,
}

impl Pickle {
    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    pub(super) fn get(&self, id: Id) -> &Value {
        self.values.get(id).unwrap_or(&Value::Other)
    }

    pub(super) fn text(&self, id: Id) -> Option<&str> {
        match self.get(id) {
            Value::Text(text) | Value::Global(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn size(&self, id: Id) -> Option<usize> {
        match self.get(id) {
            Value::Int(size) => usize::try_from(*size).ok(),
            _ => None,
        }
    }

    pub(super) fn tuple(&self, id: Id) -> Option<&[Id]> {
        match self.get(id) {
            Value::Tuple(items) => Some(items),
            _ => None,
        }
    }

    pub(super) fn sizes(&self, id: Id) -> Option<Vec<usize>> {
        self.tuple(id)?.iter().map(|&id| self.size(id)).collect()
    }

    /// The name of what made the object `id`, its arguments and its state.
    pub(super) fn object(&self, id: Id) -> Option<(&str, &[Id], Option<Id>)> {
        match self.get(id) {
            Value::Object {
                made_by,
                arguments,
                state,
            } => Some((self.text(*made_by)?, self.tuple(*arguments)?, *state)),
            _ => None,
        }
    }
}

/// Read one pickle.
///
/// # Errors
/// Where it ends early, has an opcode that no writer of tensors uses, or takes more from its stack than it put there.
pub(super) fn unpickle(pickle: &mut dyn BufRead) -> io::Result<Pickle> {
    let mut machine = Machine {
        bytes: Opcodes::new(pickle),
        values: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
    };
    while machine.step()? {
        if machine.values.len().max(machine.stack.len()) > MAX_VALUES {
            return Err(invalid("more values than any model has"));
        }
    }
    let root = machine.pop()?;
    Ok(Pickle {
        values: machine.values,
        root,
    })
}

struct Machine<'a> {
    bytes: Opcodes<'a>,
    values: Vec<Value>,
    stack: Vec<Id>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
}

impl Machine<'_> {
    /// Follow one opcode; false at the end of the pickle.
    fn step(&mut self) -> io::Result<bool> {
        let byte = self.bytes.array::<1>()?[0];
        match OpCode::try_from(byte).map_err(|byte| invalid(format!("opcode 0x{byte:02x}")))? {
            OpCode::Stop => return Ok(false),
            OpCode::Proto => {
                self.bytes.array::<1>()?;
            }
            OpCode::Frame => {
                self.bytes.array::<8>()?;
            }

            OpCode::None | OpCode::EmptySet => self.push(Value::Other),
            OpCode::BinFloat => {
                self.bytes.array::<8>()?;
                self.push(Value::Other);
            }
            OpCode::NewTrue => self.push(Value::Bool(true)),
            OpCode::NewFalse => self.push(Value::Bool(false)),
            OpCode::BinInt1 => {
                let value = self.bytes.array::<1>()?[0];
                self.push(Value::Int(value.into()));
            }
            OpCode::BinInt2 => {
                let value = u16::from_le_bytes(self.bytes.array()?);
                self.push(Value::Int(value.into()));
            }
            OpCode::BinInt => {
                let value = i32::from_le_bytes(self.bytes.array()?);
                self.push(Value::Int(value.into()));
            }
            OpCode::Long1 => {
                let len = self.bytes.array::<1>()?[0];
                self.long(len)?;
            }

            OpCode::ShortBinUnicode | OpCode::ShortBinString => {
                let len = self.bytes.array::<1>()?[0];
                self.text(len.into())?;
            }
            OpCode::BinUnicode | OpCode::BinString => {
                let len = u32::from_le_bytes(self.bytes.array()?);
                self.text(len.into())?;
            }
            OpCode::BinUnicode8 => {
                let len = u64::from_le_bytes(self.bytes.array()?);
                self.text(len)?;
            }
            OpCode::ShortBinBytes => {
                let len = self.bytes.array::<1>()?[0];
                self.bytes(len.into())?;
            }
            OpCode::BinBytes => {
                let len = u32::from_le_bytes(self.bytes.array()?);
                self.bytes(len.into())?;
            }
            OpCode::BinBytes8 => {
                let len = u64::from_le_bytes(self.bytes.array()?);
                self.bytes(len)?;
            }
            OpCode::Global => {
                let name = format!("{}.{}", self.bytes.line(MAX_TEXT)?, self.bytes.line(MAX_TEXT)?);
                self.push(Value::Global(name.into()));
            }
            OpCode::StackGlobal => {
                let (name, module) = (self.pop()?, self.pop()?);
                let text = |id: Id| match self.values.get(id) {
                    Some(Value::Text(text)) => Ok(text.clone()),
                    _ => Err(invalid("a name that is computed")),
                };
                let name = format!("{}.{}", text(module)?, text(name)?);
                self.push(Value::Global(name.into()));
            }

            OpCode::Mark => self.marks.push(self.stack.len()),
            OpCode::Pop => {
                // Python's own reader takes a mark where there is nothing above it.
                if self.marks.last() == Some(&self.stack.len()) {
                    self.marks.pop();
                } else {
                    self.pop()?;
                }
            }
            OpCode::PopMark => {
                self.pop_mark()?;
            }
            OpCode::Dup => {
                let top = self.top()?;
                self.stack.push(top);
            }
            OpCode::BinPut => {
                let at = self.bytes.array::<1>()?[0];
                self.keep(at.into())?;
            }
            OpCode::LongBinPut => {
                let at = u32::from_le_bytes(self.bytes.array()?);
                self.keep(at.into())?;
            }
            OpCode::Memoize => self.keep(self.memo.len() as u64)?,
            OpCode::BinGet => {
                let at = self.bytes.array::<1>()?[0];
                self.recall(at.into())?;
            }
            OpCode::LongBinGet => {
                let at = u32::from_le_bytes(self.bytes.array()?);
                self.recall(at.into())?;
            }

            OpCode::EmptyTuple => self.push(Value::Tuple(Vec::new())),
            OpCode::Tuple1 => self.tuple(1)?,
            OpCode::Tuple2 => self.tuple(2)?,
            OpCode::Tuple3 => self.tuple(3)?,
            OpCode::Tuple => {
                let items = self.pop_mark()?;
                self.push(Value::Tuple(items));
            }
            OpCode::EmptyList => self.push(Value::List(Vec::new())),
            OpCode::Append => {
                let item = self.pop()?;
                self.append(&[item])?;
            }
            OpCode::Appends | OpCode::AddItems => {
                let items = self.pop_mark()?;
                self.append(&items)?;
            }
            OpCode::EmptyDict => self.push(Value::Dict(Vec::new())),
            OpCode::SetItem => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set_items(&[key, value])?;
            }
            OpCode::SetItems => {
                let items = self.pop_mark()?;
                self.set_items(&items)?;
            }

            OpCode::BinPersId => {
                let name = self.pop()?;
                self.push(Value::Persistent(name));
            }
            OpCode::Reduce | OpCode::NewObj => {
                let (arguments, made_by) = (self.pop()?, self.pop()?);
                let is_dict = matches!(
                    self.values.get(made_by),
                    Some(Value::Global(name)) if &**name == "collections.OrderedDict"
                );
                self.push(if is_dict {
                    Value::Dict(Vec::new())
                } else {
                    Value::Object {
                        made_by,
                        arguments,
                        state: None,
                    }
                });
            }
            OpCode::Build => {
                let new = self.pop()?;
                let object = self.top()?;
                if let Some(Value::Object { state, .. }) = self.values.get_mut(object) {
                    *state = Some(new);
                }
            }
            _ => return Err(invalid(format!("opcode 0x{byte:02x}, which no tensor needs"))),
        }
        Ok(true)
    }

    fn push(&mut self, value: Value) {
        self.stack.push(self.values.len());
        self.values.push(value);
    }

    fn top(&self) -> io::Result<Id> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let top = self.stack.get(floor..).and_then(<[Id]>::last);
        top.copied().ok_or_else(|| invalid("a stack that is too short"))
    }

    fn pop(&mut self) -> io::Result<Id> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_mark(&mut self) -> io::Result<Vec<Id>> {
        let mark = self.marks.pop().ok_or_else(|| invalid("a mark that is missing"))?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn keep(&mut self, at: u64) -> io::Result<()> {
        let top = self.top()?;
        self.memo.insert(at, top);
        Ok(())
    }

    fn recall(&mut self, at: u64) -> io::Result<()> {
        let id = *self.memo.get(&at).ok_or_else(|| invalid("a value that was not kept"))?;
        self.stack.push(id);
        Ok(())
    }

    fn tuple(&mut self, len: usize) -> io::Result<()> {
        let mut items = (0..len).map(|_| self.pop()).collect::<io::Result<Vec<_>>>()?;
        items.reverse();
        self.push(Value::Tuple(items));
        Ok(())
    }

    fn append(&mut self, items: &[Id]) -> io::Result<()> {
        let list = self.top()?;
        match self.values.get_mut(list) {
            Some(Value::List(list)) => list.extend(items),
            Some(Value::Other) => {} // a set
            _ => return Err(invalid("an item of no list")),
        }
        Ok(())
    }

    fn set_items(&mut self, items: &[Id]) -> io::Result<()> {
        let dict = self.top()?;
        match self.values.get_mut(dict) {
            Some(Value::Dict(dict)) => {
                dict.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1])));
                Ok(())
            }
            _ => Err(invalid("an item of no dictionary")),
        }
    }

    fn long(&mut self, len: u8) -> io::Result<()> {
        let mut bytes = [0; 8];
        let len = usize::from(len);
        let Some(known) = bytes.get_mut(..len) else {
            self.bytes.skip(len as u64)?;
            self.push(Value::Other);
            return Ok(());
        };
        self.bytes.fill(known)?;
        // Two's complement of any width.
        if known.last().is_some_and(|last| *last >= 0x80) {
            bytes[len..].fill(0xff);
        }
        self.push(Value::Int(i64::from_le_bytes(bytes)));
        Ok(())
    }

    fn text(&mut self, len: u64) -> io::Result<()> {
        let text = self.bytes.text(len, MAX_TEXT)?;
        self.push(text.map_or(Value::Other, |text| Value::Text(text.into())));
        Ok(())
    }

    fn bytes(&mut self, len: u64) -> io::Result<()> {
        let start = self.bytes.at;
        self.bytes.skip(len)?;
        self.push(Value::Bytes { start, len });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pickle_becomes_plain_data() {
        let check = |mut pickle: &[u8], expected: &str| {
            let found = match unpickle(&mut pickle) {
                Ok(pickle) => format!("{:?}", pickle.get(pickle.root)),
                Err(error) => error.to_string(),
            };
            assert_eq!(found, expected);
        };
        check(b"\x80\x02K\x01K\x02\x86.", "Tuple([0, 1])");
        check(b"\x80\x02}(X\x01\x00\x00\x00aK\x07u.", "Dict([(1, 2)])");
        check(b"\x80\x02\x8a\x02\x00\xff.", "Int(-256)");
        check(b"\x80\x03C\x02ab.", "Bytes { start: 4, len: 2 }");
        check(b"\x80\x02cposix\nsystem\n.", "Global(\"posix.system\")");
        check(
            b"\x80\x02cposix\nsystem\n)R.",
            "Object { made_by: 0, arguments: 1, state: None }",
        );
        check(b"\x80\x02ccollections\nOrderedDict\n)R.", "Dict([])");
        check(b"\x80\x02K\x01(0\x85.", "Tuple([0])");
        check(b"\x80\x02\x85.", "a stack that is too short");
        check(b"\x80\x02K\x01(\x85.", "a stack that is too short");
        check(b"\x80\x02t.", "a mark that is missing");
        check(b"\x80\x02h\x05.", "a value that was not kept");
        check(b"\x80\x02K\x01K\x02a.", "an item of no list");
        check(b"\x80\x02K\x01\x97.", "opcode 0x97, which no tensor needs");
        check(b"\x80\x02X\xff\xff\xff\xffa", "unexpected end of file");
    }

    #[test]
    fn a_value_in_a_million_tuples_is_dropped_without_overflow() {
        let mut pickle = b"\x80\x02K\x01".to_vec();
        pickle.extend(std::iter::repeat_n(b'\x85', 1_000_000));
        pickle.push(b'.');
        let pickle = unpickle(&mut pickle.as_slice()).expect("it is whole");
        assert_eq!(pickle.len(), 1_000_001);
    }
}
