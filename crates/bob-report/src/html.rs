//! One self-contained page: inline style, inline SVG, no script, nothing loaded from anywhere.

mod labels;
mod palette;
mod plot;

use plot::Page;

use crate::markdown::{mean_z_note, sentence, summary};
use crate::number::{plural, rank, rank_interval, significant, with_interval, z};
use crate::table::{self, Table, metric_label, setting_label};
use crate::{Battle, Contender, SettingResults};

const STYLE: &str = include_str!("html/style.css");

/// The battle as an HTML page.
///
/// It reads on a phone and in the dark, needs no script, and names nothing outside itself. All text is escaped.
pub fn html(battle: &Battle) -> String {
    let title = escape(&battle.title);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n\
         <style>\n{STYLE}{}</style>\n</head>\n<body>\n",
        palette::css()
    );
    if let Some(line) = battle.fixtures_line() {
        page.push_str(&format!("<p class=\"fixtures\">{}.</p>\n", escape(line)));
    }
    page.push_str(&format!("<header>\n<h1>{title}</h1>\n"));
    if battle.contenders.is_empty() {
        page.push_str(
            "<p>No records to rank; run <code>cargo xtask bench-all</code> first.</p>\n</header>\n</body>\n</html>\n",
        );
        return page;
    }
    page.push_str(&format!("<p class=\"summary\">{}.</p>\n", escape(&summary(battle))));
    page.push_str(&verdict(battle));
    let sections: Vec<(&str, &str, String)> = [
        ("ranking", "Ranking", ranking(battle)),
        ("latency", "Quality against latency", latency(battle)),
        ("z-scores", "z-scores", heat_map(battle)),
        ("scores", "Scores", scores(battle)),
        ("correlations", "Correlations", correlations(battle)),
        (
            "reading",
            "How to read this",
            NOTES.replace("{mean_z}", &escape(mean_z_note(battle))),
        ),
        ("provenance", "Provenance", provenance(battle)),
    ]
    .into_iter()
    .filter(|(_, _, body)| !body.is_empty())
    .collect();
    page.push_str("<nav aria-label=\"Sections\"><ul>\n");
    for (id, heading, _) in &sections {
        page.push_str(&format!("<li><a href=\"#{id}\">{heading}</a></li>\n"));
    }
    page.push_str("</ul></nav>\n</header>\n<main>\n");
    page.push_str(&warnings(battle));
    for (id, heading, body) in &sections {
        page.push_str(&format!(
            "<section id=\"{id}\">\n<h2>{heading}</h2>\n{body}</section>\n"
        ));
    }
    page.push_str("</main>\n</body>\n</html>\n");
    page
}

/// Text that HTML shows as it is, in content and in quoted attributes.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ if character.is_control() => escaped.push('\u{FFFD}'),
            _ => escaped.push(character),
        }
    }
    escaped
}

/// Escaped text of a name that may break after its separators, so that columns can be narrow.
fn breakable(name: &str) -> String {
    name.split_inclusive(['_', '.', '-', '/', '@'])
        .map(escape)
        .collect::<Vec<_>>()
        .join("<wbr>")
}

fn verdict(battle: &Battle) -> String {
    let Some(place) = battle.contenders.first().and_then(|first| first.place.as_ref()) else {
        return "<p class=\"verdict\">Nothing was ranked: there are costs, and no scores.</p>\n".to_owned();
    };
    let tied = battle
        .contenders
        .iter()
        .filter_map(|c| c.place.as_ref())
        .filter(|p| p.rank == place.rank)
        .count();
    let interval = match rank_interval(place.rank_low, place.rank_high) {
        interval if interval.is_empty() => String::new(),
        interval => format!(", rank interval <span class=\"unbroken\">{interval}</span>"),
    };
    let name = breakable(&place.backbone);
    let rank = rank(place.rank);
    let leads = match tied {
        1 => format!("<strong>{name}</strong> leads"),
        _ => format!(
            "<strong>{name}</strong> shares rank {rank} with {}",
            plural(tied - 1, "other")
        ),
    };
    let mut text = format!(
        "<p class=\"verdict\">{leads}: mean z {}{interval}.",
        minus(&z(place.mean_z))
    );
    text.push_str(&front(battle));
    text.push_str("</p>\n");
    text
}

