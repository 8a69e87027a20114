//! Checkpoints of one's own: a TOML file adds entries to the table of checkpoints, and nothing is compiled.
//!
//! A text becomes entries, or an error that names the entry and the key. Nothing is read from disk here.

mod origin;
mod preprocess;
mod pretraining;
mod reading;

use std::path::PathBuf;

use bob_core::{Checkpoint, Source, TomlError, UnknownName, find, parse_toml};
use serde::Deserialize;

use self::origin::Origin;
use self::preprocess::PreprocessFile;
use self::pretraining::PretrainingFile;
use self::reading::{Reading, RenameFile};
use crate::registry::{self, CheckpointEntry};

/// A checkpoint that a TOML file describes.
#[derive(Clone, Debug)]
pub struct OwnCheckpoint {
    /// What is known of it, and how its file is read.
    pub entry: CheckpointEntry,
    /// Where its weights are.
    pub weights: OwnWeights,
    /// The registered checkpoint whose names of keys and layouts of tensors its file has.
    pub like: Option<String>,
}

/// Where the weights of an [`OwnCheckpoint`] are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnWeights {
    /// In this file, relative to the folder of the TOML file.
    File(PathBuf),
    /// At its sources, and once fetched below this name in the cache.
    Fetched(String),
}

/// Why a text describes no checkpoints.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OwnCheckpointError {
    /// It is not TOML, misses a key, has an unknown one, or a value of the wrong kind.
    #[error("checkpoints `{origin}`, {error}")]
    Syntax {
        /// The file.
        origin: String,
        /// What is wrong.
        error: TomlError,
    },
    /// An entry cannot be used.
    #[error("checkpoints `{origin}`, `{name}`: {fault}")]
    Entry {
        /// The file.
        origin: String,
        /// The `name` of the entry.
        name: String,
        /// What is wrong.
        fault: Box<OwnCheckpointFault>,
    },
}

/// What is wrong with an entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OwnCheckpointFault {
    /// A value cannot be used.
    #[error("key `{key}` is {found}; expected {expected}")]
    Value {
        /// The key, with its table.
        key: &'static str,
        /// What was found.
        found: String,
        /// What is accepted.
        expected: &'static str,
    },
    /// A name that nothing has.
    #[error("key `{key}`: {error}")]
    Unknown {
        /// The key, with its table.
        key: &'static str,
        /// The name, and the one that it nearly is.
        error: UnknownName,
    },
    /// A key is not there, and nothing says what its value is.
    #[error("key `{key}` is missing; write it, or `like` with a registered checkpoint to take it from")]
    Missing {
        /// The key, with its table.
        key: &'static str,
    },
}

use OwnCheckpointFault as Fault;

impl Fault {
    fn value(key: &'static str, found: impl std::fmt::Debug, expected: &'static str) -> Self {
        let found = format!("{found:?}");
        Self::Value { key, found, expected }
    }
}

/// The file, as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OwnFile {
    checkpoint: Vec<EntryFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryFile {
    name: String,
    architecture: Option<String>,
    like: Option<String>,
    file: Option<PathBuf>,
    sources: Option<Vec<Source>>,
    sha256: Option<String>,
    num_classes: Option<i64>,
    license: Option<String>,
    paper: Option<String>,
    #[serde(default)]
    preprocess: PreprocessFile,
    #[serde(default)]
    pretraining: PretrainingFile,
    #[serde(default)]
    rename: Vec<RenameFile>,
    ignored: Option<Vec<String>>,
    allowed_globals: Option<Vec<String>>,
    top_level_key: Option<String>,
}

/// The checkpoints that `toml` describes; `origin` names the file in errors, and `taken` the names that are in use.
///
/// # Errors
/// Where it is not TOML, has a key that nothing reads or a value that cannot be used, or where a name is taken or unknown.
pub fn parse_own_checkpoints(
    toml: &str,
    origin: &str,
    taken: &[&str],
) -> Result<Vec<OwnCheckpoint>, OwnCheckpointError> {
    let file: OwnFile = parse_toml(toml).map_err(|error| OwnCheckpointError::Syntax {
        origin: origin.to_owned(),
        error,
    })?;
    let registered = registry::checkpoints();
    let mut own = Vec::<OwnCheckpoint>::new();
    for entry in file.checkpoint {
        let name = entry.name.clone();
        let is_taken = taken.contains(&name.as_str()) || own.iter().any(|other| other.entry.checkpoint.name == name);
        let judged = if is_taken {
            Err(Fault::value("name", &name, "a name that no other backbone has"))
        } else {
            entry.judge(&registered)
        };
        own.push(judged.map_err(|fault| OwnCheckpointError::Entry {
            origin: origin.to_owned(),
            name,
            fault: Box::new(fault),
        })?);
    }
    Ok(own)
}

