//! Which Python objects a pickle names, without building any.
//!
//! A pickle is a program for a stack machine (`Lib/pickletools.py` of CPython). All it can reach of Python it
//! names with one of a handful of opcodes. burn's reader runs nothing and drops what it does not know; a file that
//! names anything beyond tensors is refused here, because it is not the state dict it claims to be.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, BufRead};
use std::rc::Rc;

use burn::store::pytorch_reader::OpCode;

use super::WeightsErrorKind;
use super::error::damaged;
use super::opcodes::{Opcodes, invalid};

/// What `torch.save` names for a state dict: part of what `torch.load(weights_only=True)` allows
/// (`torch/_weights_only_unpickler.py`).
const ALLOWED: &[&str] = &[
    "collections.OrderedDict",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_tensor_v3",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
    "torch.nn.parameter.Parameter",
    "torch.Size",
    "torch.device",
    "torch.storage.TypedStorage",
    "torch.storage.UntypedStorage",
    "torch.UntypedStorage",
    "torch.BFloat16Storage",
    "torch.BoolStorage",
    "torch.ByteStorage",
    "torch.CharStorage",
    "torch.DoubleStorage",
    "torch.FloatStorage",
    "torch.HalfStorage",
    "torch.IntStorage",
    "torch.LongStorage",
    "torch.ShortStorage",
    "torch.bfloat16",
    "torch.bool",
    "torch.float16",
    "torch.float32",
    "torch.float64",
    "torch.int8",
    "torch.int16",
    "torch.int32",
    "torch.int64",
    "torch.uint8",
    "torch.uint16",
    "torch.uint32",
    "torch.uint64",
    "builtins.set",
    "__builtin__.set",
    "_codecs.encode",
];

/// A name that could not be read off the stack; no list allows it.
const COMPUTED: &str = "a name that is computed";

/// Longest string that can be part of a name; longer ones are passed over.
const MAX_NAME: u64 = 4096;

/// Refuse a pickle with names that neither [`ALLOWED`] nor `allowed` has and `is_needed` does not know; `pickle` is left
/// behind its last opcode.
///
/// # Errors
/// Where it has such names, ends early or has an opcode that no protocol knows.
pub(super) fn check(
    pickle: &mut dyn BufRead,
    allowed: &[String],
    is_needed: impl Fn(&str) -> bool,
) -> Result<(), WeightsErrorKind> {
    let mut unknown = unknown_globals(pickle, allowed).map_err(in_pickle)?;
    unknown.retain(|name| !is_needed(name));
    if unknown.is_empty() {
        Ok(())
    } else {
        Err(WeightsErrorKind::UnknownGlobals(unknown.into_iter().collect()))
    }
}

/// What is wrong with a file whose pickle cannot be read.
pub(super) fn in_pickle(error: io::Error) -> WeightsErrorKind {
    damaged(format!("its pickle: {error}"))
}

/// The names in one pickle that neither [`ALLOWED`] nor `allowed` has, in alphabetical order; `pickle` is left
/// behind its last opcode.
///
/// # Errors
/// Where the pickle ends early or has an opcode that no protocol knows.
fn unknown_globals(pickle: &mut dyn BufRead, allowed: &[String]) -> io::Result<BTreeSet<String>> {
    let mut scan = Scan {
        bytes: Opcodes::new(pickle),
        memo: HashMap::new(),
        strings: [None, None],
        names: BTreeSet::new(),
    };
    while scan.step()? {}
    scan.names
        .retain(|name| !ALLOWED.contains(&name.as_str()) && !allowed.contains(name));
    Ok(scan.names)
}

struct Scan<'a> {
    bytes: Opcodes<'a>,
    /// Strings that the pickle keeps for later, by index; `None` for other values.
    memo: HashMap<u32, Option<Rc<str>>>,
    /// The two uppermost values of the stack as far as they are known to be strings, the uppermost last.
    strings: [Option<Rc<str>>; 2],
    names: BTreeSet<String>,
}

