//! A table of scores, backbone by setting: from records, or from anybody's CSV.

use std::collections::HashSet;

use serde::Serialize;

use crate::{BootstrapError, Correlation, Direction, RankedBackbone, RankingOptions, rank, spearman};

/// One column of a table: what the backbones were compared on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// Its name, unique in the table.
    pub name: String,
    /// The task it belongs to; settings of one task are averaged first, see [`crate::Overall`].
    pub task: String,
    /// Which way its scores are better.
    pub direction: Direction,
}

/// Scores of backbones in settings, some of them missing; every backbone and every setting has at least one.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoreTable {
    backbones: Vec<String>,
    settings: Vec<Setting>,
    /// Per setting, one score per backbone.
    scores: Vec<Vec<Option<f64>>>,
}

/// Why scores are no table.
#[derive(Debug, thiserror::Error)]
pub enum ScoreTableError {
    /// The text is no CSV: unequal rows, bytes that are no UTF-8.
    #[error("not a CSV table: {0}")]
    Csv(#[from] csv::Error),
    /// The header lacks the column of names.
    #[error("no column `backbone` in line 1; found {found}")]
    NoBackboneColumn {
        /// The columns that are there.
        found: String,
    },
    /// A cell is no score.
    #[error("line {line}, column `{column}`: `{found}` is not a finite number; leave the cell empty if it is missing")]
    NotANumber {
        /// Line in the file, from 1.
        line: u64,
        /// Name of the column as written.
        column: String,
        /// What the cell holds.
        found: String,
    },
    /// A backbone has no name.
    #[error("line {line}, column `backbone`: empty, expected the name of a backbone")]
    NoName {
        /// Line in the file, from 1.
        line: u64,
    },
    /// A column has no name.
    #[error("line 1, column {position}: empty, expected the name of a setting")]
    NoSettingName {
        /// Position of the column, from 1.
        position: usize,
    },
    /// A backbone has two rows.
    #[error("backbone `{0}` occurs twice; expected one row each")]
    DuplicateBackbone(String),
    /// A setting has two columns.
    #[error("setting `{0}` occurs twice; expected one column each")]
    DuplicateSetting(String),
    /// Nothing to rank.
    #[error("the table has no {0}")]
    Empty(&'static str),
    /// A row of empty cells.
    #[error("backbone `{0}` has no score; delete its row or fill a cell")]
    BackboneWithoutScore(String),
    /// A column of empty cells.
    #[error("setting `{0}` has no score; delete its column or fill a cell")]
    SettingWithoutScore(String),
    /// Scores that do not fit the names, or are not finite.
    #[error("setting `{setting}` has {found}; expected {expected} finite scores or gaps")]
    Shape {
        /// The setting.
        setting: String,
        /// What it has.
        found: String,
        /// Number of backbones.
        expected: usize,
    },
}

impl ScoreTable {
    /// A table from its parts; `scores[setting][backbone]`, `None` where a score is missing.
    ///
    /// # Errors
    /// Names that occur twice, scores that are not finite or too few, a backbone or a setting without any score, or
    /// no backbone or setting at all.
    pub fn new(
        backbones: Vec<String>,
        settings: Vec<Setting>,
        scores: Vec<Vec<Option<f64>>>,
    ) -> Result<Self, ScoreTableError> {
        if settings.is_empty() || scores.len() != settings.len() {
            return Err(ScoreTableError::Empty("column of scores"));
        }
        if backbones.is_empty() {
            return Err(ScoreTableError::Empty("row with a backbone"));
        }
        if let Some(name) = duplicate(backbones.iter()) {
            return Err(ScoreTableError::DuplicateBackbone(name.clone()));
        }
        if let Some(name) = duplicate(settings.iter().map(|setting| &setting.name)) {
            return Err(ScoreTableError::DuplicateSetting(name.clone()));
        }
        for (setting, column) in settings.iter().zip(&scores) {
            let shape = |found| ScoreTableError::Shape {
                setting: setting.name.clone(),
                found,
                expected: backbones.len(),
            };
            if column.len() != backbones.len() {
                return Err(shape(format!("{} scores", column.len())));
            }
            if let Some(score) = column.iter().flatten().find(|score| !score.is_finite()) {
                return Err(shape(format!("the score {score}")));
            }
            if column.iter().all(Option::is_none) {
                return Err(ScoreTableError::SettingWithoutScore(setting.name.clone()));
            }
        }
        for (index, name) in backbones.iter().enumerate() {
            if scores.iter().all(|column| column[index].is_none()) {
                return Err(ScoreTableError::BackboneWithoutScore(name.clone()));
            }
        }
        Ok(Self {
            backbones,
            settings,
            scores,
        })
    }

    /// Reads a CSV with a `backbone` column and one numeric column per setting, `lower:` before a column's name where
    /// lower is better; empty cells are missing. Spaces around names and numbers are ignored. All settings belong to
    /// one task, named `scores`.
    ///
    /// # Errors
    /// Text that is no such table, with the line and the column.
    pub fn from_csv(text: &[u8]) -> Result<Self, ScoreTableError> {
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text);
        let header = reader.headers()?.clone();
        let Some(names) = header.iter().position(|column| column == "backbone") else {
            let found = header
                .iter()
                .map(|column| format!("`{column}`"))
                .collect::<Vec<_>>()
                .join(", ");
            return Err(ScoreTableError::NoBackboneColumn { found });
        };
        let columns: Vec<usize> = (0..header.len()).filter(|&column| column != names).collect();
        let mut settings = Vec::new();
        for &column in &columns {
            let (name, direction) = match header[column].strip_prefix("lower:") {
                Some(name) => (name.trim(), Direction::LowerIsBetter),
                None => (&header[column], Direction::HigherIsBetter),
            };
            if name.is_empty() {
                return Err(ScoreTableError::NoSettingName { position: column + 1 });
            }
            settings.push(Setting {
                name: name.to_owned(),
                task: "scores".to_owned(),
                direction,
            });
        }
        let mut backbones = Vec::new();
        let mut scores = vec![Vec::new(); columns.len()];
        for row in reader.records() {
            let row = row?;
            let line = line_of(text, &row);
            if row[names].is_empty() {
                return Err(ScoreTableError::NoName { line });
            }
            backbones.push(row[names].to_owned());
            for (&column, scores) in columns.iter().zip(&mut scores) {
                let cell = &row[column];
                let score = cell.parse::<f64>().ok().filter(|score| score.is_finite());
                if score.is_none() && !cell.is_empty() {
                    let (column, found) = (header[column].to_owned(), cell.to_owned());
                    return Err(ScoreTableError::NotANumber { line, column, found });
                }
                scores.push(score);
            }
        }
        Self::new(backbones, settings, scores)
    }

    /// The backbones.
    pub fn backbones(&self) -> &[String] {
        &self.backbones
    }

    /// The settings.
    pub fn settings(&self) -> &[Setting] {
        &self.settings
    }

    /// The scores of a setting, one per backbone.
    ///
    /// # Panics
    /// When there is no such setting.
    pub fn scores(&self, setting: usize) -> &[Option<f64>] {
        &self.scores[setting]
    }
}

/// Line of a row, from 1; the reader's own count does not see blank lines before the row.
fn line_of(text: &[u8], row: &csv::StringRecord) -> u64 {
    let start = row.position().map_or(0, |position| position.byte() as usize);
    let blank = text[start..]
        .iter()
        .take_while(|byte| matches!(byte, b'\n' | b'\r'))
        .count();
    1 + text[..start + blank].iter().filter(|&&byte| byte == b'\n').count() as u64
}

fn duplicate<'a>(names: impl Iterator<Item = &'a String>) -> Option<&'a String> {
    let mut seen = HashSet::new();
    names.into_iter().find(|name| !seen.insert(*name))
}

