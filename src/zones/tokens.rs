//! Master file text -> entries: the lexical half of RFC 1035 section 5.1.
//!
//! Hickory has a lexer of its own, but it reads quoted strings inside parentheses as several words
//! (a DKIM key would be served broken), silently drops an entry whose parenthesis is never closed,
//! and does not say on which line it stopped. So the text is cut up here, and hickory gets the data
//! of one record at a time.

use std::str::Chars;

/// What is wrong with a master file, and on which line (counted from 1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// The line on which the faulty entry, string or parenthesis starts.
    pub(super) line: usize,
    /// One sentence for a person.
    pub(super) message: String,
}

/// One word of an entry. Escapes (`\.`, `\034`) are still in it: only the reader of the word knows
/// whether an escaped dot is part of a label or plain text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    /// The characters, without the enclosing quotes.
    pub(super) text: String,
    /// Was it written in quotes? Then `@` and `$` mean nothing special in it.
    pub(super) quoted: bool,
}

impl Token {
    /// Does an entry that starts with it tell how to read those that follow?
    pub(super) fn is_directive(&self) -> bool {
        !self.quoted && self.text.starts_with('$')
    }
}

/// One entry: a directive or a record. Parentheses may spread it over several lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// The line it starts on, counted from 1.
    pub(super) line: usize,
    /// Starts with blank space: the owner is that of the record before it.
    pub(super) indented: bool,
    /// Its words; never empty.
    pub(super) tokens: Vec<Token>,
}

/// The entries of a text, one after the other. It ends after the first fault.
pub(super) struct Entries<'a> {
    rest: Chars<'a>,
    line: usize,
    failed: bool,
}

impl<'a> Entries<'a> {
    /// Starts at the top of `text`. A byte order mark is skipped.
    pub(super) fn new(text: &'a str) -> Self {
        Self {
            rest: text.trim_start_matches('\u{feff}').chars(),
            line: 1,
            failed: false,
        }
    }

    fn peek(&self) -> Option<char> {
        self.rest.clone().next()
    }

    fn advance(&mut self) -> Option<char> {
        let c = self.rest.next();
        if c == Some('\n') {
            self.line += 1;
        }
        c
    }

    fn fault<T>(&self, message: impl Into<String>) -> Result<T, Fault> {
        Err(Fault {
            line: self.line,
            message: message.into(),
        })
    }

    fn skip_comment(&mut self) {
        while self.peek().is_some_and(|c| c != '\n') {
            self.advance();
        }
    }

    /// The next entry; `None` at the end of the text.
    fn entry(&mut self) -> Result<Option<Entry>, Fault> {
        let mut entry = Entry {
            line: self.line,
            indented: false,
            tokens: Vec::new(),
        };
        let mut at_start = true;
        let mut open: Option<usize> = None;
        loop {
            let Some(c) = self.peek() else {
                if let Some(line) = open {
                    return Err(Fault {
                        line,
                        message: "the parenthesis opened here is never closed".to_owned(),
                    });
                }
                return Ok((!entry.tokens.is_empty()).then_some(entry));
            };
            match c {
                '\n' => {
                    self.advance();
                    if open.is_some() {
                        continue;
                    }
                    if !entry.tokens.is_empty() {
                        return Ok(Some(entry));
                    }
                    // A blank line: what follows is a new entry.
                    entry.line = self.line;
                    entry.indented = false;
                    at_start = true;
                    continue;
                }
                ';' => self.skip_comment(),
                ' ' | '\t' | '\r' => {
                    if at_start {
                        entry.indented = true;
                    }
                    self.advance();
                }
                '(' => {
                    if open.is_some() {
                        return self.fault("a parenthesis inside a parenthesis");
                    }
                    open = Some(self.line);
                    self.advance();
                }
                ')' => {
                    if open.take().is_none() {
                        return self.fault("a closing parenthesis without an opening one");
                    }
                    self.advance();
                }
                '"' => {
                    self.advance();
                    let mut text = String::new();
                    self.quoted(&mut text)?;
                    entry.tokens.push(Token { text, quoted: true });
                }
                _ => {
                    let text = self.word()?;
                    entry.tokens.push(Token {
                        text,
                        quoted: false,
                    });
                }
            }
            at_start = false;
        }
    }

