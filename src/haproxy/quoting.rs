//! Values in haproxy.cfg, and which of them nobody is to see. Each stays the text that it is, wherever in the file it
//! stands (HAProxy's `configuration.txt`, section 2.2, "Quoting and escaping").
//!
//! While a template is rendered, what it writes is put between two marks; where those stand is known only once the whole
//! text is there: outside of quotes, inside of the author's own, or in a comment.

/// The marks around a value, from Unicode's private use. No value may have one.
const BEGIN: char = '\u{f8f0}';
const END: char = '\u{f8f1}';

/// Where a character stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Outside of quotes.
    Bare,
    /// Between double quotes, where HAProxy expands variables.
    Double,
    /// Between single quotes, where nothing is special.
    Single,
    /// Behind `#`.
    Comment,
}

/// A value, marked for [`settle`]. What has marks already, such as what a macro gives, is text of the template.
///
/// # Errors
/// If it has a character that no value may have.
pub(super) fn marked(text: &str) -> Result<String, &'static str> {
    if text.contains([BEGIN, END]) {
        return Ok(text.to_owned());
    }
    if text.chars().any(char::is_control) {
        return Err(
            "a value that is written has more than one line, or another control character; `lines(...)` writes lines",
        );
    }
    Ok(format!("{BEGIN}{text}{END}"))
}

/// A value as lines of their own.
///
/// # Errors
/// If it has a character that no line may have.
pub(super) fn lines(text: &str) -> Result<String, &'static str> {
    let is_wrong = |character: char| {
        character.is_control() && !matches!(character, '\n' | '\t')
            || matches!(character, BEGIN | END)
    };
    let text = text.replace("\r\n", "\n");
    match text.contains(is_wrong) {
        true => Err("lines hold a control character"),
        false => Ok(text),
    }
}

/// May this be a value at all?
pub(super) fn is_markable(text: &str) -> bool {
    !text.contains([BEGIN, END])
}

/// The text with its values as they have to be written where they stand.
pub(super) fn settle(text: &str) -> String {
    let mut settled = String::with_capacity(text.len());
    let mut place = Place::Bare;
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let after = &rest[first.len_utf8()..];
        if first == BEGIN {
            let (value, after) = after.split_once(END).unwrap_or((after, ""));
            // A value in a value, from a filter that went over a macro's text.
            let value: String = value.chars().filter(|c| *c != BEGIN).collect();
            write(&mut settled, place, &value);
            rest = after;
            continue;
        }
        settled.push(first);
        rest = after;
        place = match (place, first) {
            (_, '\n') => Place::Bare,
            // What is escaped is nothing special.
            (Place::Bare | Place::Double, '\\') => {
                let escaped = after.chars().next().filter(|c| *c != BEGIN);
                if let Some(escaped) = escaped {
                    settled.push(escaped);
                    rest = &after[escaped.len_utf8()..];
                }
                place
            }
            (Place::Bare, '"') => Place::Double,
            (Place::Bare, '\'') => Place::Single,
            (Place::Bare, '#') => Place::Comment,
            (Place::Double, '"') | (Place::Single, '\'') => Place::Bare,
            (place, _) => place,
        };
    }
    settled.retain(|character| !matches!(character, BEGIN | END));
    settled
}

/// Writes a value where it stands.
fn write(settled: &mut String, place: Place, value: &str) {
    match place {
        Place::Comment => settled.push_str(value),
        Place::Double => {
            for character in value.chars() {
                if matches!(character, '"' | '\\' | '$') {
                    settled.push('\\');
                }
                settled.push(character);
            }
        }
        Place::Single => settled.push_str(&value.replace('\'', "'\\''")),
        Place::Bare => {
            let special = |c: char| c.is_whitespace() || matches!(c, '\'' | '"' | '\\' | '#');
            match !value.is_empty() && !value.contains(special) {
                true => settled.push_str(value),
                // Nothing is special between single quotes but their end.
                false => {
                    settled.push('\'');
                    settled.push_str(&value.replace('\'', "'\\''"));
                    settled.push('\'');
                }
            }
        }
    }
}

