//! The README's table of limits and the constants say the same, and no limit of the login pages is left out of it.

use std::collections::BTreeSet;

use regex::Regex;

use crate::fixture;

/// A constant as the table names it, and what the table says of it.
#[derive(Debug)]
struct Row {
    file: String,
    name: String,
    said: f64,
}

#[test]
fn the_table_says_what_the_constants_are() {
    let rows = rows();
    assert!(rows.len() > 60, "{} constants", rows.len());
    let mut wrong = Vec::new();
    for Row { file, name, said } in &rows {
        let text = std::fs::read_to_string(fixture::root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        match value(&text, name) {
            Some(is) if is == *said => {}
            is => wrong.push(format!("{file}: {name} is {is:?}, and the README says {said}")),
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_limit_of_the_login_pages_stands_in_the_table() {
    const FILE: &str = "src/server/web/limits.rs";
    let text = std::fs::read_to_string(fixture::root().join(FILE)).unwrap();
    let constants = Regex::new(r"(?m)^pub\(super\) const ([A-Z_]+):").unwrap();
    let wanted: BTreeSet<String> = constants.captures_iter(&text).map(|found| found[1].to_owned()).collect();
    assert!(wanted.len() > 15, "{wanted:?}");
    let told: BTreeSet<String> = rows().into_iter().filter(|row| row.file == FILE).map(|row| row.name).collect();
    assert_eq!(wanted, told);
}

/// `| what | 64 KiB, 1 MiB | beyond it | `FILE`: `ONE`, `OTHER` |`: as many numbers as constants, in the same order.
fn rows() -> Vec<Row> {
    let readme = std::fs::read_to_string(fixture::root().join("README.md")).unwrap();
    let table = readme.split("<!-- limits: begin -->").nth(1).and_then(|rest| rest.split("<!-- limits: end -->").next()).unwrap();
    let names = Regex::new(r"`([^`]+)`").unwrap();
    let mut rows = Vec::new();
    for line in table.lines().filter(|line| line.contains("`: `")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [_, limit, _, constants] = cells.as_slice() else { panic!("four cells: {line}") };
        let numbers = numbers(limit);
        let mut file = String::new();
        let mut found = Vec::new();
        for name in names.captures_iter(constants) {
            if name[1].contains('/') { file = name[1].to_owned() } else { found.push((file.clone(), name[1].to_owned())) }
        }
        assert_eq!(numbers.len(), found.len(), "{line}");
        rows.extend(found.into_iter().zip(numbers).map(|((file, name), said)| Row { file, name, said }));
    }
    rows
}

/// Bytes, seconds or a count.
fn numbers(text: &str) -> Vec<f64> {
    let number = Regex::new(r"(\d[\d,]*\d|\d)(?: (KiB|MiB|GiB|ms|s|min|h|days))?(?:,|$)").unwrap();
    let scale = |unit: &str| match unit {
        "KiB" => 1024.0,
        "MiB" => 1024.0 * 1024.0,
        "GiB" => 1024.0 * 1024.0 * 1024.0,
        "ms" => 0.001,
        "min" => 60.0,
        "h" => 3600.0,
        "days" => 86400.0,
        _ => 1.0,
    };
    let read = |found: regex::Captures<'_>| {
        found[1].replace(',', "").parse::<f64>().unwrap() * found.get(2).map_or(1.0, |unit| scale(unit.as_str()))
    };
    number.captures_iter(text).map(read).collect()
}

/// `const NAME: TYPE = 64 * 1024;`, a field's `name: 1 << 20,`, or `name: 50000` of a YAML file.
fn value(text: &str, name: &str) -> Option<f64> {
    let line = Regex::new(&format!(r"(?m)\b{name}: (?:\w+ = )?([^;,}}\n]+)")).unwrap();
    let is_milliseconds = name.ends_with("MILLISECONDS");
    let found = line.captures_iter(text).find_map(|found| number(found[1].trim()));
    found.map(|value| if is_milliseconds { value / 1000.0 } else { value })
}

/// A number, a product, a shift, or a `Duration`.
fn number(text: &str) -> Option<f64> {
    if let Some(inner) = text.strip_prefix("Duration::from_secs(") {
        return number(inner.trim_end_matches(')'));
    }
    if let Some(inner) = text.strip_prefix("Duration::from_millis(") {
        return Some(number(inner.trim_end_matches(')'))? / 1000.0);
    }
    if let Some((left, right)) = text.split_once("<<") {
        return Some(number(left.trim())? * 2_f64.powf(number(right.trim())?));
    }
    text.split('*').map(|part| part.trim().replace('_', "").parse::<f64>().ok()).try_fold(1.0, |product, part| Some(product * part?))
}

#[test]
fn numbers_are_read_as_they_are_written() {
    assert_eq!(numbers("8,192, 600 ms"), [8192.0, 0.6]);
    assert_eq!(numbers("64 KiB, 1 MiB"), [65536.0, 1048576.0]);
    assert_eq!(numbers("10,000, 8, 60 s"), [10000.0, 8.0, 60.0]);
    assert_eq!(numbers("100"), [100.0]);
    assert_eq!(value("const A: usize = 64 * 1024;\nconst B: u64 = 1;", "A"), Some(65536.0));
    assert_eq!(value("const T: Duration = Duration::from_millis(600);", "T"), Some(0.6));
    assert_eq!(value("  pub streams: usize,\n  streams: 4096,", "streams"), Some(4096.0));
    assert_eq!(value("Self { names: 65_536, cost: 16 << 20 }", "cost"), Some((16 << 20) as f64));
    assert_eq!(value("const WAIT_MILLISECONDS: u32 = 1_000;", "WAIT_MILLISECONDS"), Some(1.0));
    assert_eq!(value("      max: 50000", "max"), Some(50000.0));
}
