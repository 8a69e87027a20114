//! Records of a battle and the statistics on them: bootstrap intervals, z-scores, ranks and correlations.
//!
//! This crate knows no tensors: records are read and ranked without compiling a tensor library.
//!
//! * [`Metric`] is one measured number with its [`Interval`], drawn by a [`Bootstrap`].
//! * [`Record`] is one cell of the battle on disk.
//! * [`ScoreTable`] is backbones by settings; [`standardize`] gives z-scores, [`rank()`] the ranking of BoB.
//! * [`spearman`] and [`pearson`] say how two lists agree.

mod bootstrap;
mod correlation;
mod metric;
mod ranking;
mod record;
mod score_table;
mod zscore;

pub use bootstrap::{Bootstrap, BootstrapError, Interval, quantile};
pub use correlation::{Correlation, pearson, spearman};
pub use metric::{Direction, Metric, MetricError};
pub use ranking::{Overall, RankedBackbone, RankedSetting, Ranking, RankingOptions, average_ranks, rank};
pub use record::{CellKey, CheckpointRecord, DataRecord, Environment, Record, RecordError, SCHEMA_VERSION, read_all};
pub use score_table::{RankReport, ScoreTable, ScoreTableError, Setting, SettingCorrelation};
pub use zscore::{Standardized, standardize};