/// The text of a configuration without its secrets, for people.
pub(super) fn hidden(text: &str) -> String {
    let hide = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let is_secret = |pair: &[&str]| {
            matches!(
                pair,
                ["stats", "auth"] | [_, "password" | "insecure-password"]
            )
        };
        match words.windows(2).position(is_secret) {
            Some(place) => {
                let indent = &line[..line.len() - line.trim_start().len()];
                format!("{indent}{} …\n", words[..place + 2].join(" "))
            }
            None => format!("{line}\n"),
        }
    };
    text.lines().map(hide).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The words of a line as HAProxy takes them apart, with variables expanded to `EXPANDED`.
    fn words(line: &str) -> Vec<String> {
        let (mut words, mut word, mut place) = (Vec::new(), None::<String>, Place::Bare);
        let mut rest = line.chars().peekable();
        while let Some(first) = rest.next() {
            match (place, first) {
                (Place::Bare, '#') => break,
                (Place::Bare, c) if c.is_ascii_whitespace() => words.extend(word.take()),
                (Place::Bare, '"') => {
                    (place, word) = (Place::Double, Some(word.unwrap_or_default()))
                }
                (Place::Bare, '\'') => {
                    (place, word) = (Place::Single, Some(word.unwrap_or_default()))
                }
                (Place::Double, '"') | (Place::Single, '\'') => place = Place::Bare,
                (Place::Bare | Place::Double, '\\') => {
                    word.get_or_insert_default().extend(rest.next());
                }
                (Place::Double, '$') => word.get_or_insert_default().push_str("EXPANDED"),
                (_, c) => word.get_or_insert_default().push(c),
            }
        }
        words.extend(word);
        words
    }

    fn rendered(before: &str, value: &str, after: &str) -> String {
        settle(&format!(
            "{before}{}{after}",
            marked(value).expect("a value")
        ))
    }

    #[test]
    fn values_stay_what_they_are_in_the_authors_quotes() {
        for value in [
            "plain",
            "",
            "two words",
            "${CONSUL_HTTP_TOKEN}",
            "\" if TRUE #",
            "' or '",
            "back\\slash\\",
            "#hash",
            "it's \"$X\"",
        ] {
            for (before, after) in [("acl a ", ""), ("acl a \"", "\""), ("acl a '", "'")] {
                let line = rendered(before, value, &format!("{after} next"));
                assert_eq!(words(&line), ["acl", "a", value, "next"], "{line}");
            }
            let line = rendered("log-format \"<", value, ">\" x");
            assert_eq!(
                words(&line),
                ["log-format", &format!("<{value}>"), "x"],
                "{line}"
            );
            let line = rendered("acl a # of ", value, "");
            assert_eq!(words(&line), ["acl", "a"], "{line}");
        }
        // Quotes of a line before, and what the author escaped.
        assert_eq!(
            rendered("# it's\nmaxconn ", "a b", "\n"),
            "# it's\nmaxconn 'a b'\n"
        );
        assert_eq!(rendered("acl a \\\" ", "a b", ""), "acl a \\\" 'a b'");
    }

    #[test]
    fn what_a_macro_gives_is_not_quoted_twice() {
        let inner = marked("a b").expect("a value");
        let macros = format!("server x {inner}");
        assert_eq!(settle(&marked(&macros).expect("text")), "server x 'a b'");
        assert!(marked("a\nb").is_err() && marked("a\u{0}").is_err());
        assert_eq!(lines("a\r\n\tb"), Ok("a\n\tb".to_owned()));
        assert!(lines("a\u{0}").is_err());
    }

    #[test]
    fn secrets_are_hidden_with_all_that_follows() {
        for (line, shown) in [
            ("    stats auth me:secret", "    stats auth …"),
            (
                "  user me password $5$secret groups g",
                "  user me password …",
            ),
            (
                "  user me insecure-password 'my secret'",
                "  user me insecure-password …",
            ),
            ("  stats enable", "  stats enable"),
        ] {
            assert_eq!(hidden(line), format!("{shown}\n"));
        }
    }

    proptest! {
        /// Whatever a value is, it is one word and nothing of it is expanded.
        #[test]
        fn any_value_is_one_word(value in "[ -~äß€]{0,20}", quote in 0..3_usize) {
            let quote = ["", "\"", "'"][quote];
            let line = rendered(&format!("use {quote}"), &value, &format!("{quote} end"));
            prop_assert_eq!(words(&line), ["use", &value, "end"]);
        }
    }
}
