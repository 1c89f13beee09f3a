//! A first look at the text of an expression: bounds its size, nesting and chain lengths, and finds the mistakes that the parser would
//! report in its own words only (an open quote, a missing bracket, `=` for `==`).
//!
//! Parser, checker and evaluator all recurse along the syntax tree, and a stack overflow ends the process: what passes here is shallow
//! enough to be evaluated in a thread with 1.5 MiB of stack, debug builds included (a test holds that).

use super::error::CompileError;

/// Longest source, in bytes.
pub(super) const MAX_BYTES: usize = 8 * 1024;
/// Most words, numbers, texts and signs.
const MAX_TOKENS: usize = 1500;
/// Deepest nesting of brackets.
const MAX_BRACKETS: usize = 12;
/// Longest run of `+ - * / %`, comparisons and `! -` signs without `&&`, `||`, `,` or a bracket between them.
const MAX_OPERATORS: u32 = 16;
/// Longest run of `.field`, `.call()` and `[index]`.
const MAX_STEPS: u32 = 12;
/// Most `? :` in one bracket.
const MAX_CONDITIONS: u32 = 8;
/// Bound of the estimated depth of the tree, all of the above together.
const MAX_DEPTH: u32 = 24;

/// # Errors
/// The first fault.
pub(super) fn scan(source: &str) -> Result<(), CompileError> {
    if source.len() > MAX_BYTES {
        let message = format!("the expression has {} bytes; at most {MAX_BYTES} are allowed", source.len());
        return Err(CompileError { message, line: 1, column: 1, hint: Some("split it over several rules".to_owned()) });
    }
    let mut nesting = Nesting::new();
    let mut lexer = Lexer { source, position: 0 };
    let mut count = 0;
    while let Some(token) = lexer.next_token()? {
        count += 1;
        if count > MAX_TOKENS {
            return Err(too_much(source, token.start, format!("the expression is longer than {MAX_TOKENS} words and signs")));
        }
        nesting.take(source, &token)?;
    }
    nesting.finish(source, count)
}

/// Line and column (characters, from 1) of a byte offset.
pub(super) fn place(source: &str, offset: usize) -> (usize, usize) {
    let end = (0..=offset.min(source.len())).rev().find(|end| source.is_char_boundary(*end)).unwrap_or(0);
    let before = source.get(..end).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}

pub(super) fn fault(source: &str, offset: usize, message: impl Into<String>, hint: Option<&str>) -> CompileError {
    let (line, column) = place(source, offset);
    CompileError { message: message.into(), line, column, hint: hint.map(str::to_owned) }
}

fn too_much(source: &str, offset: usize, message: String) -> CompileError {
    fault(source, offset, message, Some("split it over several rules"))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A name, number or text.
    Operand,
    Open,
    Close,
    Comma,
    Dot,
    Question,
    Colon,
    /// `&&`, `||`.
    Logic,
    /// Any other operator.
    Operator,
}

#[derive(Debug, Clone, Copy)]
struct Token<'s> {
    kind: Kind,
    start: usize,
    text: &'s str,
}

struct Lexer<'s> {
    source: &'s str,
    position: usize,
}

