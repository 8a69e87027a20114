//! Colours of z-scores: orange below the mean, blue above, which people with any colour vision tell apart; in every
//! colour the printed number keeps a contrast of at least 4.5 to 1 (WCAG 2.1, level AA).

/// z-scores beyond this have the colour of this one.
const LIMIT: f64 = 2.5;
/// Steps from the mean to the limit.
const STEPS: i32 = 10;

type Rgb = [f64; 3];

/// Anchors from the worst to the best, evenly spaced.
const LIGHT: [Rgb; 5] = [
    [168.0, 67.0, 0.0],
    [240.0, 168.0, 96.0],
    [246.0, 245.0, 242.0],
    [125.0, 179.0, 220.0],
    [26.0, 90.0, 156.0],
];
const DARK: [Rgb; 5] = [
    [236.0, 146.0, 66.0],
    [128.0, 76.0, 28.0],
    [35.0, 38.0, 43.0],
    [35.0, 84.0, 128.0],
    [104.0, 178.0, 242.0],
];

/// Class of a z-score's cell, `z0` the worst and `z20` the best.
pub(super) fn class(z: f64) -> String {
    let step = (z / LIMIT * f64::from(STEPS))
        .round()
        .clamp(f64::from(-STEPS), f64::from(STEPS));
    format!("z{}", step as i32 + STEPS)
}

/// z-scores of the legend.
pub(super) const LEGEND: [f64; 7] = [-2.5, -1.5, -0.75, 0.0, 0.75, 1.5, 2.5];

/// The rules of every class, for light and for dark pages.
pub(super) fn css() -> String {
    format!(
        "{}@media (prefers-color-scheme: dark) {{\n{}}}\n",
        rules(&LIGHT),
        rules(&DARK)
    )
}

fn rules(anchors: &[Rgb; 5]) -> String {
    let rule = |step: i32| {
        let colour = colour(anchors, step);
        let (ground, text) = (hex(colour), hex(text_on(colour)));
        format!(".z{step} {{ background: {ground}; color: {text}; }}\n")
    };
    (0..=2 * STEPS).map(rule).collect()
}

fn colour(anchors: &[Rgb; 5], step: i32) -> Rgb {
    let position = f64::from(step) / f64::from(2 * STEPS) * 4.0;
    let below = (position.floor() as usize).min(3);
    let share = position - below as f64;
    std::array::from_fn(|channel| anchors[below][channel] * (1.0 - share) + anchors[below + 1][channel] * share)
}

fn text_on(ground: Rgb) -> Rgb {
    // Pure black and white: with any other pair some colour in between has too little contrast to both.
    let (black, white) = ([0.0; 3], [255.0; 3]);
    if contrast(ground, black) >= contrast(ground, white) {
        black
    } else {
        white
    }
}

/// Contrast ratio of WCAG 2.1.
fn contrast(a: Rgb, b: Rgb) -> f64 {
    let (a, b) = (luminance(a), luminance(b));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

fn luminance(colour: Rgb) -> f64 {
    let linear = colour.map(|channel| {
        let share = channel / 255.0;
        if share <= 0.04045 {
            share / 12.92
        } else {
            ((share + 0.055) / 1.055).powf(2.4)
        }
    });
    0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
}

fn hex(colour: Rgb) -> String {
    let [red, green, blue] = colour.map(|channel| channel.round() as u8);
    format!("#{red:02x}{green:02x}{blue:02x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_readable_on_its_colour() {
        for anchors in [LIGHT, DARK] {
            for step in 0..=2 * STEPS {
                let ground = colour(&anchors, step);
                assert!(contrast(ground, text_on(ground)) >= 4.5, "step {step} of {anchors:?}");
            }
        }
    }

    #[test]
    fn classes_are_symmetric_and_bounded() {
        let check = |z, expected: &str| assert_eq!(class(z), expected);
        check(0.0, "z10");
        check(1.25, "z15");
        check(-1.25, "z5");
        check(99.0, "z20");
        check(-99.0, "z0");
    }
}
