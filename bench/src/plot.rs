//! Pictures of a report: one SVG per measurement, a bar per system and quantity.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context;

use crate::report::{Figure, Report, number};

const WIDTH: usize = 900;
const LABEL: usize = 330;
const BAR: usize = 18;
const GAP: usize = 14;
const COLOURS: [&str; 3] = ["#1f77b4", "#d6803b", "#7a7a7a"];

/// Writes `<measurement>.svg` for every measurement.
pub(crate) fn write_all(report: &Report, folder: &Path) -> anyhow::Result<()> {
    let mut workloads: Vec<&str> = report
        .figures
        .iter()
        .map(|figure| figure.workload.as_str())
        .collect();
    workloads.dedup();
    for workload in workloads {
        let file = folder.join(format!("{}.svg", workload.replace(' ', "-")));
        std::fs::write(&file, picture(report, workload))
            .with_context(|| file.display().to_string())?;
    }
    Ok(())
}

/// One picture. Each quantity has its own scale, because their units differ: what is compared are systems.
fn picture(report: &Report, workload: &str) -> String {
    let systems = report.systems();
    let mut body = String::new();
    let mut y = 30;
    for (_, metric, unit) in report
        .metrics()
        .into_iter()
        .filter(|(of, ..)| *of == workload)
    {
        let figures: Vec<(usize, &Figure)> = systems
            .iter()
            .enumerate()
            .filter_map(|(place, system)| Some((place, report.figure(workload, metric, system)?)))
            .collect();
        let most = figures
            .iter()
            .map(|(_, figure)| figure.highest())
            .fold(f64::MIN_POSITIVE, f64::max);
        line(
            &mut body,
            10,
            y + BAR - 5,
            "#222",
            &format!("{metric} ({unit})"),
        );
        for (place, figure) in figures {
            let scale =
                |value: f64| LABEL as f64 + (WIDTH - LABEL - 190) as f64 * (value / most).max(0.0);
            let (end, low, high) = (
                scale(figure.median()),
                scale(figure.lowest()),
                scale(figure.highest()),
            );
            let colour = COLOURS[place % COLOURS.len()];
            // Writing to a string does not fail.
            let _ = write!(
                body,
                "<rect x='{LABEL}' y='{y}' width='{:.1}' height='{}' fill='{colour}'/>\
                 <line x1='{low:.1}' x2='{high:.1}' y1='{middle}' y2='{middle}' stroke='#000'/>",
                (end - LABEL as f64).max(1.0),
                BAR - 3,
                middle = y + BAR / 2 - 1,
            );
            let text = format!("{} {}", number(figure.median()), figure.system);
            line(&mut body, high as usize + 6, y + BAR - 5, "#444", &text);
            y += BAR;
        }
        y += GAP;
    }
    format!(
        "<svg xmlns='http://www.w3.org/2000/svg' width='{WIDTH}' height='{y}' font-family='sans-serif' font-size='11'>\
         <rect width='100%' height='100%' fill='#fff'/>\
         <text x='10' y='18' font-size='14' font-weight='bold'>{workload}: median of the rounds, line from lowest to highest</text>\
         {body}</svg>\n"
    )
}

fn line(body: &mut String, x: usize, y: usize, colour: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let _ = write!(body, "<text x='{x}' y='{y}' fill='{colour}'>{text}</text>");
}