impl Scan<'_> {
    /// Pass over one opcode; false at the end of the pickle.
    fn step(&mut self) -> io::Result<bool> {
        let byte = self.bytes.array::<1>()?[0];
        match OpCode::try_from(byte).map_err(|byte| invalid(format!("opcode 0x{byte:02x} in its pickle")))? {
            OpCode::Stop => return Ok(false),

            // What names an object.
            OpCode::Global => {
                let module = self.bytes.line(MAX_NAME)?;
                let name = self.bytes.line(MAX_NAME)?;
                self.names.insert(format!("{module}.{name}"));
                self.forget();
            }
            OpCode::StackGlobal => {
                let name = match &self.strings {
                    [Some(module), Some(name)] => format!("{module}.{name}"),
                    _ => COMPUTED.to_owned(),
                };
                self.names.insert(name);
                self.forget();
            }
            OpCode::Ext1 | OpCode::Ext2 | OpCode::Ext4 => {
                return Err(invalid("an entry of the extension registry in its pickle"));
            }

            // Strings, and the memo that can bring one back.
            OpCode::ShortBinUnicode | OpCode::ShortBinString => {
                let len = self.bytes.array::<1>()?[0];
                self.string(len.into())?;
            }
            OpCode::BinUnicode | OpCode::BinString => {
                let len = u32::from_le_bytes(self.bytes.array()?);
                self.string(len.into())?;
            }
            OpCode::BinUnicode8 => {
                let len = u64::from_le_bytes(self.bytes.array()?);
                self.string(len)?;
            }
            OpCode::Unicode => {
                let line = self.bytes.line(MAX_NAME)?;
                self.push(Some(line.into()));
            }
            OpCode::Memoize => self.keep(self.memo.len() as u32),
            OpCode::BinPut => {
                let index = self.bytes.array::<1>()?[0];
                self.keep(index.into());
            }
            OpCode::LongBinPut => {
                let index = u32::from_le_bytes(self.bytes.array()?);
                self.keep(index);
            }
            OpCode::Put => {
                let index = self.index()?;
                self.keep(index);
            }
            OpCode::BinGet => {
                let index = self.bytes.array::<1>()?[0];
                self.recall(index.into());
            }
            OpCode::LongBinGet => {
                let index = u32::from_le_bytes(self.bytes.array()?);
                self.recall(index);
            }
            OpCode::Get => {
                let index = self.index()?;
                self.recall(index);
            }

            // Neither is a value: what is on the stack stays there.
            OpCode::Proto => self.bytes.skip(1)?,
            OpCode::Frame => self.bytes.skip(8)?,

            // The rest, by the length of its argument.
            OpCode::Int | OpCode::Long | OpCode::Float | OpCode::PersId => {
                self.bytes.line(MAX_NAME)?;
                self.forget();
            }
            OpCode::BinInt1 => self.pass(1)?,
            OpCode::BinInt2 => self.pass(2)?,
            OpCode::BinInt => self.pass(4)?,
            OpCode::BinFloat => self.pass(8)?,
            OpCode::Long1 | OpCode::ShortBinBytes => {
                let len = self.bytes.array::<1>()?[0];
                self.pass(len.into())?;
            }
            OpCode::Long4 | OpCode::BinBytes => {
                let len = u32::from_le_bytes(self.bytes.array()?);
                self.pass(len.into())?;
            }
            OpCode::BinBytes8 | OpCode::ByteArray8 => {
                let len = u64::from_le_bytes(self.bytes.array()?);
                self.pass(len)?;
            }
            _ => self.forget(),
        }
        Ok(true)
    }

    fn push(&mut self, string: Option<Rc<str>>) {
        self.strings.rotate_left(1);
        self.strings[1] = string;
    }

    fn keep(&mut self, index: u32) {
        self.memo.insert(index, self.strings[1].clone());
    }

    fn recall(&mut self, index: u32) {
        let string = self.memo.get(&index).cloned().flatten();
        self.push(string);
    }

    /// After any other opcode nothing is known of the uppermost values.
    fn forget(&mut self) {
        self.strings = [None, None];
    }

    fn pass(&mut self, len: u64) -> io::Result<()> {
        self.forget();
        self.bytes.skip(len)
    }

    fn string(&mut self, len: u64) -> io::Result<()> {
        let string = self.bytes.text(len, MAX_NAME)?;
        self.push(string.map(Rc::from));
        Ok(())
    }

    fn index(&mut self) -> io::Result<u32> {
        self.bytes
            .line(MAX_NAME)?
            .parse()
            .map_err(|_| invalid("an index in its pickle that is no number"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_however_they_are_spelt() {
        let check = |pickle: &[u8], expected: &str| {
            let mut rest = pickle;
            let found = match unknown_globals(&mut rest, &["mine.Thing".to_owned()]) {
                Ok(names) => names.into_iter().collect::<Vec<_>>().join(" "),
                Err(error) => error.to_string(),
            };
            assert_eq!(found, expected, "{pickle:?}");
        };
        check(b"\x80\x02ccollections\nOrderedDict\n)R.", "");
        check(b"\x80\x02cmine\nThing\n)R.", "");
        check(b"cposix\nsystem\n(S.", "opcode 0x53 in its pickle");
        check(b"\x80\x02cposix\nsystem\nq\x00X\x01\x00\x00\x00x\x85R.", "posix.system");
        // Discarded at once: still named.
        check(b"\x80\x02cposix\nsystem\n0}.", "posix.system");
        check(b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94\x93.", "posix.system");
        // From the memo.
        check(
            b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x940\x30h\x00h\x01\x93.",
            "posix.system",
        );
        // Hidden below harmless names that are popped again.
        check(
            b"\x80\x04\x8c\x05posix\x8c\x06system\x8c\x0bcollections\x8c\x0bOrderedDict00\x93.",
            COMPUTED,
        );
        check(b"\x80\x04K\x01K\x02\x93.", COMPUTED);
        check(b"\x80\x02\x82\x01.", "an entry of the extension registry in its pickle");
        check(b"\x80\x02X\xff\xff\xff\xffx", "unexpected end of file");
        check(b"\x80\x02X\x08\x00\x00\x00x", "unexpected end of file");
        check(b"\x80\x02}", "failed to fill whole buffer");
        check(b"cnever ends", "an endless line in its pickle");
    }
}
