//! The protocols of every task crate, as one table.

use bob_core::{UnknownName, Variant, find};
use bob_stats::Bootstrap;
use serde_json::Value;

/// A protocol of any task.
#[derive(Clone, Debug)]
pub enum Protocol {
    /// k-NN, linear probe, few-shot.
    Classification(bob_classification::Protocol),
    /// A gallery ranked by embedding similarity.
    Retrieval(bob_retrieval::Protocol),
    /// The same predictor under a shifted test set.
    Ood(bob_ood::Protocol),
    /// Speed and memory on this machine.
    Efficiency(bob_efficiency::Protocol),
}

/// The same call on the protocol of any task.
macro_rules! each {
    ($self:ident, $protocol:ident => $call:expr) => {
        match $self {
            Protocol::Classification($protocol) => $call,
            Protocol::Retrieval($protocol) => $call,
            Protocol::Ood($protocol) => $call,
            Protocol::Efficiency($protocol) => $call,
        }
    };
}

impl Protocol {
    /// Every protocol, in the order of tasks and of each task's table.
    pub fn all() -> Vec<Self> {
        let classification = bob_classification::protocols().into_iter().map(Self::Classification);
        let retrieval = bob_retrieval::protocols().into_iter().map(Self::Retrieval);
        let ood = bob_ood::protocols().into_iter().map(Self::Ood);
        let efficiency = bob_efficiency::protocols().into_iter().map(Self::Efficiency);
        classification.chain(retrieval).chain(ood).chain(efficiency).collect()
    }

    /// The protocol `name`.
    ///
    /// # Errors
    /// Where there is none, with the nearest name.
    pub fn find(name: &str) -> Result<Self, UnknownName> {
        find("protocol", name, &Self::all(), Self::name).cloned()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        each!(self, protocol => protocol.name())
    }

    /// Its version.
    pub fn version(&self) -> u32 {
        each!(self, protocol => protocol.version())
    }

    /// How it stands to BoB.
    pub fn variant(&self) -> Variant {
        each!(self, protocol => protocol.variant())
    }

    /// Every value of it, and how intervals are drawn.
    pub fn resolved(&self) -> Value {
        let mut value =
            each!(self, protocol => serde_json::to_value(protocol)).expect("a protocol is a table of plain values");
        if let Self::Ood(protocol) = self
            && let Ok(classifier) = classifier_of(protocol)
        {
            value["classifier"] = serde_json::to_value(classifier).expect("it is a table of plain values");
        }
        value["bootstrap"] = serde_json::to_value(Bootstrap::default()).expect("it is a table of plain values");
        value
    }

    /// Its task.
    pub const fn task(&self) -> &'static str {
        match self {
            Self::Classification(_) => "classification",
            Self::Retrieval(_) => "retrieval",
            Self::Ood(_) => "ood",
            Self::Efficiency(_) => "efficiency",
        }
    }

    /// Whether it needs a data set.
    pub const fn reads_images(&self) -> bool {
        !matches!(self, Self::Efficiency(_))
    }
}

/// The protocol of the classifier whose predictions are shifted.
///
/// # Errors
/// Where there is none of that name.
pub fn classifier_of(protocol: &bob_ood::Protocol) -> Result<bob_classification::Protocol, UnknownName> {
    let protocols = bob_classification::protocols();
    find(
        "protocol",
        &protocol.classifier,
        &protocols,
        bob_classification::Protocol::name,
    )
    .cloned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_over_all_tasks() {
        let protocols = Protocol::all();
        let names: BTreeSet<&str> = protocols.iter().map(Protocol::name).collect();
        assert_eq!(names.len(), protocols.len());
    }
}
