//! HTML that is also well-formed XML: every element is closed, every attribute quoted, all text escaped.

use crate::watch::panels::Image;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Text as it may stand between tags and in quoted attributes. Characters that XML has no place for become U+FFFD.
pub fn text(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    for c in raw.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// A picture inside the page.
pub fn picture(png: &[u8], alt: &str) -> String {
    format!("<img alt=\"{}\" src=\"data:image/png;base64,{}\"/>", text(alt), STANDARD.encode(png))
}

/// A drawn picture inside the page.
pub fn image(image: &Image, alt: &str) -> crate::error::Result<String> {
    Ok(picture(&image.png()?, alt))
}

/// A cell of a table that sorts by its number.
pub fn number(value: Option<f64>) -> String {
    match value {
        Some(v) => format!("<td class=\"n\" data-v=\"{v}\">{}</td>", crate::metrics::case::short(v)),
        None => "<td class=\"n\" data-v=\"\">–</td>".into(),
    }
}

/// A table of two columns: names and what belongs to them.
pub fn facts(rows: &[(&str, String)]) -> String {
    let row =
        |(name, value): &(&str, String)| format!("<tr><th>{}</th><td>{}</td></tr>", text(name), text(value));
    format!("<table class=\"facts\"><tbody>{}</tbody></table>", rows.iter().map(row).collect::<String>())
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_could_be_markup_is_text() {
        assert_eq!(super::text("a<b>&\"c\"\u{1}\n"), "a&lt;b&gt;&amp;&quot;c&quot;\u{fffd}\n");
        assert_eq!(super::number(Some(0.25)), "<td class=\"n\" data-v=\"0.25\">0.2500</td>");
    }
}