/// How large the Pareto front is, and its cheap end; the dear end is the leader.
fn front(battle: &Battle) -> String {
    let timed = plot::timed_backbones(battle);
    let front: Vec<_> = timed.iter().filter(|contender| contender.pareto).collect();
    let latency = |contender: &&&Contender| {
        contender
            .latency_p50_ms
            .as_ref()
            .map_or(f64::INFINITY, |cell| cell.value)
    };
    let Some(fastest) = front.iter().min_by(|a, b| latency(a).total_cmp(&latency(b))) else {
        return String::new();
    };
    if timed.len() < 2 {
        return String::new();
    }
    format!(
        " {} of {} timed backbones {} on the <a href=\"#latency\">front of quality against latency</a>; the fastest of the \
         front is <strong>{}</strong>, {} ms an image.",
        front.len(),
        timed.len(),
        if front.len() == 1 { "is" } else { "are" },
        breakable(&fastest.backbone),
        significant(latency(fastest)),
    )
}

fn warnings(battle: &Battle) -> String {
    if battle.warnings.is_empty() {
        return String::new();
    }
    let items: String = battle
        .warnings
        .iter()
        .map(|warning| format!("<li>{}</li>\n", code_spans(&sentence(warning))))
        .collect();
    format!(
        "<aside class=\"warnings\" aria-label=\"Warnings\">\n<strong>Before you compare</strong>\n<ul>\n{items}</ul>\n</aside>\n"
    )
}

/// Escaped text with what stands between backticks as code.
fn code_spans(text: &str) -> String {
    let parts: Vec<&str> = text.split('`').collect();
    // A lone backtick belongs to a name.
    if parts.len().is_multiple_of(2) {
        return escape(text);
    }
    let span = |(index, part): (usize, &&str)| {
        if index % 2 == 1 {
            format!("<code>{}</code>", breakable(part))
        } else {
            escape(part)
        }
    };
    parts.iter().enumerate().map(span).collect()
}

fn figure(plots: &[String], caption: &str) -> String {
    format!(
        "<figure>\n{}<figcaption class=\"caption\">{caption}</figcaption>\n</figure>\n",
        plots.concat()
    )
}

fn has_places(battle: &Battle) -> bool {
    battle.contenders.iter().any(|contender| contender.place.is_some())
}

fn ranking(battle: &Battle) -> String {
    let mut body = String::new();
    if has_places(battle) {
        let level = battle.ranking.bootstrap.level * 100.0;
        let random = if battle.contenders.iter().any(|c| c.style.as_deref() == Some("random")) {
            " Open squares have random weights."
        } else {
            ""
        };
        let caption = format!(
            "Dots are ranks by mean z; whiskers are {level:.0} % bootstrap intervals over settings, absent with a single \
             setting.{random}"
        );
        body.push_str(&figure(&Page::BOTH.map(|page| plot::ranking(battle, page)), &caption));
    }
    body.push_str(&render(&table::ranking(battle), "Ranking"));
    body
}

fn latency(battle: &Battle) -> String {
    let plots: Vec<String> = Page::BOTH
        .iter()
        .filter_map(|&page| plot::scatter(battle, page))
        .collect();
    if plots.is_empty() {
        return String::new();
    }
    let items: Vec<String> = plot::timed_backbones(battle)
        .iter()
        .filter_map(|contender| {
            let rank = rank(contender.place.as_ref()?.rank);
            let name = breakable(&contender.backbone);
            Some(if contender.pareto {
                format!("<b>{rank} {name}</b>")
            } else {
                format!("{rank} {name}")
            })
        })
        .collect();
    let key = format!(
        "<p class=\"caption narrow\">Points carry ranks, the front in bold: {}.</p>\n",
        items.join(", ")
    );
    let caption = "Up and to the left is better. The dashed line is the Pareto front: no ranked backbone is both better \
                   and faster than one on it. <span class=\"wide\">Where a name found no room, the point carries its \
                   rank.</span>";
    format!("{}{key}", figure(&plots, caption))
}

