//! "did you mean": looking a name up among the known ones.

/// A name that nothing has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown {kind} `{name}`{}", hint(.nearest, .known))]
pub struct UnknownName {
    /// What was looked for: `backbone`, `data set`, `protocol`, `backend`.
    pub kind: String,
    /// The name that was given.
    pub name: String,
    /// The nearest known name, where one is near.
    pub nearest: Option<String>,
    /// Every known name.
    pub known: Vec<String>,
}

fn hint(nearest: &Option<String>, known: &[String]) -> String {
    match nearest {
        Some(nearest) => format!("; did you mean `{nearest}`?"),
        None => format!("; known: {}", known.join(", ")),
    }
}

/// The item of `items` whose name is `name`.
///
/// # Errors
/// [`UnknownName`] with the nearest known name where there is no such item.
pub fn find<'a, T>(kind: &str, name: &str, items: &'a [T], name_of: impl Fn(&T) -> &str) -> Result<&'a T, UnknownName> {
    if let Some(item) = items.iter().find(|item| name_of(item) == name) {
        return Ok(item);
    }
    let nearest = items
        .iter()
        .map(|item| {
            (
                strsim::jaro_winkler(&name.to_lowercase(), &name_of(item).to_lowercase()),
                name_of(item),
            )
        })
        .filter(|(score, _)| *score > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, nearest)| nearest.to_owned());
    Err(UnknownName {
        kind: kind.to_owned(),
        name: name.to_owned(),
        nearest,
        known: items.iter().map(|item| name_of(item).to_owned()).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_name_is_suggested_and_a_far_one_lists_all() {
        let names = ["resnet18", "resnet50", "convnext_tiny"];
        let check = |name: &str, expected: &str| {
            let message = match find("backbone", name, &names, |name| name) {
                Ok(found) => (*found).to_owned(),
                Err(error) => error.to_string(),
            };
            assert_eq!(message, expected);
        };
        check("resnet18", "resnet18");
        check("ResNet-50", "unknown backbone `ResNet-50`; did you mean `resnet50`?");
        check(
            "zzz",
            "unknown backbone `zzz`; known: resnet18, resnet50, convnext_tiny",
        );
    }
}
