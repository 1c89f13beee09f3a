//! Field and label selectors, as far as they change a request's name: `k8s.io/apimachinery` `fields.ParseSelector` and `labels.Parse`.

use super::Ambiguous;

/// The value of `metadata.name=VALUE` when the API server takes it as the request's name.
///
/// # Errors
/// Two different names in one selector (the API server would choose by sorting), and a name with control characters.
pub(super) fn exact_name(field_selector: &str) -> Result<Option<String>, Ambiguous> {
    let mut found: Option<String> = None;
    for term in split_terms(field_selector).filter(|term| !term.is_empty()) {
        // A selector that cannot be parsed is none to the API server, which then answers 400.
        let Some((field, is_equality, raw_value)) = split_term(term) else { return Ok(None) };
        let Some(value) = unescape_value(raw_value) else { return Ok(None) };
        if field != "metadata.name" || !is_equality {
            continue;
        }
        match &found {
            Some(other) if *other != value => return Err(Ambiguous::Selector("fieldSelector")),
            _ => found = Some(value),
        }
    }
    match found {
        Some(name) if name.chars().any(char::is_control) => Err(Ambiguous::Selector("fieldSelector")),
        found => Ok(found.filter(|name| !name.contains(['/', '%']) && name != "." && name != "..")),
    }
}

/// At commas that no backslash escapes; escapes stay in the terms.
fn split_terms(selector: &str) -> impl Iterator<Item = &str> {
    let mut escaped = false;
    selector.split(move |character| {
        let is_separator = character == ',' && !escaped;
        escaped = character == '\\' && !escaped;
        is_separator
    })
}

/// Field, whether the operator is `=` or `==`, and the value as written.
fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    let equals = term.find('=')?;
    let (left, right) = (term.get(..equals)?, term.get(equals..)?.strip_prefix('=')?);
    match left.strip_suffix('!') {
        Some(field) => Some((field, false, right)),
        None => Some((left, true, right.strip_prefix('=').unwrap_or(right))),
    }
}

fn unescape_value(raw: &str) -> Option<String> {
    let mut value = String::with_capacity(raw.len());
    let mut characters = raw.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => value.push(characters.next().filter(|next| matches!(next, '\\' | ',' | '='))?),
            ',' | '=' => return None,
            other => value.push(other),
        }
    }
    Some(value)
}

/// Whether the API server can surely parse this label selector.
pub(super) fn is_label_selector(selector: &str) -> bool {
    let mut rest = Tokens { rest: selector };
    if rest.peek() == Some(Token::End) {
        return true;
    }
    loop {
        if requirement(&mut rest).is_none() {
            return false;
        }
        match rest.next() {
            Some(Token::End) => return true,
            Some(Token::Symbol(",")) => {}
            _ => return false,
        }
    }
}

fn requirement(tokens: &mut Tokens<'_>) -> Option<()> {
    if tokens.take_symbol("!") {
        return key(tokens);
    }
    key(tokens)?;
    match tokens.peek()? {
        Token::End | Token::Symbol(",") => return Some(()),
        _ => {}
    }
    match tokens.next()? {
        Token::Symbol("=" | "==" | "!=") => match tokens.peek()? {
            Token::End | Token::Symbol(",") => Some(()),
            _ => value(tokens).map(|_| ()),
        },
        Token::Symbol("<" | ">") => value(tokens)?.parse::<i64>().ok().map(|_| ()),
        Token::Word("in" | "notin") => values(tokens),
        _ => None,
    }
}

/// `(a,b)`; any of the values may be empty.
fn values(tokens: &mut Tokens<'_>) -> Option<()> {
    if !tokens.take_symbol("(") {
        return None;
    }
    loop {
        if let Token::Word(_) = tokens.peek()? {
            value(tokens)?;
        }
        match tokens.next()? {
            Token::Symbol(",") => {}
            Token::Symbol(")") => return Some(()),
            _ => return None,
        }
    }
}

fn key(tokens: &mut Tokens<'_>) -> Option<()> {
    let Token::Word(key) = tokens.next()? else { return None };
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    (is_label_part(name) && prefix.is_none_or(is_dns_subdomain)).then_some(())
}

fn value<'a>(tokens: &mut Tokens<'a>) -> Option<&'a str> {
    match tokens.next()? {
        Token::Word(value) if is_label_part(value) => Some(value),
        _ => None,
    }
}

/// At most 63 of letters, digits, `-`, `_`, `.`, with a letter or digit at both ends.
fn is_label_part(text: &str) -> bool {
    let ends_well = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    let inner = bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    bytes.len() <= 63 && inner && ends_well(bytes.first()) && ends_well(bytes.last())
}

fn is_dns_subdomain(text: &str) -> bool {
    let is_label = |label: &str| {
        let inner = label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        !label.is_empty() && inner && !label.starts_with('-') && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Symbol(&'a str),
    End,
}

/// The lexer of `labels.Parse`; `None` on what is certainly no token.
struct Tokens<'a> {
    rest: &'a str,
}

impl<'a> Tokens<'a> {
    fn peek(&self) -> Option<Token<'a>> {
        Tokens { rest: self.rest }.next()
    }

    fn take_symbol(&mut self, symbol: &str) -> bool {
        let is_next = self.peek() == Some(Token::Symbol(symbol));
        if is_next {
            self.next();
        }
        is_next
    }

    fn next(&mut self) -> Option<Token<'a>> {
        let text = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
        if text.is_empty() {
            self.rest = text;
            return Some(Token::End);
        }
        let symbol = ["==", "!=", "=", "!", "<", ">", "(", ")", ","].into_iter().find(|symbol| text.starts_with(symbol));
        let length = match symbol {
            Some(symbol) => symbol.len(),
            None => text.find([' ', '\t', '\r', '\n', '=', '!', '(', ')', ',', '<', '>']).unwrap_or(text.len()),
        };
        let (token, rest) = text.split_at_checked(length)?;
        self.rest = rest;
        Some(if symbol.is_some() { Token::Symbol(token) } else { Token::Word(token) })
    }
}
