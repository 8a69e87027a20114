//! The initialisers of an ONNX graph.
//!
//! The file is one message of protocol buffers (`onnx/onnx.proto` of github.com/onnx/onnx), of which a handful of fields
//! matter here, so its wire format is read directly and the weights stay in the file until they are asked for.
//!
//! PyTorch's exporter keeps the name of a parameter only where a node uses it as it is. What it transposed or cut first
//! is called `onnx::MatMul_1966`, by a counter; such a tensor is named by the node that uses it instead, for example
//! `encoder.layer.0.mlp.fc1.MatMul`, because a node is called by the module it comes from.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use burn::tensor::{BoolStore, DType};

use super::WeightsErrorKind;
use super::error::damaged;
use super::source::Source;
use super::stored::{Stored, num_bytes};

/// What the exporter calls a tensor that has no name of its own.
const ANONYMOUS: &str = "onnx::";

/// The longest name that is read.
const MAX_NAME: u64 = 4096;

/// Most axes of a tensor.
const MAX_RANK: usize = 32;

/// Whether a file that starts with `start` is likely one: the version of the format, then another of the first fields.
pub(super) fn is_onnx(start: &[u8]) -> bool {
    matches!(
        start,
        [0x08, 1..=32, 0x12 | 0x1a | 0x22 | 0x28 | 0x32 | 0x3a | 0x42, ..]
    )
}

/// The initialisers of the graph in `path` of `len` bytes, their data unread.
pub(super) fn tensors(path: &Path, len: u64) -> Result<Vec<Stored>, WeightsErrorKind> {
    let mut wire = Wire {
        reader: BufReader::new(File::open(path)?),
        at: 0,
    };
    let mut graph = Graph::default();
    while wire.at < len {
        match wire.field(len)? {
            (7, Field::Message(end)) => wire.graph(end, &mut graph)?,
            (_, field) => wire.pass(field)?,
        }
    }
    let source = Source::new(File::open(path)?, len);
    let Graph { initialisers, users } = graph;
    let tensors = initialisers.into_iter().map(|initialiser| {
        let user = users.get(&initialiser.name).filter(|user| !user.is_empty());
        let name = match user {
            Some(user) if initialiser.name.starts_with(ANONYMOUS) => user.trim_start_matches('/').replace('/', "."),
            _ => initialiser.name.clone(),
        };
        initialiser.tensor(name, &source)
    });
    tensors.collect()
}

#[derive(Default)]
struct Graph {
    initialisers: Vec<Initialiser>,
    /// The name of the first node that uses a tensor, for tensors without a name of their own.
    users: HashMap<String, String>,
}

#[derive(Default)]
struct Initialiser {
    name: String,
    shape: Vec<usize>,
    data_type: u64,
    /// Where its bytes lie.
    data: Option<(u64, u64)>,
    /// Its data in a form that no exporter uses for weights.
    has_other_data: bool,
}

impl Initialiser {
    fn axis(&mut self, size: u64) -> Result<(), WeightsErrorKind> {
        if self.shape.len() == MAX_RANK {
            return Err(damaged(format!("a tensor of more than {MAX_RANK} axes")));
        }
        let size = usize::try_from(size).map_err(|_| damaged(format!("a tensor with an axis of {size}")))?;
        self.shape.push(size);
        Ok(())
    }

    fn tensor(self, name: String, source: &Source) -> Result<Stored, WeightsErrorKind> {
        let dtype = match self.data_type {
            1 => DType::F32,
            2 => DType::U8,
            3 => DType::I8,
            4 => DType::U16,
            5 => DType::I16,
            6 => DType::I32,
            7 => DType::I64,
            9 => DType::Bool(BoolStore::Native),
            10 => DType::F16,
            11 => DType::F64,
            12 => DType::U32,
            13 => DType::U64,
            16 => DType::BF16,
            _ => return Ok(Stored::opaque(name, "it holds neither floats nor integers")),
        };
        match self.data {
            _ if self.has_other_data && dtype.is_float() => Err(WeightsErrorKind::Unsupported(format!(
                "the data of `{name}` outside of the tensor or one number at a time"
            ))),
            _ if self.has_other_data => Ok(Stored::opaque(name, "its data are one number at a time")),
            Some((start, len)) => source.tensor(name, dtype, self.shape, start, len),
            None if num_bytes(dtype, &self.shape) == Some(0) => source.tensor(name, dtype, self.shape, 0, 0),
            None => Err(damaged(format!("tensor `{name}` has no data"))),
        }
    }
}

/// The value of a field.
#[derive(Clone, Copy)]
enum Field {
    Number(u64),
    /// Text, bytes, a message or packed numbers, by where they end.
    Message(u64),
    /// A number of as many bytes.
    Fixed(u64),
}

