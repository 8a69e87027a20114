//! Plots as inline SVG, each drawn twice: for a wide page, and for a phone with text of the same size.

use super::labels::{Anchor, Box2, Label, place, text_width};
use super::{escape, minus};
use crate::number::{rank, rank_interval, significant, with_interval, z};
use crate::{Battle, Contender};

/// For which page a plot is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Page {
    Wide,
    Narrow,
}

impl Page {
    pub(super) const BOTH: [Self; 2] = [Self::Wide, Self::Narrow];

    /// Its class in the style sheet, and the end of the identifiers of its plots.
    pub(super) fn class(self) -> &'static str {
        match self {
            Self::Wide => "wide",
            Self::Narrow => "narrow",
        }
    }

    fn width(self) -> f64 {
        match self {
            Self::Wide => 1040.0,
            Self::Narrow => 358.0,
        }
    }

    fn font(self) -> f64 {
        match self {
            Self::Wide => 13.0,
            Self::Narrow => 12.5,
        }
    }
}

/// An SVG with its title and description.
fn svg(page: Page, id: &str, height: f64, title: &str, description: &str, body: &str) -> String {
    let (class, width, font) = (page.class(), page.width(), page.font());
    let (title, description) = (escape(title), escape(description));
    format!(
        "<svg class=\"{class}\" viewBox=\"0 0 {width} {height:.0}\" font-size=\"{font}\" role=\"img\" \
         aria-labelledby=\"{id}-{class}-title {id}-{class}-desc\">\n\
         <title id=\"{id}-{class}-title\">{title}</title>\n\
         <desc id=\"{id}-{class}-desc\">{description}</desc>\n{body}</svg>\n"
    )
}

fn text(x: f64, y: f64, anchor: &str, class: &str, content: &str) -> String {
    let content = escape(content);
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" class=\"{class}\">{content}</text>\n")
}

fn line(class: &str, from: (f64, f64), to: (f64, f64)) -> String {
    let ((x1, y1), (x2, y2)) = (from, to);
    format!("<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" />\n")
}

/// A point: a square for a random baseline, a disc for the others, with the name as its tooltip.
fn point(contender: &Contender, x: f64, y: f64, radius: f64, class: &str, tooltip: &str) -> String {
    let title = format!("<title>{}</title>", escape(tooltip));
    if is_random(contender) {
        let (left, top, side) = (x - radius, y - radius, 2.0 * radius);
        return format!(
            "<rect class=\"random {class}\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{side:.1}\" height=\"{side:.1}\">\
             {title}</rect>\n"
        );
    }
    format!("<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius:.1}\">{title}</circle>\n")
}

fn is_random(contender: &Contender) -> bool {
    contender.style.as_deref() == Some("random")
}

fn shorten(text: &str, width: f64, font: f64) -> String {
    let room = (width / text_width("x", font, true)).floor().max(2.0) as usize;
    if text.chars().count() <= room {
        return text.to_owned();
    }
    text.chars().take(room - 1).chain(std::iter::once('…')).collect()
}

/// Ranks with their intervals, best first.
pub(super) fn ranking(battle: &Battle, page: Page) -> String {
    let font = page.font();
    let ranked: Vec<_> = battle
        .contenders
        .iter()
        .filter_map(|c| Some((c, c.place.as_ref()?)))
        .collect();
    let count = ranked.len() as f64;
    // On a wide page names stand left of the plot, on a phone above each row.
    let longest = ranked
        .iter()
        .map(|(c, _)| text_width(&c.backbone, font, true))
        .fold(0.0, f64::max);
    let names = match page {
        Page::Wide => longest.min(400.0) + 14.0,
        Page::Narrow => 10.0,
    };
    let scores = 58.0;
    let (left, right) = (names + 6.0, page.width() - scores - 10.0);
    let (row, top) = match page {
        Page::Wide => (26.0, 50.0),
        Page::Narrow => (42.0, 50.0),
    };
    let height = top + row * count + 10.0;
    let x = |rank: f64| {
        if count > 1.0 {
            left + (rank - 1.0) / (count - 1.0) * (right - left)
        } else {
            left
        }
    };

    let mut body = text(left - 6.0, 16.0, "start", "tick", "rank (1 is best)");
    body.push_str(&text(page.width() - 2.0, 16.0, "end", "tick", "mean z"));
    let step = (count / if page == Page::Wide { 12.0 } else { 7.0 }).ceil().max(1.0);
    for tick in 1..=ranked.len() {
        // The first, every few, and the last unless it would stand on the one before.
        let tick = tick as f64;
        let regular = (tick - 1.0) % step == 0.0 && (tick == count || count - tick >= step * 0.6);
        if regular || tick == count {
            body.push_str(&text(x(tick), 36.0, "middle", "tick", &rank(tick)));
            body.push_str(&line("grid", (x(tick), 43.0), (x(tick), height - 6.0)));
        }
    }
    for (index, (contender, place)) in ranked.iter().enumerate() {
        let base = top + row * index as f64;
        let y = match page {
            Page::Wide => base + row / 2.0,
            Page::Narrow => base + 28.0,
        };
        let name = shorten(&contender.backbone, page_room(page, names), font);
        let (name_x, name_y, anchor) = match page {
            Page::Wide => (names - 8.0, y + font * 0.35, "end"),
            Page::Narrow => (4.0, base + 13.0, "start"),
        };
        body.push_str(&text(
            name_x,
            name_y,
            anchor,
            if index == 0 { "strong" } else { "" },
            &name,
        ));
        if let (Some(low), Some(high)) = (place.rank_low, place.rank_high) {
            let (from, to) = (x(low), x(high));
            body.push_str(&line("whisker", (from, y), (to, y)));
            for end in [from, to] {
                body.push_str(&line("whisker", (end, y - 4.0), (end, y + 4.0)));
            }
        }
        let interval = rank_interval(place.rank_low, place.rank_high);
        let interval = if interval.is_empty() {
            interval
        } else {
            format!(" (interval {interval})")
        };
        let tooltip = format!(
            "{}: rank {}{interval}, mean z {}",
            contender.backbone,
            rank(place.rank),
            z(place.mean_z)
        );
        body.push_str(&point(contender, x(place.rank), y, 5.0, "dot", &tooltip));
        body.push_str(&text(
            page.width() - 2.0,
            y + font * 0.35,
            "end",
            "",
            &minus(&z(place.mean_z)),
        ));
    }
    let first = ranked.first().map_or("", |(contender, _)| contender.backbone.as_str());
    let description = format!(
        "{} backbones by rank, a dot each, with a whisker over the rank's bootstrap interval; {first} is first. The numbers are in the table below.",
        ranked.len()
    );
    svg(page, "ranking", height, "Ranking with intervals", &description, &body)
}

fn page_room(page: Page, names: f64) -> f64 {
    match page {
        Page::Wide => names - 14.0,
        Page::Narrow => page.width() - 8.0,
    }
}

/// A contender that is in the plot of quality against latency.
struct Timed<'a> {
    contender: &'a Contender,
    z: f64,
    milliseconds: f64,
}

