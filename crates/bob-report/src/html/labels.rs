//! Where the labels of a scatter plot go, so that none lies on another label or on a point.

/// An axis-parallel box.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Box2 {
    pub(super) left: f64,
    pub(super) top: f64,
    pub(super) right: f64,
    pub(super) bottom: f64,
}

impl Box2 {
    fn overlaps(&self, other: &Self) -> bool {
        self.left < other.right && other.left < self.right && self.top < other.bottom && other.top < self.bottom
    }

    fn inside(&self, other: &Self) -> bool {
        self.left >= other.left && self.right <= other.right && self.top >= other.top && self.bottom <= other.bottom
    }
}

/// A point that wants a label.
pub(super) struct Anchor {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) radius: f64,
    /// Whether its label is set in bold, which is wider.
    pub(super) bold: bool,
    /// Texts to try in turn, the best first.
    pub(super) texts: Vec<String>,
}

/// A label that found a place.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Label {
    pub(super) anchor: usize,
    pub(super) text: String,
    pub(super) place: Box2,
    /// Whether it is so far from its point that a line must lead to it.
    pub(super) leader: bool,
}

/// Width of a text in a sans-serif face, on the wide side.
pub(super) fn text_width(text: &str, font: f64, bold: bool) -> f64 {
    text.chars().count() as f64 * font * if bold { 0.69 } else { 0.61 }
}

/// Distances from the edge of a point that are tried, in font sizes.
const DISTANCES: [f64; 5] = [0.3, 1.0, 1.8, 2.8, 4.0];
/// From this one on a line leads to the label.
const LEADER_FROM: f64 = 1.8;

/// Places labels, the first anchors first: for each text and distance the eight directions are tried, and the first
/// free place that no line of `lines` crosses is taken, or else the first free place. A label without a place is left
/// out.
pub(super) fn place(anchors: &[Anchor], bounds: Box2, font: f64, lines: &[Box2]) -> Vec<Label> {
    let points: Vec<Box2> = anchors
        .iter()
        .map(|anchor| square(anchor, anchor.radius + 1.0))
        .collect();
    let mut labels: Vec<Label> = Vec::new();
    for (index, anchor) in anchors.iter().enumerate() {
        let mut second_choice = None;
        let mut first_choice = None;
        for label in candidates(index, anchor, font) {
            let taken = !label.place.inside(&bounds)
                || points.iter().any(|point| point.overlaps(&label.place))
                || labels.iter().any(|other| other.place.overlaps(&label.place));
            if taken {
                continue;
            }
            if lines.iter().any(|line| line.overlaps(&label.place)) {
                second_choice = second_choice.or(Some(label));
                continue;
            }
            first_choice = Some(label);
            break;
        }
        // A name across a line is better than a number beside it.
        let better = match (first_choice, second_choice) {
            (Some(first), Some(second)) if first.text.len() < second.text.len() => Some(second),
            (first, second) => first.or(second),
        };
        labels.extend(better);
    }
    labels
}

fn candidates(index: usize, anchor: &Anchor, font: f64) -> impl Iterator<Item = Label> {
    let tried = anchor
        .texts
        .iter()
        .flat_map(move |text| DISTANCES.iter().map(move |distance| (text, distance)));
    tried.flat_map(move |(text, &distance)| {
        let (width, height) = (text_width(text, font, anchor.bold), font * 1.15);
        let gap = anchor.radius + distance * font;
        let directions = [(1, 0), (-1, 0), (0, -1), (0, 1), (1, -1), (1, 1), (-1, -1), (-1, 1)];
        directions.into_iter().map(move |(across, down)| {
            // On a diagonal the gap is shared between both axes.
            let gap = if across != 0 && down != 0 { gap * 0.7 } else { gap };
            let left = match across {
                1 => anchor.x + gap,
                -1 => anchor.x - gap - width,
                _ => anchor.x - width / 2.0,
            };
            let top = match down {
                1 => anchor.y + gap,
                -1 => anchor.y - gap - height,
                _ => anchor.y - height / 2.0,
            };
            Label {
                anchor: index,
                text: text.clone(),
                place: Box2 {
                    left,
                    top,
                    right: left + width,
                    bottom: top + height,
                },
                leader: distance >= LEADER_FROM,
            }
        })
    })
}

fn square(anchor: &Anchor, half: f64) -> Box2 {
    Box2 {
        left: anchor.x - half,
        top: anchor.y - half,
        right: anchor.x + half,
        bottom: anchor.y + half,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Box2 = Box2 {
        left: 0.0,
        top: 0.0,
        right: 600.0,
        bottom: 300.0,
    };

    fn anchor(x: f64, y: f64, name: &str) -> Anchor {
        Anchor {
            x,
            y,
            radius: 5.0,
            bold: false,
            texts: vec![name.to_owned(), "7".to_owned()],
        }
    }

    #[test]
    fn labels_lie_on_nothing() {
        // A dense diagonal, two points in one place, points in the corners.
        let mut anchors: Vec<Anchor> = (0..12)
            .map(|i| {
                anchor(
                    250.0 + 6.0 * f64::from(i),
                    150.0 - 4.0 * f64::from(i),
                    "resnet50.a1_in1k",
                )
            })
            .collect();
        anchors.push(anchor(250.0, 150.0, "resnet50.a1_in1k"));
        anchors.push(anchor(0.0, 0.0, "convnext_base.fb_in22k"));
        anchors.push(anchor(600.0, 300.0, "convnext_base.fb_in22k"));
        let labels = place(&anchors, BOUNDS, 12.0, &[]);
        assert!(labels.len() >= 13, "{}", labels.len());
        for (index, label) in labels.iter().enumerate() {
            assert!(label.place.inside(&BOUNDS), "{label:?}");
            assert!(
                labels[..index].iter().all(|other| !other.place.overlaps(&label.place)),
                "{label:?}"
            );
            assert!(
                anchors.iter().all(|anchor| !square(anchor, 5.0).overlaps(&label.place)),
                "{label:?}"
            );
        }
    }

    #[test]
    fn a_line_is_avoided_where_there_is_room() {
        let line = Box2 {
            left: 300.0,
            top: 99.0,
            right: 600.0,
            bottom: 101.0,
        };
        let labels = place(&[anchor(300.0, 100.0, "name")], BOUNDS, 12.0, &[line]);
        assert!(!labels[0].place.overlaps(&line) && labels[0].text == "name");
    }

    #[test]
    fn a_name_too_long_for_the_plot_becomes_a_number() {
        let labels = place(&[anchor(300.0, 100.0, &"long".repeat(50))], BOUNDS, 12.0, &[]);
        assert_eq!(labels[0].text, "7");
    }
}
