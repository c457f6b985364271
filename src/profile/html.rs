//! A profile as one page that needs nothing else: no network, light and dark, readable on paper.

use super::report::Profile;
use super::text;

const PAGE: &str = include_str!("page.html");

/// The page.
pub fn page(p: &Profile) -> String {
    // Within a script, "</script>" would end it, wherever it stands.
    let data = serde_json::to_string(p).expect("plain data").replace("</", "<\\/");
    PAGE.replace("{{title}}", &escaped(&p.subject.recipe))
        .replace("{{verdict}}", &escaped(&text::verdict(p)))
        .replace("{{data}}", &data)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_no_markup() {
        assert_eq!(escaped("a<b>&\"c\""), "a&lt;b&gt;&amp;&quot;c&quot;");
    }
}