fn timed(battle: &Battle) -> Vec<Timed<'_>> {
    let both = |contender: &'_ Contender| {
        let z = contender.place.as_ref()?.mean_z;
        let milliseconds = contender.latency_p50_ms.as_ref()?.value;
        // A logarithmic axis has no place for zero.
        (milliseconds > 0.0).then_some((z, milliseconds))
    };
    let with = |contender| {
        both(contender).map(|(z, milliseconds)| Timed {
            contender,
            z,
            milliseconds,
        })
    };
    battle.contenders.iter().filter_map(with).collect()
}

/// Backbones that the plot against latency numbers on a phone.
pub(super) fn timed_backbones(battle: &Battle) -> Vec<&Contender> {
    timed(battle).into_iter().map(|timed| timed.contender).collect()
}

/// Overall quality against latency with the Pareto front; `None` where nothing was both ranked and timed.
///
/// On a wide page points carry names, and where there is no room their ranks; on a phone always their ranks.
pub(super) fn scatter(battle: &Battle, page: Page) -> Option<String> {
    let points = timed(battle);
    if points.is_empty() {
        return None;
    }
    let font = page.font();
    let (width, height) = (page.width(), if page == Page::Wide { 460.0 } else { 380.0 });
    let frame = Box2 {
        left: 46.0,
        top: 28.0,
        right: width - 12.0,
        bottom: height - 48.0,
    };
    let across = Axis::logarithmic(points.iter().map(|p| p.milliseconds), frame.left, frame.right, page);
    let up = Axis::linear(points.iter().map(|p| p.z), frame.bottom, frame.top);
    let at = |point: &Timed| (across.at(point.milliseconds.log10()), up.at(point.z));

    let mut body = String::new();
    for (position, label) in &across.ticks {
        let x = across.at(*position);
        body.push_str(&line("grid", (x, frame.top), (x, frame.bottom)));
        body.push_str(&text(x, frame.bottom + 18.0, "middle", "tick", label));
    }
    for (position, label) in &up.ticks {
        let y = up.at(*position);
        body.push_str(&line(
            if *position == 0.0 { "axis" } else { "grid" },
            (frame.left, y),
            (frame.right, y),
        ));
        body.push_str(&text(frame.left - 7.0, y + font * 0.35, "end", "tick", label));
    }
    let middle = (frame.left + frame.right) / 2.0;
    body.push_str(&text(
        middle,
        height - 8.0,
        "middle",
        "soft",
        "latency p50 of one image, ms (logarithmic)",
    ));
    body.push_str(&text(4.0, 15.0, "start", "soft", "mean z (better is higher)"));

    let mut front: Vec<(f64, f64)> = points.iter().filter(|p| p.contender.pareto).map(at).collect();
    front.sort_by(|a, b| a.0.total_cmp(&b.0));
    let corners = staircase(&front, frame);
    let path: Vec<String> = corners.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    body.push_str(&format!(
        "<polyline class=\"front-line\" points=\"{}\" />\n",
        path.join(" ")
    ));

    // The front is labelled first: it is what a reader looks for.
    let mut order: Vec<&Timed> = points.iter().collect();
    order.sort_by_key(|point| !point.contender.pareto);
    let anchors: Vec<Anchor> = order.iter().map(|point| anchor(point, at(point), page)).collect();
    let segments: Vec<Box2> = corners.windows(2).map(|pair| segment(pair[0], pair[1])).collect();
    let labels = place(&anchors, frame, font, &segments);
    for Label {
        anchor, place, leader, ..
    } in &labels
    {
        if *leader {
            let point = &anchors[*anchor];
            let to = (
                point.x.clamp(place.left, place.right),
                point.y.clamp(place.top, place.bottom),
            );
            body.push_str(&line("leader", (point.x, point.y), to));
        }
    }
    for (timed, anchor) in order.iter().zip(&anchors) {
        let contender = timed.contender;
        let latency = contender.latency_p50_ms.as_ref().map_or(String::new(), with_interval);
        let tooltip = format!("{}: mean z {}, latency {latency} ms", contender.backbone, z(timed.z));
        let class = if contender.pareto { "front" } else { "plain" };
        body.push_str(&point(contender, anchor.x, anchor.y, anchor.radius, class, &tooltip));
    }
    for Label {
        anchor,
        text: content,
        place,
        ..
    } in &labels
    {
        let class = if order[*anchor].contender.pareto { "strong" } else { "" };
        body.push_str(&text(place.left, place.bottom - font * 0.3, "start", class, content));
    }
    let names: Vec<&str> = points
        .iter()
        .filter(|p| p.contender.pareto)
        .map(|p| p.contender.backbone.as_str())
        .collect();
    let description = format!(
        "{} backbones, mean z against median latency. On the Pareto front, from the best: {}.",
        points.len(),
        names.join(", ")
    );
    Some(svg(
        page,
        "latency",
        height,
        "Quality against latency",
        &description,
        &body,
    ))
}