/// The wire format of protocol buffers.
struct Wire {
    reader: BufReader<File>,
    at: u64,
}

impl Wire {
    /// The next field's number and value, in a message that ends at `end`.
    fn field(&mut self, end: u64) -> Result<(u64, Field), WeightsErrorKind> {
        let key = self.number(end)?;
        let field = match key & 7 {
            0 => Field::Number(self.number(end)?),
            1 => Field::Fixed(8),
            2 => {
                let len = self.number(end)?;
                let stop = self.at.checked_add(len).filter(|stop| *stop <= end);
                let stop = stop.ok_or_else(|| damaged(format!("{len} bytes at {} of a message that ends", self.at)))?;
                Field::Message(stop)
            }
            5 => Field::Fixed(4),
            kind => return Err(damaged(format!("a field of the kind {kind} at {}", self.at))),
        };
        match field {
            Field::Fixed(len) if self.at + len > end => Err(damaged(format!("a number at {} is cut", self.at))),
            field => Ok((key >> 3, field)),
        }
    }

    fn number(&mut self, end: u64) -> Result<u64, WeightsErrorKind> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            if self.at >= end {
                return Err(damaged(format!("a number at {} is cut", self.at)));
            }
            let mut byte = [0];
            self.reader.read_exact(&mut byte)?;
            self.at += 1;
            number |= u64::from(byte[0] & 0x7f) << shift;
            if byte[0] < 0x80 {
                return Ok(number);
            }
        }
        Err(damaged(format!("a number at {} is too long", self.at)))
    }

    fn pass(&mut self, field: Field) -> Result<(), WeightsErrorKind> {
        let len = match field {
            Field::Number(_) => 0,
            Field::Message(end) => end - self.at,
            Field::Fixed(len) => len,
        };
        // Lengths are checked against the file's, which a seek takes.
        self.reader.seek_relative(len as i64)?;
        self.at += len;
        Ok(())
    }

    fn text(&mut self, end: u64) -> Result<String, WeightsErrorKind> {
        let len = end - self.at;
        if len > MAX_NAME {
            return Err(damaged(format!("a name of {len} bytes at {}", self.at)));
        }
        let mut bytes = vec![0; len as usize];
        self.reader.read_exact(&mut bytes)?;
        self.at = end;
        String::from_utf8(bytes).map_err(|_| damaged(format!("a name at {} that is no text", self.at)))
    }

    fn graph(&mut self, end: u64, graph: &mut Graph) -> Result<(), WeightsErrorKind> {
        while self.at < end {
            match self.field(end)? {
                (1, Field::Message(end)) => {
                    let (name, inputs) = self.node(end)?;
                    for input in inputs.into_iter().filter(|input| input.starts_with(ANONYMOUS)) {
                        graph.users.entry(input).or_insert_with(|| name.clone());
                    }
                }
                (5, Field::Message(end)) => graph.initialisers.push(self.initialiser(end)?),
                (15, _) => return Err(WeightsErrorKind::Unsupported("sparse tensors".to_owned())),
                (_, field) => self.pass(field)?,
            }
        }
        Ok(())
    }

    fn node(&mut self, end: u64) -> Result<(String, Vec<String>), WeightsErrorKind> {
        let (mut name, mut inputs) = (String::new(), Vec::new());
        while self.at < end {
            match self.field(end)? {
                (1, Field::Message(end)) => inputs.push(self.text(end)?),
                (3, Field::Message(end)) => name = self.text(end)?,
                (_, field) => self.pass(field)?,
            }
        }
        Ok((name, inputs))
    }

    fn initialiser(&mut self, end: u64) -> Result<Initialiser, WeightsErrorKind> {
        let mut initialiser = Initialiser::default();
        while self.at < end {
            match self.field(end)? {
                (1, Field::Number(size)) => initialiser.axis(size)?,
                (1, Field::Message(end)) => {
                    while self.at < end {
                        let size = self.number(end)?;
                        initialiser.axis(size)?;
                    }
                }
                (2, Field::Number(data_type)) => initialiser.data_type = data_type,
                (8, Field::Message(end)) => initialiser.name = self.text(end)?,
                // Packed float32 and float64 are the bytes of an array.
                (4 | 9 | 10, field @ Field::Message(end)) => {
                    if end > self.at {
                        initialiser.has_other_data |= initialiser.data.is_some();
                        initialiser.data = Some((self.at, end - self.at));
                    }
                    self.pass(field)?;
                }
                (4..=7 | 10 | 11 | 13, field) => {
                    initialiser.has_other_data = true;
                    self.pass(field)?;
                }
                (_, field) => self.pass(field)?,
            }
        }
        Ok(initialiser)
    }
}