/// Most classes of a classifier: forty times those of ImageNet-22k.
const MAX_CLASSES: i64 = 1_000_000;

impl EntryFile {
    fn judge(self, registered: &[CheckpointEntry]) -> Result<OwnCheckpoint, Fault> {
        check_name(&self.name)?;
        let like = match &self.like {
            None => None,
            Some(name) => Some(
                find("checkpoint", name, registered, |entry| &entry.checkpoint.name)
                    .map_err(|error| Fault::Unknown { key: "like", error })?,
            ),
        };
        let base = like.map(|like| &like.checkpoint);
        let architecture = given(
            "architecture",
            self.architecture,
            base.map(|base| base.architecture.clone()),
        )?;
        let architectures = registry::architectures();
        find("architecture", &architecture, &architectures, |one| one.name).map_err(|error| Fault::Unknown {
            key: "architecture",
            error,
        })?;
        let num_classes = match self.num_classes {
            None => given("num_classes", None, base.map(|base| base.num_classes))?,
            Some(found @ 0..=MAX_CLASSES) => found as usize,
            Some(found) => {
                let expected = "0 to 1000000, 0 for a file without a classifier";
                return Err(Fault::value("num_classes", found, expected));
            }
        };
        let read = match like {
            Some(like) => like.options.clone(),
            None => registry::load_options(&architecture),
        };
        let from = Origin::judge(&self.name, self.file, self.sources, self.sha256, base)?;
        Ok(OwnCheckpoint {
            entry: CheckpointEntry {
                checkpoint: Checkpoint {
                    family: registry::family_of(&architecture).unwrap_or_default().to_owned(),
                    architecture,
                    name: self.name,
                    sources: from.sources,
                    file: from.file,
                    sha256: from.sha256,
                    preprocess: self.preprocess.judge(base.map(|base| &base.preprocess))?,
                    pretraining: self.pretraining.judge(base.map(|base| &base.pretraining))?,
                    num_classes,
                    license: self
                        .license
                        .or(base.map(|base| base.license.clone()))
                        .unwrap_or_default(),
                    paper: self.paper.or(base.map(|base| base.paper.clone())).unwrap_or_default(),
                },
                options: Reading {
                    rename: self.rename,
                    ignored: self.ignored,
                    allowed_globals: self.allowed_globals,
                    top_level_key: self.top_level_key,
                }
                .judge(read)?,
            },
            weights: from.weights,
            like: self.like,
        })
    }
}

/// `value`, or else what the checkpoint that it is like has.
fn given<T>(key: &'static str, value: Option<T>, of_like: Option<T>) -> Result<T, Fault> {
    value.or(of_like).ok_or(Fault::Missing { key })
}

/// A name is also one of a folder, and a glob must find it.
fn check_name(name: &str) -> Result<(), Fault> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let has_tag = name
        .split_once('.')
        .is_some_and(|(architecture, tag)| !architecture.is_empty() && !tag.is_empty());
    if has_tag && name.bytes().all(is_plain) && name.len() <= 100 {
        return Ok(());
    }
    let expected = "`architecture.tag` of at most 100 letters, digits and `._-`, for example \"resnet50.mine\"";
    Err(Fault::value("name", name, expected))
}

/// The value that `text` names.
fn named<T: Copy>(
    key: &'static str,
    kind: &str,
    text: Option<String>,
    names: &[(&str, T)],
) -> Result<Option<T>, Fault> {
    match text {
        None => Ok(None),
        Some(text) => find(kind, &text, names, |(name, _)| name)
            .map(|(_, value)| Some(*value))
            .map_err(|error| Fault::Unknown { key, error }),
    }
}

#[cfg(test)]
mod tests {
    use bob_core::{CropMode, Preprocess};

    use super::*;

    /// Everything that an entry has to say which is like none.
    const WHOLE: &str = r#"
[[checkpoint]]
name = "resnet50.mine"
architecture = "resnet50"
file = "mine.pth"
num_classes = 0
preprocess = { input_size = 224, mean = [0.5, 0.5, 0.5], std = [0.2, 0.2, 0.2], interpolation = "bicubic", crop_pct = 0.9 }
pretraining = { style = "supervised", data = "mine", images = 123 }
"#;

