//! The named leaves of a pickled tree, such as the tensors of a state dict or of a tree of modules.

use super::WeightsErrorKind;
use super::error::damaged;
use super::unpickle::{Id, Pickle};

/// Most branches inside each other.
const MAX_DEPTH: usize = 64;

/// What a value is to the tree.
pub(super) enum Node<'a> {
    /// Names and what they name.
    Branch(&'a [(Id, Id)]),
    /// The value of this place.
    Leaf(Id),
    /// Of no interest.
    Other,
}

/// The leaves below `root`, under their names joined by `separator`, in the order of the file.
///
/// # Errors
/// Where branches nest deeper than those of any model, or name each other without end.
pub(super) fn leaves<'a>(
    pickle: &'a Pickle,
    root: Id,
    separator: char,
    node: impl Fn(Id) -> Node<'a>,
) -> Result<Vec<(String, Id)>, WeightsErrorKind> {
    let mut walk = Walk {
        pickle,
        separator,
        node,
        left: pickle.len(),
        leaves: Vec::new(),
    };
    if let Node::Branch(items) = (walk.node)(root) {
        walk.branch(items, "", 0)?;
    }
    Ok(walk.leaves)
}

struct Walk<'a, F> {
    pickle: &'a Pickle,
    separator: char,
    node: F,
    /// Items that may still be visited: a tree has no more than the pickle has values.
    left: usize,
    leaves: Vec<(String, Id)>,
}

impl<'a, F: Fn(Id) -> Node<'a>> Walk<'a, F> {
    fn branch(&mut self, items: &[(Id, Id)], path: &str, depth: usize) -> Result<(), WeightsErrorKind> {
        if depth > MAX_DEPTH {
            return Err(damaged(format!("its dictionaries nest deeper than {MAX_DEPTH}")));
        }
        for &(key, value) in items {
            self.left = self
                .left
                .checked_sub(1)
                .ok_or_else(|| damaged("its dictionaries repeat themselves"))?;
            let Some(key) = self.pickle.text(key) else { continue };
            let name = if path.is_empty() {
                key.to_owned()
            } else {
                format!("{path}{}{key}", self.separator)
            };
            match (self.node)(value) {
                Node::Branch(items) => self.branch(items, &name, depth + 1)?,
                Node::Leaf(id) => self.leaves.push((name, id)),
                Node::Other => {}
            }
        }
        Ok(())
    }
}
