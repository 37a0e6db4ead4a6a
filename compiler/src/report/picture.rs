//! The report as a picture: bars, in SVG.

use std::fmt::Write as _;

use super::CompileReport;

const WIDTH: f64 = 640.0;
const LABEL: f64 = 150.0;
const BAR: f64 = 360.0;
const LINE: f64 = 24.0;

/// A bar: what it is, its value, what is written behind it.
struct Bar {
    label: String,
    value: f64,
    text: String,
    colour: &'static str,
}

pub(super) fn draw(report: &CompileReport) -> String {
    let noise = report.noise_bits.iter().enumerate().map(|(index, &bits)| Bar {
        label: format!("degree {}", index + 1),
        value: bits,
        text: format!("{bits:.1} bits"),
        colour: "#4c78a8",
    });
    let room = Bar {
        label: "modulus, half".into(),
        value: report.available_bits(),
        text: format!("{:.1} bits", report.available_bits()),
        colour: "#bab0ac",
    };
    let noise: Vec<_> = noise.chain([room]).collect();
    let bytes = |label: &str, value: f64, colour| Bar {
        label: label.into(),
        value,
        text: format!("{value:.1} B"),
        colour,
    };
    let bytes = [
        bytes("upload", report.upload_bytes_per_row, "#f58518"),
        bytes("reply", report.reply_bytes_per_row, "#54a24b"),
    ];
    let mut body = String::new();
    let mut y = title(&mut body, 0.0, &format!("{}: noise by degree", report.class_name));
    y = bars(&mut body, y, &noise);
    y = title(&mut body, y, "Bytes of a row, in a full batch");
    y = bars(&mut body, y, &bytes);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n{body}</svg>\n",
        height = y + LINE / 2.0,
    )
}

fn text(svg: &mut String, x: f64, y: f64, weight: &str, text: &str) {
    let text = escape(text);
    // Writing to a string cannot fail.
    let _ = writeln!(svg, "<text x=\"{x}\" y=\"{y}\" font-weight=\"{weight}\">{text}</text>");
}

fn title(svg: &mut String, y: f64, title: &str) -> f64 {
    text(svg, 12.0, y + LINE, "bold", title);
    y + LINE + 8.0
}

/// Draws bars to one scale; returns where they end.
fn bars(svg: &mut String, mut y: f64, bars: &[Bar]) -> f64 {
    let largest = bars.iter().map(|bar| bar.value).fold(f64::MIN_POSITIVE, f64::max);
    for bar in bars {
        let width = (BAR * bar.value.max(0.0) / largest).max(1.0);
        text(svg, 12.0, y + 16.0, "normal", &bar.label);
        let _ = writeln!(
            svg,
            "<rect x=\"{LABEL}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"14\" fill=\"{}\"/>",
            y + 5.0,
            bar.colour
        );
        text(svg, LABEL + width + 8.0, y + 16.0, "normal", &bar.text);
        y += LINE;
    }
    y
}

/// Text of a model's file as text of a picture. Control characters are none of XML.
fn escape(text: &str) -> String {
    let escape = |character: char| match character {
        '<' => "&lt;".into(),
        '>' => "&gt;".into(),
        '&' => "&amp;".into(),
        '"' => "&quot;".into(),
        control if control.is_control() || ('\u{fffe}'..='\u{ffff}').contains(&control) => {
            "\u{fffd}".into()
        }
        other => String::from(other),
    };
    text.chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_break_out_of_the_picture() {
        assert_eq!(escape("a<b>&\"\u{1b}é"), "a&lt;b&gt;&amp;&quot;\u{fffd}é");
    }
}
