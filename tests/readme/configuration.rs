//! `docs/configuration.md` is made from the table of keys. To make it anew after a change of the table:
//!
//! ```sh
//! PORTOLAN_WRITE_DOCS=1 cargo test --test readme --features real-parts configuration
//! ```

use crate::{documents::root, snippets::CONFIGURATION};
use portolan::config::{KEYS, Key, Verb};
use std::fs;

/// Above each flag, what stands in the section of that name.
fn sections() -> [(&'static str, String); 3] {
    [
        ("flags", flags()),
        ("file", file()),
        ("variables", variables()),
    ]
}

fn flags() -> String {
    let mut table =
        String::from("| flag | commands | default | key and meaning |\n|---|---|---|---|\n");
    for key in KEYS {
        let Some(flag) = key.flag else { continue };
        let value = match flag.value {
            "" => String::new(),
            value => format!(" {}", value.replace('|', "\\|")),
        };
        let commands: Vec<String> = flag.verbs.iter().map(|verb| command(*verb)).collect();
        let commands = match commands.len() {
            4 => "all".to_owned(),
            _ => commands.join(", "),
        };
        let mut defaults: Vec<String> = key
            .default
            .filter(|_| !flag.value.is_empty())
            .map(|default| format!("`{default}`"))
            .into_iter()
            .collect();
        for verb in flag.verbs {
            let own = verb.defaults().iter().find(|(path, _)| *path == key.path);
            defaults.extend(own.map(|(_, default)| format!("{} `{default}`", command(*verb))));
        }
        let defaults = defaults.join("; ");
        let (name, help) = (flag.name, key.help);
        let path = match flag.value {
            "" => format!("{} = {}", key.path, key.turned_round()),
            _ => key.path.to_owned(),
        };
        table.push_str(&format!(
            "| `--{name}{value}` | {commands} | {defaults} | `{path}`: {help} |\n"
        ));
    }
    table
}

fn command(verb: Verb) -> String {
    format!("{verb:?}").to_lowercase().replacen("", "`", 1) + "`"
}

fn file() -> String {
    let mut text = String::from("```toml\n");
    let mut table = "";
    for key in KEYS {
        let (inside, name) = key.path.rsplit_once('.').unwrap_or(("", key.path));
        if inside != table {
            text.push_str(&format!("\n[{inside}]\n"));
            table = inside;
        }
        text.push_str(&comment(key));
        let (sign, value) = match (key.default, key.example) {
            (Some(default), _) => ("", default),
            (None, example) => ("#", example.expect("an example")),
        };
        text.push_str(&format!("{sign}{name} = {}\n", key.in_toml(value)));
    }
    text + "```\n"
}

/// The help in lines of a bearable length, and who else sets the key.
fn comment(key: &Key) -> String {
    let mut setters = Vec::new();
    setters.extend(key.flag.map(|flag| format!("--{}", flag.name)));
    setters.extend(key.variable.map(str::to_owned));
    let setters = match setters.is_empty() {
        true => String::new(),
        false => format!(" ({})", setters.join(", ")),
    };
    let (mut text, mut line) = (String::new(), String::from("#"));
    for word in format!("{}{setters}", key.help).split(' ') {
        if line.len() + word.len() > 100 {
            text.push_str(&format!("{line}\n"));
            line = String::from("#");
        }
        line.push_str(&format!(" {word}"));
    }
    text + &line + "\n"
}

fn variables() -> String {
    let with = KEYS.iter().filter_map(|key| Some((key.variable?, key)));
    let rows = with.map(|(variable, key)| format!("| `{variable}` | `{}` |\n", key.path));
    String::from("| variable | key |\n|---|---|\n") + &rows.collect::<String>()
}

#[test]
fn the_configuration_is_made_from_the_table_of_keys() {
    let path = root().join(CONFIGURATION);
    let before = fs::read_to_string(&path).expect("the document is there");
    let mut text = before.clone();
    for (name, made) in sections() {
        let [begin, end] = ["begin", "end"].map(|which| format!("<!-- {name}: {which} -->\n"));
        let (head, rest) = text.split_once(&begin).expect(&begin);
        let (_, tail) = rest.split_once(end.trim_end()).expect(&end);
        text = format!("{head}{begin}{made}{}{tail}", end.trim_end());
    }
    if std::env::var_os("PORTOLAN_WRITE_DOCS").is_some() {
        fs::write(&path, &text).expect("the document can be written");
        return;
    }
    assert_eq!(
        before, text,
        "{CONFIGURATION} is not what the table of keys makes; PORTOLAN_WRITE_DOCS=1 makes it anew"
    );
}