/// What `cargo xtask rank` prints: the ranking of a table and how its settings agree.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RankReport {
    /// The backbones, best first.
    pub backbones: Vec<RankedBackbone>,
    /// Spearman's correlation of every pair of settings, over the backbones that both have.
    pub correlations: Vec<SettingCorrelation>,
}

/// How two settings agree.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SettingCorrelation {
    /// One setting.
    pub a: String,
    /// The other.
    pub b: String,
    /// Spearman's coefficient, positive where both prefer the same backbones; absent with fewer than three backbones in
    /// both or where a setting tells nobody apart.
    pub spearman: Option<f64>,
    /// Two-sided p-value.
    pub p_value: Option<f64>,
    /// Number of backbones that both settings have.
    pub n: usize,
}

impl RankReport {
    /// Ranks a table.
    ///
    /// # Errors
    /// Bad bootstrap settings.
    pub fn new(table: &ScoreTable, options: RankingOptions) -> Result<Self, BootstrapError> {
        let backbones = rank(table, options)?.backbones;
        let column = |setting: usize| -> Vec<Option<f64>> {
            // From the ranking: there, better is always more.
            backbones.iter().map(|ranked| ranked.z[setting].1).collect()
        };
        let mut correlations = Vec::new();
        for first in 0..table.settings.len() {
            for second in first + 1..table.settings.len() {
                let (a, b) = (column(first), column(second));
                let correlation = spearman(&a, &b);
                correlations.push(SettingCorrelation {
                    a: table.settings[first].name.clone(),
                    b: table.settings[second].name.clone(),
                    spearman: correlation.map(|Correlation { coefficient, .. }| coefficient),
                    p_value: correlation.map(|Correlation { p_value, .. }| p_value),
                    n: a.iter().zip(&b).filter(|(a, b)| a.is_some() && b.is_some()).count(),
                });
            }
        }
        Ok(Self {
            backbones,
            correlations,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    #[test]
    fn directions_gaps_and_spaces() {
        let table = ScoreTable::from_csv(b"acc, backbone ,lower: ms\n0.5,a,3\n,b, 2e0\n").unwrap();
        assert_eq!(table.backbones(), ["a", "b"]);
        let settings: Vec<_> = table
            .settings()
            .iter()
            .map(|s| (s.name.as_str(), s.direction))
            .collect();
        assert_eq!(
            settings,
            [("acc", Direction::HigherIsBetter), ("ms", Direction::LowerIsBetter)]
        );
        assert_eq!(table.scores(0), [Some(0.5), None]);
        assert_eq!(table.scores(1), [Some(3.0), Some(2.0)]);
        let windows = ScoreTable::from_csv(b"\xEF\xBB\xBFbackbone,x\r\n\"a,b\",1\r\n").unwrap();
        assert_eq!(windows.backbones(), ["a,b"]);
    }

    #[test]
    fn bad_tables_say_where() {
        fn check(text: &[u8], expected: Expect) {
            expected.assert_eq(&ScoreTable::from_csv(text).unwrap_err().to_string());
        }
        check(b"", expect!["no column `backbone` in line 1; found "]);
        check(
            b"backbone;x\na;1\n",
            expect!["no column `backbone` in line 1; found `backbone;x`"],
        );
        check(b"backbone\na\n", expect!["the table has no column of scores"]);
        check(b"backbone,x\n", expect!["the table has no row with a backbone"]);
        check(
            b"backbone,x\na,1\n\nb,good\n",
            expect!["line 4, column `x`: `good` is not a finite number; leave the cell empty if it is missing"],
        );
        check(
            b"backbone,lower:x\na,NaN\n",
            expect!["line 2, column `lower:x`: `NaN` is not a finite number; leave the cell empty if it is missing"],
        );
        check(
            b"backbone,x\na,1e999\n",
            expect!["line 2, column `x`: `1e999` is not a finite number; leave the cell empty if it is missing"],
        );
        check(
            b"backbone,x\na,1,2\n",
            expect![
                "not a CSV table: CSV error: record 1 (line: 2, byte: 11): found record with 3 fields, but the previous record has 2 fields"
            ],
        );
        check(
            b"backbone,x\na\xff,1\n",
            expect![
                "not a CSV table: CSV parse error: record 1 (line 2, field: 0, byte: 11): invalid utf-8: invalid UTF-8 in field 0 near byte index 1"
            ],
        );
        check(
            b"backbone,x\n,1\n",
            expect!["line 2, column `backbone`: empty, expected the name of a backbone"],
        );
        check(
            b"backbone,x,\na,1,2\n",
            expect!["line 1, column 3: empty, expected the name of a setting"],
        );
        check(
            b"backbone,x\na,1\na,2\n",
            expect!["backbone `a` occurs twice; expected one row each"],
        );
        check(
            b"backbone,x,lower:x\na,1,2\n",
            expect!["setting `x` occurs twice; expected one column each"],
        );
        check(
            b"backbone,x\na,1\nb,\n",
            expect!["backbone `b` has no score; delete its row or fill a cell"],
        );
        check(
            b"backbone,x,y\na,1,\nb,2,\n",
            expect!["setting `y` has no score; delete its column or fill a cell"],
        );
    }
}