fn anchor(point: &Timed, (x, y): (f64, f64), page: Page) -> Anchor {
    let rank = point
        .contender
        .place
        .as_ref()
        .map_or(String::new(), |place| rank(place.rank));
    let texts = match page {
        Page::Wide => {
            let name = &point.contender.backbone;
            // Timm's tag says how a backbone was trained; without it the architecture still names it.
            let architecture = name.split('.').next().unwrap_or(name);
            vec![name.clone(), architecture.to_owned(), rank]
        }
        Page::Narrow => vec![rank],
    };
    Anchor {
        x,
        y,
        radius: 5.5,
        bold: point.contender.pareto,
        texts,
    }
}

/// The front as steps: from a point right to the next one's latency, then up; on to the right edge.
fn staircase(front: &[(f64, f64)], frame: Box2) -> Vec<(f64, f64)> {
    let mut corners: Vec<(f64, f64)> = Vec::new();
    for &(x, y) in front {
        match corners.last() {
            Some(&(_, before)) => corners.push((x, before)),
            None => corners.push((x, frame.bottom)),
        }
        corners.push((x, y));
    }
    if let Some(&(_, y)) = corners.last() {
        corners.push((frame.right, y));
    }
    corners
}

fn segment(a: (f64, f64), b: (f64, f64)) -> Box2 {
    Box2 {
        left: a.0.min(b.0) - 1.0,
        right: a.0.max(b.0) + 1.0,
        top: a.1.min(b.1) - 1.0,
        bottom: a.1.max(b.1) + 1.0,
    }
}

/// A scale from numbers to pixels, with its ticks.
struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
    ticks: Vec<(f64, String)>,
}