    fn parse(toml: &str) -> Result<Vec<OwnCheckpoint>, OwnCheckpointError> {
        parse_own_checkpoints(toml, "mine.toml", &["resnet50.a1_in1k", "resnet50.random"])
    }

    #[test]
    fn an_entry_is_what_it_says_and_the_rest_of_what_it_is_like() {
        let own = parse(WHOLE).expect("sound").remove(0);
        let checkpoint = &own.entry.checkpoint;
        assert_eq!(own.weights, OwnWeights::File("mine.pth".into()));
        assert_eq!((checkpoint.family.as_str(), checkpoint.num_classes), ("resnet", 0));
        assert_eq!(checkpoint.preprocess.input_size, [224, 224]);
        assert_eq!(checkpoint.preprocess.crop_mode, CropMode::Center);
        assert_eq!(own.entry.options.ignored, ["*.num_batches_tracked"]);
        assert_eq!(checkpoint.pretraining.images, Some(123));
        let regnet = parse(&WHOLE.replace("resnet50", "regnetx_004"))
            .expect("sound")
            .remove(0);
        assert_eq!(
            (regnet.entry.options.remap)("s1.b1.conv1.bn.bias"),
            "s1.0.conv1.bn.bias"
        );
        let uncounted = parse(&WHOLE.replace(", images = 123", "")).expect("sound").remove(0);
        assert_eq!(uncounted.entry.checkpoint.pretraining.images, None);

        let like = r#"
            [[checkpoint]]
            name = "vit.mine"
            like = "vit_base_patch16_224_mocov3.in1k_300ep"
            file = "weights/mine.pth"
            sha256 = "00112233445566778899AABBCCDDEEFF00112233445566778899aabbccddeeff"
            preprocess = { crop_pct = 1, input_size = [256, 192] }
            rename = [{ prefix = "a.", to = "" }, { part = "mlp.lin", to = "mlp.fc" }]
            ignored = ["momentum.*"]
            top_level_key = ""
        "#;
        let own = parse(like).expect("sound").remove(0);
        let (checkpoint, options) = (&own.entry.checkpoint, &own.entry.options);
        let registered = registry::checkpoints();
        let like = registered
            .iter()
            .find(|entry| Some(&entry.checkpoint.name) == own.like.as_ref());
        let like = &like.expect("registered").checkpoint;
        assert_eq!(checkpoint.architecture, "vit_base_patch16_224_mocov3");
        assert_eq!(
            (&checkpoint.pretraining, &checkpoint.paper),
            (&like.pretraining, &like.paper)
        );
        let expected = Preprocess {
            crop_pct: 1.0,
            input_size: [256, 192],
            ..like.preprocess.clone()
        };
        assert_eq!(checkpoint.preprocess, expected);
        assert!(checkpoint.sha256.as_ref().expect("given").contains("aabbccddeeff0011"));
        assert!(checkpoint.sources.is_empty());
        assert_eq!(options.renames.len(), 2);
        assert_eq!((options.remap)("module.base_encoder.cls_token"), "cls_token");
        assert_eq!(
            (options.ignored.as_slice(), &options.top_level_key),
            (&["momentum.*".to_owned()][..], &None)
        );

        // The same weights in another use, and weights from elsewhere, which nothing else in the cache may be taken for.
        let fetched = |toml: &str| parse(toml).expect("sound").remove(0);
        let same = fetched("[[checkpoint]]\nname = \"r.mine\"\nlike = \"resnet50.a1_in1k\"");
        assert_eq!(same.weights, OwnWeights::Fetched("resnet50.a1_in1k".to_owned()));
        let hub = |revision: &str| {
            let source =
                format!("{{ kind = \"hub\", repo = \"me/it\", revision = \"{revision}\", path = \"a/m.pth\" }}");
            fetched(&format!(
                "[[checkpoint]]\nname = \"r.mine\"\nlike = \"resnet50.a1_in1k\"\nsources = [{source}]"
            ))
        };
        assert_eq!(hub("main").entry.checkpoint.file, "m.pth");
        assert_ne!(hub("main").weights, hub("v2").weights);
    }