    /// The rest of a quoted string, behind its opening quote.
    fn quoted(&mut self, into: &mut String) -> Result<(), Fault> {
        loop {
            match self.peek() {
                Some('"') => {
                    self.advance();
                    return Ok(());
                }
                Some('\\') => self.escape(into)?,
                // RFC 1035 would allow a line break in here. In practice it is a forgotten quote,
                // and to go on would report the error a hundred lines too late.
                None | Some('\n') => {
                    return self.fault("the quoted string is not closed on its line");
                }
                Some(c) => {
                    into.push(c);
                    self.advance();
                }
            }
        }
    }

    /// A word without quotes around it; `key="a b"` (RFC 9460 section 2.1) is one word.
    fn word(&mut self) -> Result<String, Fault> {
        let mut text = String::new();
        loop {
            match self.peek() {
                None | Some('\n' | '\r' | ' ' | '\t' | ';' | '(' | ')') => return Ok(text),
                Some('\\') => self.escape(&mut text)?,
                Some('"') => {
                    self.advance();
                    self.quoted(&mut text)?;
                }
                Some(c) if c.is_control() => {
                    return self.fault(format!("a control character ({:#04x})", u32::from(c)));
                }
                Some(c) => {
                    text.push(c);
                    self.advance();
                }
            }
        }
    }

    /// Copies a backslash and the character behind it, which so loses its special meaning here.
    fn escape(&mut self, into: &mut String) -> Result<(), Fault> {
        self.advance();
        match self.peek() {
            None | Some('\n' | '\r') => self.fault("a backslash at the end of the line"),
            Some(c) => {
                into.push('\\');
                into.push(c);
                self.advance();
                Ok(())
            }
        }
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<Entry, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.entry().transpose();
        self.failed = matches!(next, Some(Err(_)));
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<(usize, bool, Vec<String>)> {
        Entries::new(text)
            .map(|entry| entry.expect("the text is good"))
            .map(|e| {
                let words = e.tokens.into_iter().map(|t| t.text).collect();
                (e.line, e.indented, words)
            })
            .collect()
    }

    fn fault(text: &str) -> Fault {
        Entries::new(text)
            .find_map(Result::err)
            .expect("the text is faulty")
    }

    #[test]
    fn entries_know_their_line_and_whether_they_are_indented() {
        assert_eq!(
            words("; note\r\n\r\n@ A 1 ; x\n\tB 2\n   ; only a comment\nlast C"),
            vec![
                (3, false, vec!["@".into(), "A".into(), "1".into()]),
                (4, true, vec!["B".into(), "2".into()]),
                (6, false, vec!["last".into(), "C".into()]),
            ]
        );
    }

    #[test]
    fn parentheses_join_lines_and_keep_quoted_strings_whole() {
        assert_eq!(
            words("k TXT ( \"v=DKIM1; k=rsa\" ; the key\n  \"p=a (b) c\" )\nn A 1"),
            vec![
                (
                    1,
                    false,
                    vec![
                        "k".into(),
                        "TXT".into(),
                        "v=DKIM1; k=rsa".into(),
                        "p=a (b) c".into()
                    ]
                ),
                (3, false, vec!["n".into(), "A".into(), "1".into()]),
            ]
        );
    }

    #[test]
    fn escapes_hide_what_follows_and_stay() {
        assert_eq!(
            words("a\\;b\\ c x=\"1 2\""),
            vec![(1, false, vec!["a\\;b\\ c".into(), "x=1 2".into()])]
        );
    }

    #[test]
    fn faults_name_the_line_they_start_on() {
        assert_eq!(fault("a A 1\nb TXT (\n\"x\"\n").line, 2);
        assert_eq!(fault("a A 1\nb TXT \"x\nc A 1\n").line, 2);
        assert_eq!(fault("a ) b").line, 1);
        assert_eq!(fault("a (( b").line, 1);
        assert_eq!(fault("a\n\nb\\\nc").line, 3);
        assert_eq!(fault("a\u{0}b").line, 1);
    }
}