impl Axis {
    fn at(&self, value: f64) -> f64 {
        self.from + (value - self.low) / (self.high - self.low) * (self.to - self.from)
    }

    /// Over the values' decimal logarithms, with ticks at round numbers.
    fn logarithmic(values: impl Iterator<Item = f64> + Clone, from: f64, to: f64, page: Page) -> Self {
        let (low, high) = padded(values.map(f64::log10), 0.08);
        let most = if page == Page::Wide { 9 } else { 5 };
        let decades = (low.floor() as i32)..=(high.ceil() as i32);
        let within = |steps: &[f64]| -> Vec<f64> {
            let of_decade = |decade: i32| steps.iter().map(move |step| step.log10() + f64::from(decade));
            decades
                .clone()
                .flat_map(of_decade)
                .filter(|position| (low..=high).contains(position))
                .collect()
        };
        let sets: [&[f64]; 4] = [
            &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0],
            &[1.0, 2.0, 3.0, 5.0],
            &[1.0, 2.0, 5.0],
            &[1.0],
        ];
        let mut positions = sets
            .iter()
            .map(|steps| within(steps))
            .find(|ticks| ticks.len() <= most)
            .unwrap_or_else(|| {
                let decades = within(&[1.0]);
                let every = decades.len().div_ceil(most);
                decades.into_iter().step_by(every).collect()
            });
        if positions.len() < 3 {
            // Within less than a decade, numbers as round as on a linear axis.
            let (step, first, last) = round_steps(10_f64.powf(low), 10_f64.powf(high));
            positions = (first.max(1)..=last)
                .map(|multiple| (multiple as f64 * step).log10())
                .collect();
        }
        let label = |position: f64| {
            let value = 10_f64.powf(position);
            if (0.001..100_000.0).contains(&value) {
                // Round numbers have one or two digits.
                format!("{}", (value * 1e4).round() / 1e4)
            } else {
                significant(value)
            }
        };
        let ticks = positions
            .into_iter()
            .map(|position| (position, label(position)))
            .collect();
        Self {
            low,
            high,
            from,
            to,
            ticks,
        }
    }

    /// Over the values, with ticks at multiples of 1, 2 or 5 of a power of ten.
    fn linear(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (low, high) = padded(values, 0.1);
        let (step, first, last) = round_steps(low, high);
        let decimals = (-step.log10().floor()).max(0.0) as usize;
        let label = |multiple: i64| match multiple {
            0 => "0".to_owned(),
            _ => minus(&format!("{:+.decimals$}", multiple as f64 * step)),
        };
        let ticks = (first..=last)
            .map(|multiple| (multiple as f64 * step, label(multiple)))
            .collect();
        Self {
            low,
            high,
            from,
            to,
            ticks,
        }
    }
}

/// Multiples of 1, 2 or 5 of a power of ten that divide a range into at most six: the step, and its first and last
/// multiple within the range.
fn round_steps(low: f64, high: f64) -> (f64, i64, i64) {
    let rough = (high - low) / 6.0;
    let power = 10_f64.powf(rough.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|round| round * power);
    let step = steps.into_iter().find(|step| *step >= rough).unwrap_or(rough);
    (step, (low / step).ceil() as i64, (high / step).floor() as i64)
}

/// The values' range with a margin on both sides; one value gets a range around itself.
fn padded(values: impl Iterator<Item = f64>, share: f64) -> (f64, f64) {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| {
        (low.min(v), high.max(v))
    });
    let margin = if high > low { (high - low) * share } else { 0.5 };
    (low - margin, high + margin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_neither_few_nor_many() {
        let check = |values: &[f64], expected: &[&str]| {
            let axis = Axis::logarithmic(values.iter().copied(), 0.0, 800.0, Page::Wide);
            let labels: Vec<&str> = axis.ticks.iter().map(|(_, label)| label.as_str()).collect();
            assert_eq!(labels, expected);
            assert!(
                axis.ticks
                    .iter()
                    .all(|(position, _)| (0.0..=800.0).contains(&axis.at(*position)))
            );
        };
        check(&[9.1, 340.0], &["10", "20", "30", "50", "100", "200", "300"]);
        check(&[50.0, 54.0], &["50", "51", "52", "53", "54"]);
        check(&[20.0], &["8", "10", "15", "20", "30", "40", "50", "60"]);
        check(
            &[1e-3, 1e12],
            &[
                "0.0001000",
                "0.01",
                "1",
                "100",
                "10000",
                "1.000e6",
                "1.000e8",
                "1.000e10",
                "1.000e12",
            ],
        );
    }
}