impl<'s> Lexer<'s> {
    fn rest(&self) -> &'s str {
        self.source.get(self.position..).unwrap_or_default()
    }

    fn next_token(&mut self) -> Result<Option<Token<'s>>, CompileError> {
        self.skip_blanks();
        let rest = self.rest();
        let Some(first) = rest.chars().next() else { return Ok(None) };
        let start = self.position;
        let (kind, length) = match first {
            _ if string_start(rest).is_some() => (Kind::Operand, self.text_length()?),
            'a'..='z' | 'A'..='Z' | '_' => {
                let length = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
                (self.word_kind(rest.get(..length).unwrap_or_default())?, length)
            }
            '0'..='9' => (Kind::Operand, rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '.')).unwrap_or(rest.len())),
            _ => self.sign(rest, first)?,
        };
        self.position += length;
        Ok(Some(Token { kind, start, text: rest.get(..length).unwrap_or_default() }))
    }

    fn skip_blanks(&mut self) {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start_matches([' ', '\t', '\r', '\n', '\u{c}']);
            let after = match trimmed.strip_prefix("//") {
                Some(comment) => comment.find('\n').map_or("", |end| comment.get(end..).unwrap_or_default()),
                None => trimmed,
            };
            self.position += rest.len() - after.len();
            if after.len() == trimmed.len() {
                return;
            }
        }
    }

    /// Words of other languages that stand where an operator should.
    fn word_kind(&self, word: &str) -> Result<Kind, CompileError> {
        let instead = match word {
            "in" => return Ok(Kind::Operator),
            "and" | "AND" => "&&",
            "or" | "OR" => "||",
            "not" | "NOT" => "!",
            _ => return Ok(Kind::Operand),
        };
        // `.or(...)` is a function of optional values.
        if self.source.get(..self.position).unwrap_or_default().trim_end().ends_with('.') {
            return Ok(Kind::Operand);
        }
        Err(fault(self.source, self.position, format!("`{word}` is not a word of this language"), Some(&format!("use `{instead}`"))))
    }

    fn sign(&self, rest: &str, first: char) -> Result<(Kind, usize), CompileError> {
        let two = rest.get(..2).unwrap_or_default();
        match two {
            "&&" | "||" => return Ok((Kind::Logic, 2)),
            "==" | "!=" | "<=" | ">=" => return Ok((Kind::Operator, 2)),
            _ => {}
        }
        let kind = match first {
            '(' | '[' | '{' => Kind::Open,
            ')' | ']' | '}' => Kind::Close,
            ',' => Kind::Comma,
            '.' => Kind::Dot,
            '?' => Kind::Question,
            ':' => Kind::Colon,
            '<' | '>' | '+' | '-' | '*' | '/' | '%' | '!' => Kind::Operator,
            _ => {
                let hint = match first {
                    '=' => Some("use `==` to compare"),
                    '&' => Some("use `&&`"),
                    '|' => Some("use `||`"),
                    '\u{2018}'..='\u{201f}' => Some("use straight quotes: \" or '"),
                    '`' => Some("use [\"...\"] for a key that is not a plain name"),
                    _ => None,
                };
                return Err(fault(self.source, self.position, format!("`{}` is not a sign of this language", first.escape_debug()), hint));
            }
        };
        Ok((kind, first.len_utf8()))
    }

    /// Length in bytes of the text (string) that begins here.
    fn text_length(&self) -> Result<usize, CompileError> {
        let rest = self.rest();
        let Some((prefix, raw)) = string_start(rest) else { return Ok(0) };
        let body = rest.get(prefix..).unwrap_or_default();
        let quote = ["\"\"\"", "'''", "\"", "'"].into_iter().find(|quote| body.starts_with(quote)).unwrap_or("\"");
        let mut escaped = false;
        for (index, letter) in body.char_indices().skip(quote.len()) {
            let at = body.get(index..).unwrap_or_default();
            if escaped {
                escaped = false;
            } else if letter == '\\' && !raw {
                escaped = true;
            } else if at.starts_with(quote) {
                return Ok(prefix + index + quote.len());
            } else if quote.len() == 1 && (letter == '\n' || letter == '\r') {
                break;
            }
        }
        Err(fault(self.source, self.position, format!("the text that begins here has no closing {quote}"), None))
    }
}

/// Where a string begins: the length of its prefix, and whether it is raw.
fn string_start(rest: &str) -> Option<(usize, bool)> {
    let prefix = rest.find(['"', '\'']).filter(|length| *length <= 2)?;
    match rest.get(..prefix)? {
        "" | "b" | "B" => Some((prefix, false)),
        "r" | "R" | "br" | "bR" | "Br" | "BR" => Some((prefix, true)),
        _ => None,
    }
}

/// One open bracket, and what was counted in it since.
#[derive(Debug, Clone)]
struct Level {
    bracket: char,
    start: usize,
    /// Whether it is a call or an index rather than a group, a list or a map.
    postfix: bool,
    /// Since the last `&&`, `||`, `,`, `?` or `:`.
    operators: u32,
    /// Of the operand that is being read.
    steps: u32,
    operand: u32,
    /// The deepest operand since the last `&&`, ...
    deepest_operand: u32,
    /// The deepest part of the whole level.
    deepest: u32,
    conditions: u32,
    logic: u32,
}

impl Level {
    fn new(bracket: char, start: usize, postfix: bool) -> Self {
        let (operators, steps, operand, deepest_operand) = (0, 0, 0, 0);
        Self { bracket, start, postfix, operators, steps, operand, deepest_operand, deepest: 0, conditions: 0, logic: 0 }
    }

    fn step(&mut self) {
        self.steps += 1;
        self.operand += 1;
    }