    #[test]
    fn the_documented_example_is_sound() {
        let guide = include_str!("../../../../docs/adding-a-backbone.md");
        let (_, rest) = guide.split_once("```toml\n").expect("it has an example");
        let (example, _) = rest.split_once("```").expect("which ends");
        let own = parse_own_checkpoints(example, "mine.toml", &[]).unwrap_or_else(|error| panic!("{error}"));
        let names: Vec<&str> = own.iter().map(|own| own.entry.checkpoint.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "resnet50.mine",
                "vit_small_patch16_224.dino_mine",
                "resnet50.a1_in1k_320"
            ]
        );
    }

    #[test]
    fn a_mistake_is_named_with_its_entry_and_key() {
        let check = |from: &str, to: &str, expected: &str| {
            assert!(WHOLE.contains(from), "{from}");
            let error = parse(&WHOLE.replace(from, to)).expect_err(expected).to_string();
            assert!(error.starts_with("checkpoints `mine.toml`, "), "{error}");
            assert!(error.contains(expected), "expected\n  {expected}\nin\n  {error}");
        };
        let add = |line: &str, expected: &str| check("num_classes = 0", &format!("num_classes = 0\n{line}"), expected);
        // What is no TOML, no key, or of another kind.
        check(
            "[[checkpoint]]",
            "[[checkpoints]]",
            "line 2: unknown field `checkpoints`, expected `checkpoint`",
        );
        check("[[checkpoint]]", "[[checkpoint]", "line 2: ");
        check(
            "architecture =",
            "architektur =",
            "line 4: unknown field `architektur`, expected one of `name`",
        );
        check("name = \"resnet50.mine\"", "", "line 2: missing field `name`");
        check(
            "num_classes = 0",
            "num_classes = \"none\"",
            "line 6: invalid type: string \"none\", expected i64",
        );
        check(
            "input_size = 224",
            "input_size = \"224\"",
            "expected a side in pixels, or [height, width]",
        );
        check(
            "mean = [0.5, 0.5, 0.5]",
            "mean = [0.5, 0.5]",
            "line 7: invalid length 2",
        );
        // Names.
        check(
            "resnet50.mine",
            "mine",
            "`mine`: key `name` is \"mine\"; expected `architecture.tag`",
        );
        check("resnet50.mine", "../up.mine", "key `name` is \"../up.mine\"");
        check(
            "resnet50.mine",
            "resnet50.a1_in1k",
            "`resnet50.a1_in1k`: key `name` is \"resnet50.a1_in1k\"; expected a name that no other backbone has",
        );
        check(
            "resnet50.mine",
            "resnet50.random",
            "expected a name that no other backbone has",
        );
        check(
            "architecture = \"resnet50\"",
            "architecture = \"resnet5O\"",
            "`resnet50.mine`: key `architecture`: unknown architecture `resnet5O`; did you mean `resnet50`?",
        );
        add(
            "like = \"resnet50.dino\"",
            "key `like`: unknown checkpoint `resnet50.dino`; did you mean `resnet50.dino_in1k`?",
        );
        check(
            "\"bicubic\"",
            "\"bicubik\"",
            "key `preprocess.interpolation`: unknown interpolation `bicubik`; did you",
        );
        check(
            "crop_pct",
            "crop_mode = \"centre\", crop_pct",
            "unknown crop mode `centre`; did you mean `center`?",
        );
        check(
            "\"supervised\"",
            "\"superviced\"",
            "unknown style `superviced`; did you mean `supervised`?",
        );
        check(
            "\"supervised\"",
            "\"random\"",
            "unknown style `random`; known: supervised, self-supervised",
        );
        // Numbers.
        check(
            "num_classes = 0",
            "num_classes = -1",
            "key `num_classes` is -1; expected 0 to 1000000",
        );
        check(
            "num_classes = 0",
            "num_classes = 99999999",
            "key `num_classes` is 99999999; expected 0 to",
        );
        check(
            "input_size = 224",
            "input_size = 0",
            "key `preprocess.input_size` is [0, 0]; expected a side of 1 to",
        );
        check("input_size = 224", "input_size = [224, -8]", "is [224, -8]");
        check(
            "[0.2, 0.2, 0.2]",
            "[0.2, 0.0, 0.2]",
            "key `preprocess.std` is [0.2, 0.0, 0.2]; expected three numbers in [0.001, 1]",
        );
        check(
            "[0.2, 0.2, 0.2]",
            "[58.4, 57.1, 57.4]",
            "of images whose values are in [0, 1]",
        );
        check(
            "[0.5, 0.5, 0.5]",
            "[nan, 0.5, 0.5]",
            "key `preprocess.mean` is [NaN, 0.5, 0.5]",
        );
        check(
            "[0.5, 0.5, 0.5]",
            "[inf, 0.5, 0.5]",
            "key `preprocess.mean` is [inf, 0.5, 0.5]",
        );
        check(
            "crop_pct = 0.9",
            "crop_pct = 0.0",
            "key `preprocess.crop_pct` is 0.0; expected a number in [0.05, 1]",
        );
        check("crop_pct = 0.9", "crop_pct = 1.01", "key `preprocess.crop_pct` is 1.01");
        check(
            "images = 123",
            "images = 0",
            "key `pretraining.images` is 0; expected at least 1",
        );
        // Nothing stands in for a key that is not there.
        check(
            ", crop_pct = 0.9",
            "",
            "`resnet50.mine`: key `preprocess.crop_pct` is missing; write it, or `like`",
        );
        check("num_classes = 0", "", "key `num_classes` is missing");
        check("file = \"mine.pth\"", "", "key `file` is missing");
        check("architecture = \"resnet50\"", "", "key `architecture` is missing");
        // Where it is, and how it is read.
        add(
            "sha256 = \"abc\"",
            "key `sha256` is \"abc\"; expected 64 hexadecimal digits",
        );
        add(
            "sources = []",
            "key `sources` is []; expected no `sources` beside a `file`",
        );
        check(
            "file = \"mine.pth\"",
            "sources = []",
            "key `sources` is []; expected at least one",
        );
        check(
            "file = \"mine.pth\"",
            "sources = [{ kind = \"hub\", repo = \"a/b\", revision = \"main\", path = \"folder/\" }]",
            "each with the `path` of a file",
        );
        check(
            "file = \"mine.pth\"",
            "sources = [{ kind = \"hugs\" }]",
            "line 5: unknown variant `hugs`",
        );
        add(
            "rename = [{ to = \"\" }]",
            "key `rename` is RenameFile { prefix: None, part: None, to: \"\" }; expected `{ prefix",
        );
        add("rename = [{ part = \"\", to = \"a\" }]", "of two different texts");
        add(
            "ignored = [\"a*b\"]",
            "key `ignored` is \"a*b\"; expected a key of the file, or a key with one `*`",
        );
        let error = parse(&WHOLE.repeat(2)).expect_err("twice").to_string();
        assert!(error.contains("`resnet50.mine`: key `name`"), "{error}");
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { cases: 512, failure_persistence: None, ..Default::default() })]

        #[test]
        fn any_text_is_entries_or_an_error(text in "\\PC{0,200}") {
            let _ = parse(&text);
        }

        /// Near enough to an entry that the values themselves are judged.
        #[test]
        fn any_value_is_an_entry_or_an_error(
            line in 2..8usize,
            value in "-?[0-9]{1,20}|-?[0-9]{1,3}\\.[0-9]{1,3}(e[0-9]{1,3})?|nan|inf|\"[a-z0-9._*-]{0,12}\"|\\[\\]|\\{ \\}|\\[-?[0-9]{1,12}, 7\\]",
        ) {
            let lines = WHOLE.lines().enumerate().map(|(at, text)| match text.split_once(" = ") {
                Some((key, _)) if at == line => format!("{key} = {value}\n"),
                _ => format!("{text}\n"),
            });
            let _ = parse(&lines.collect::<String>());
        }

        #[test]
        fn any_preprocessing_is_one_that_can_be_used_or_an_error(
            values in proptest::array::uniform6(proptest::num::f64::ANY),
            crop_pct in proptest::num::f64::ANY,
            side in proptest::num::i64::ANY,
        ) {
            let [a, b, c, d, e, f] = values.map(|value| format!("{value:?}").to_lowercase());
            let toml = format!(
                "[[checkpoint]]\nname = \"r.mine\"\nlike = \"resnet50.a1_in1k\"\n\
                 preprocess = {{ input_size = {side}, mean = [{a}, {b}, {c}], std = [{d}, {e}, {f}], crop_pct = {} }}",
                format!("{crop_pct:?}").to_lowercase()
            );
            if let Ok(own) = parse(&toml) {
                let preprocess = &own[0].entry.checkpoint.preprocess;
                proptest::prop_assert!(preprocess.std.iter().all(|&std| std > 0.0 && std.is_finite()));
                proptest::prop_assert!(preprocess.mean.iter().all(|mean| mean.is_finite()));
                proptest::prop_assert!(preprocess.crop_pct > 0.0 && preprocess.input_size[0] > 0);
            }
        }
    }
}