fn heat_map(battle: &Battle) -> String {
    if !has_places(battle) {
        return String::new();
    }
    let legend: String = palette::LEGEND
        .iter()
        .map(|&score| {
            format!(
                "<span class=\"{}\">{}</span>",
                palette::class(score),
                minus(&if score == 0.0 {
                    "0".to_owned()
                } else {
                    format!("{score:+}")
                })
            )
        })
        .collect();
    let mut body = format!(
        "<p>How many standard deviations a backbone lies above the mean of all backbones in a setting.</p>\n\
         <div class=\"legend\" aria-hidden=\"true\">{legend}</div>\n\
         <div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"z-scores\">\n<table class=\"heat\">\n\
         <thead><tr><th scope=\"col\" class=\"corner\">backbone</th><th scope=\"col\" class=\"setting\">mean</th>"
    );
    for setting in &battle.settings {
        body.push_str(&setting_heading(setting));
    }
    body.push_str("</tr></thead>\n<tbody>\n");
    for place in battle
        .contenders
        .iter()
        .filter_map(|contender| contender.place.as_ref())
    {
        body.push_str(&format!("<tr>{}", row_heading(&place.backbone)));
        let cell = |score: f64, extra: &str| {
            format!(
                "<td class=\"{}{extra}\">{}</td>",
                palette::class(score),
                minus(&z(score))
            )
        };
        body.push_str(&cell(place.mean_z, " mean"));
        for (_, score) in &place.z {
            body.push_str(&match score {
                Some(score) => cell(*score, ""),
                None => "<td class=\"missing\">missing</td>".to_owned(),
            });
        }
        body.push_str("</tr>\n");
    }
    body.push_str("</tbody>\n</table>\n</div>\n");
    body
}

/// Heading of a row; its name is there whole as well, for programs that read the page.
fn row_heading(name: &str) -> String {
    format!(
        "<th scope=\"row\" data-name=\"{}\">{}</th>",
        escape(name),
        breakable(name)
    )
}

/// Heading of a setting's column: protocol, data set and metric on lines of their own.
fn setting_heading(setting: &SettingResults) -> String {
    let name = setting_label(setting);
    let (protocol, dataset) = name.split_once('/').unwrap_or((&name, ""));
    format!(
        "<th scope=\"col\" class=\"setting\">{} <small>{}</small> <small>{}</small></th>",
        breakable(protocol),
        breakable(dataset),
        escape(&metric_label(setting))
    )
}

fn scores(battle: &Battle) -> String {
    if !has_places(battle) {
        return String::new();
    }
    let mut body =
        "<p>Value and half of its bootstrap interval over the items of the test set; the arrow points where \
                    the metric is better. Below, every setting with both ends of its intervals.</p>\n"
            .to_owned();
    body.push_str(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Scores\">\n<table>\n<thead><tr>\
         <th scope=\"col\" class=\"corner\">backbone</th>",
    );
    for setting in &battle.settings {
        body.push_str(&setting_heading(setting));
    }
    body.push_str("</tr></thead>\n<tbody>\n");
    for contender in battle.contenders.iter().filter(|contender| contender.place.is_some()) {
        body.push_str(&format!("<tr>{}", row_heading(&contender.backbone)));
        for setting in &battle.settings {
            body.push_str(&match setting.cells.get(&contender.backbone) {
                Some(cell) => format!("<td>{}</td>", minus(&with_interval(cell))),
                None => "<td class=\"missing\">missing</td>".to_owned(),
            });
        }
        body.push_str("</tr>\n");
    }
    body.push_str("</tbody>\n</table>\n</div>\n");
    for setting in &battle.settings {
        let name = breakable(&setting_label(setting));
        let label = format!("Scores of {}", setting_label(setting));
        body.push_str(&format!(
            "<details>\n<summary>{name} <small>{}, {}{}</small></summary>\n{}</details>\n",
            escape(&setting.task),
            escape(&metric_label(setting)),
            items(setting),
            render(&table::setting(setting), &label)
        ));
    }
    body
}

