//! The plan for people.

use super::plan::Step;

const HEAD: [&str; 5] = ["ACTION", "SERVICE", "ID", "ADDRESS", "WHY"];

/// The steps as a table, with a line for each and one that names the columns.
pub fn table(steps: &[Step]) -> String {
    let head = HEAD.map(str::to_owned);
    let rows = steps.iter().map(|step| {
        [
            step.action.to_string(),
            step.service.clone(),
            step.id.clone(),
            step.address.clone(),
            step.why.to_string(),
        ]
    });
    let rows: Vec<[String; 5]> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| {
        let widths = rows.iter().map(|row| row[column].chars().count());
        widths.max().unwrap_or_default()
    };
    let widths: [usize; 5] = std::array::from_fn(width);
    let line = |row: &[String; 5]| {
        let cells = row.iter().zip(widths);
        let cells: String = cells
            .map(|(cell, width)| format!("{cell:width$}  "))
            .collect();
        format!("{}\n", cells.trim_end())
    };
    rows.iter().map(line).collect()
}
