//! Scores of one query's ranking, from the ranks at which its positives came.
//!
//! Ranks count from 0. The definitions are those of BoB's `bob-retrieval/retrieval/utils.py` (`compute_map`), beside
//! the standard ones where they differ.

/// What a gallery image is to a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relevance {
    /// It should come first.
    Positive,
    /// It should come after every positive.
    Negative,
    /// It counts as if it were not there (too hard to judge, as in Oxford 5k).
    Junk,
}

/// Where a query's positives came.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Judged {
    /// Rank of the first positive with junk still in the ranking, `None` where there is no positive.
    pub first: Option<usize>,
    /// Ranks of the positives, rising, as if no junk had been ranked.
    pub ranks: Vec<usize>,
}

/// Where the positives came in a ranking whose images have these relevances, best first.
pub fn judge(ranking: impl IntoIterator<Item = Relevance>) -> Judged {
    let mut judged = Judged::default();
    let mut junk = 0;
    for (rank, relevance) in ranking.into_iter().enumerate() {
        match relevance {
            Relevance::Positive => {
                judged.first.get_or_insert(rank);
                judged.ranks.push(rank - junk);
            }
            Relevance::Junk => junk += 1,
            Relevance::Negative => {}
        }
    }
    judged
}

impl Judged {
    /// One over the place of the first positive, junk not removed; 0 without a positive.
    pub fn reciprocal_rank(&self) -> f64 {
        self.first.map_or(0.0, |rank| 1.0 / (rank + 1) as f64)
    }

    /// The mean of the precisions at the positives, or `None` without one: scikit-learn's `average_precision_score`.
    pub fn average_precision(&self) -> Option<f64> {
        self.mean_over_positives(|j, rank| (j + 1) as f64 / (rank + 1) as f64)
    }

    /// The mean over the positives of the trapezoid between the precision just before and at each, or `None` without
    /// one: Oxford 5k's and BoB's average precision.
    pub fn trapezoid_average_precision(&self) -> Option<f64> {
        self.mean_over_positives(|j, rank| {
            let before = if rank == 0 { 1.0 } else { j as f64 / rank as f64 };
            let at = (j + 1) as f64 / (rank + 1) as f64;
            (before + at) / 2.0
        })
    }

    /// Share of the positives among the first `k`, or `None` without one.
    pub fn recall_at(&self, k: usize) -> Option<f64> {
        self.mean_over_positives(|_, rank| f64::from(u8::from(rank < k)))
    }

    /// 1 where one of the first `k` is a positive, else 0, or `None` without a positive.
    pub fn hit_at(&self, k: usize) -> Option<f64> {
        self.ranks.first().map(|&rank| f64::from(u8::from(rank < k)))
    }

    /// Share of positives among the first `min(k, place of the last positive)`, or `None` without one: BoB's rule, by
    /// which a query with fewer than `k` positives can still reach 1.
    pub fn precision_at(&self, k: usize) -> Option<f64> {
        let depth = k.min(self.ranks.last()? + 1);
        Some(self.ranks.iter().filter(|&&rank| rank < depth).count() as f64 / depth as f64)
    }

    fn mean_over_positives(&self, f: impl Fn(usize, usize) -> f64) -> Option<f64> {
        let sum: f64 = self.ranks.iter().enumerate().map(|(j, &rank)| f(j, rank)).sum();
        (!self.ranks.is_empty()).then(|| sum / self.ranks.len() as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn judged(ranking: &str) -> Judged {
        judge(ranking.chars().map(|c| match c {
            'p' => Relevance::Positive,
            'j' => Relevance::Junk,
            _ => Relevance::Negative,
        }))
    }

    #[test]
    fn junk_moves_ranks_but_not_the_first_hit() {
        let with_junk = judged("jnpjp");
        assert_eq!(
            with_junk,
            Judged {
                first: Some(2),
                ranks: vec![1, 2]
            }
        );
        assert_eq!(with_junk.reciprocal_rank(), 1.0 / 3.0);
        assert_eq!(with_junk.average_precision(), judged("npp").average_precision());
        assert_eq!(judged("jnn"), Judged::default());
        assert_eq!(judged("jnn").reciprocal_rank(), 0.0);
        assert_eq!(judged("nn").average_precision(), None);
    }

    #[test]
    fn precision_stops_at_the_last_positive() {
        assert_eq!(judged("pnnnn").precision_at(5), Some(1.0));
        assert_eq!(judged("npnpn").precision_at(5), Some(0.5));
        assert_eq!(judged("npnpn").precision_at(3), Some(1.0 / 3.0));
    }

    proptest! {
        #[test]
        fn scores_are_shares_and_moving_a_positive_up_helps(mut ranking in proptest::collection::vec(0..3u8, 1..40)) {
            let relevance = |&code: &u8| [Relevance::Negative, Relevance::Positive, Relevance::Junk][usize::from(code)];
            let scores = |ranking: &[u8]| {
                let judged = judge(ranking.iter().map(relevance));
                [judged.average_precision(), judged.trapezoid_average_precision(), judged.recall_at(5), judged.hit_at(5)]
            };
            let before = scores(&ranking);
            for score in before.iter().flatten() {
                prop_assert!((0.0..=1.0).contains(score));
            }
            if let Some(at) = ranking.windows(2).position(|pair| pair == [0, 1]) {
                ranking.swap(at, at + 1);
                for (before, after) in before.iter().zip(scores(&ranking)) {
                    prop_assert!(after >= *before);
                }
            }
        }
    }
}