/// The number of items, where all backbones were tested on as many.
fn items(setting: &SettingResults) -> String {
    let mut counts = setting.cells.values().map(|cell| cell.n);
    match counts.next() {
        Some(Some(n)) if counts.all(|other| other == Some(n)) => format!(", n = {n}"),
        _ => String::new(),
    }
}

fn correlations(battle: &Battle) -> String {
    let table = table::correlations(battle);
    if table.rows.is_empty() {
        return String::new();
    }
    format!(
        "<p>Spearman’s rank correlation over backbones: of the mean z of two tasks, and of the overall mean z with what a \
         backbone costs. A p-value needs at least ten backbones to mean something.</p>\n{}",
        render(&table, "Correlations")
    )
}

fn provenance(battle: &Battle) -> String {
    if battle.environments.is_empty() {
        return String::new();
    }
    format!(
        "<p>Every record names what made it. Hashes are cut to twelve characters; records have them whole.</p>\n\
         <h3>Machines and programs</h3>\n{}<h3>Weights, data and protocols</h3>\n{}",
        render(&table::environments(battle), "Machines and programs"),
        render(&table::hashes(battle), "Weights, data and protocols")
    )
}

fn render(table: &Table, label: &str) -> String {
    let name = table.name_column();
    let mut body = format!(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{}\">\n<table>\n<thead><tr>",
        escape(label)
    );
    for (index, column) in table.columns.iter().enumerate() {
        let class = match (index == name, column.number) {
            (true, _) => " class=\"corner\"",
            (_, true) => " class=\"number\"",
            _ => "",
        };
        body.push_str(&format!("<th scope=\"col\"{class}>{}</th>", escape(&column.title)));
    }
    body.push_str("</tr></thead>\n<tbody>\n");
    for row in &table.rows {
        body.push_str("<tr>");
        for (index, cell) in row.iter().enumerate() {
            body.push_str(&match (index == name, table.columns[index].number) {
                (true, _) => row_heading(cell),
                (_, true) => format!("<td class=\"number\">{}</td>", minus(&escape(cell))),
                _ => format!("<td>{}</td>", escape(cell)),
            });
        }
        body.push_str("</tr>\n");
    }
    body.push_str("</tbody>\n</table>\n</div>\n");
    body
}

/// A number with a real minus sign in front.
fn minus(number: &str) -> String {
    match number.strip_prefix('-') {
        Some(digits) => format!("−{digits}"),
        None => number.to_owned(),
    }
}

const NOTES: &str = "<ul>
<li><strong>Setting</strong>: one protocol on one data set, judged by the protocol’s primary metric. Scores are raw; shares are between 0 and 1.</li>
<li><strong>z-score</strong>: standard deviations above the mean of all backbones in a setting. Better is more, whatever the metric’s direction. It depends on who else took part.</li>
<li>{mean_z}. A missing setting is left out, not counted as zero.</li>
<li><strong>Rank interval</strong>: a bootstrap over settings. It says how far the rank could move had other settings of this kind been chosen. Overlapping intervals mean that the order is not settled.</li>
<li><strong>Value ± half interval</strong>: a bootstrap over the items of the test set, at the level in the record (95 % unless the protocol says otherwise). Several seeds are averaged, and their spread is the seed deviation.</li>
<li><strong>Parameters, MACs, latency, memory</strong> are costs. As in Battle of the Backbones they stand beside the ranking and do not enter it. Latency is of one image; compare it only within one machine.</li>
</ul>
";
