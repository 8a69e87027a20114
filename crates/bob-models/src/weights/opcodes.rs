//! The bytes of a pickle, taken as its opcodes want them.

use std::io::{self, BufRead, Read};

/// A pickle and the place in it.
pub(super) struct Opcodes<'a> {
    pickle: &'a mut dyn BufRead,
    /// Bytes that were taken.
    pub(super) at: u64,
}

impl<'a> Opcodes<'a> {
    pub(super) fn new(pickle: &'a mut dyn BufRead) -> Self {
        Self { pickle, at: 0 }
    }

    pub(super) fn fill(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.pickle.read_exact(bytes)?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    pub(super) fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn skip(&mut self, len: u64) -> io::Result<()> {
        let skipped = io::copy(&mut (&mut *self.pickle).take(len), &mut io::sink())?;
        self.at += skipped;
        if skipped == len {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }

    /// The `len` bytes of a text; nothing where they are more than `longest`, or no text.
    pub(super) fn text(&mut self, len: u64, longest: u64) -> io::Result<Option<String>> {
        if len > longest {
            self.skip(len)?;
            return Ok(None);
        }
        let mut text = Vec::new();
        (&mut *self.pickle).take(len).read_to_end(&mut text)?;
        self.at += text.len() as u64;
        if text.len() as u64 != len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(String::from_utf8(text).ok())
    }

    /// The text to the end of the line, of at most `longest` bytes.
    pub(super) fn line(&mut self, longest: u64) -> io::Result<String> {
        let mut line = Vec::new();
        (&mut *self.pickle).take(longest).read_until(b'\n', &mut line)?;
        self.at += line.len() as u64;
        if line.pop() != Some(b'\n') {
            return Err(invalid("an endless line in its pickle"));
        }
        String::from_utf8(line).map_err(|_| invalid("a line in its pickle that is no text"))
    }
}

/// An error that says what is wrong with a pickle.
pub(super) fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}