    fn end_operand(&mut self) {
        self.deepest_operand = self.deepest_operand.max(self.operand);
        (self.steps, self.operand) = (0, 0);
    }

    /// What follows stands beside this run of operators in the tree, not above or below it.
    fn end_run(&mut self) {
        self.end_operand();
        self.deepest = self.deepest.max(self.operators + self.deepest_operand);
        (self.operators, self.deepest_operand) = (0, 0);
    }

    fn depth(mut self) -> u32 {
        self.end_run();
        // Chains of `&&` and `||` become balanced trees.
        self.deepest + self.conditions + (u32::BITS - self.logic.leading_zeros())
    }
}

struct Nesting {
    base: Level,
    open: Vec<Level>,
    previous: Kind,
}

impl Nesting {
    fn new() -> Self {
        Self { base: Level::new(' ', 0, false), open: Vec::new(), previous: Kind::Comma }
    }

    fn level(&mut self) -> &mut Level {
        self.open.last_mut().unwrap_or(&mut self.base)
    }

    fn take(&mut self, source: &str, token: &Token<'_>) -> Result<(), CompileError> {
        let previous = std::mem::replace(&mut self.previous, token.kind);
        let after_operand = matches!(previous, Kind::Operand | Kind::Close);
        let level = self.level();
        match token.kind {
            Kind::Operand => level.operand = level.operand.max(1),
            Kind::Dot => level.step(),
            Kind::Comma | Kind::Colon => level.end_run(),
            Kind::Question if matches!(previous, Kind::Dot | Kind::Open) => {}
            Kind::Question => {
                level.end_run();
                level.conditions += 1;
            }
            Kind::Logic => {
                level.end_run();
                level.logic += 1;
            }
            Kind::Operator => {
                level.operators += 1;
                level.end_operand();
            }
            Kind::Open => {
                level.steps += u32::from(after_operand);
                self.open(source, token, after_operand)?;
            }
            Kind::Close => self.close(source, token)?,
        }
        self.check_level(source, token)
    }

    fn open(&mut self, source: &str, token: &Token<'_>, postfix: bool) -> Result<(), CompileError> {
        if self.open.len() >= MAX_BRACKETS {
            return Err(too_much(source, token.start, format!("brackets are nested deeper than {MAX_BRACKETS}")));
        }
        self.open.push(Level::new(token.text.chars().next().unwrap_or('('), token.start, postfix));
        Ok(())
    }

    fn close(&mut self, source: &str, token: &Token<'_>) -> Result<(), CompileError> {
        let Some(level) = self.open.pop() else {
            return Err(fault(source, token.start, format!("`{}` closes nothing", token.text), None));
        };
        let wanted = closing(level.bracket);
        if wanted != token.text {
            let (line, column) = place(source, level.start);
            let message = format!("`{}` does not close the `{}` of line {line}, column {column}", token.text, level.bracket);
            return Err(fault(source, token.start, message, Some(&format!("`{wanted}` is needed"))));
        }
        let (postfix, depth) = (level.postfix, level.depth());
        let parent = self.level();
        let before = if postfix { parent.operand } else { 0 };
        parent.operand = before.max(depth) + 1;
        Ok(())
    }

    fn check_level(&mut self, source: &str, token: &Token<'_>) -> Result<(), CompileError> {
        let level = self.level();
        let message = if level.operators > MAX_OPERATORS {
            format!("more than {MAX_OPERATORS} operators follow each other without `&&`, `||` or brackets")
        } else if level.steps > MAX_STEPS {
            format!("more than {MAX_STEPS} fields, calls and indexes follow each other")
        } else if level.conditions > MAX_CONDITIONS {
            format!("more than {MAX_CONDITIONS} `? :` stand in one expression")
        } else if level.clone().depth() > MAX_DEPTH {
            "the expression is nested too deeply".to_owned()
        } else {
            return Ok(());
        };
        Err(too_much(source, token.start, message))
    }

    fn finish(mut self, source: &str, tokens: usize) -> Result<(), CompileError> {
        if tokens == 0 {
            return Err(fault(source, 0, "the expression is empty", None));
        }
        match self.open.pop() {
            Some(level) => Err(fault(source, level.start, format!("`{}` is never closed", level.bracket), None)),
            None => Ok(()),
        }
    }
}

fn closing(bracket: char) -> &'static str {
    match bracket {
        '[' => "]",
        '{' => "}",
        _ => ")",
    }
}
