//! Just enough of HTML to act on a page as a person would: its forms, links and text. Not a parser for anything but the tests' own pages.

/// A form with its fields as they would be sent untouched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Form {
    pub action: String,
    /// Upper case.
    pub method: String,
    pub id: String,
    pub fields: Vec<(String, String)>,
    /// Name, value and label of each submit button. A button without a name has an empty one.
    pub buttons: Vec<(String, String, String)>,
}

impl Form {
    pub fn value(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }
}

/// A link: target and text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub href: String,
    pub text: String,
}

struct Tag<'a> {
    name: String,
    attributes: Vec<(String, String)>,
    /// The text between this tag and the next one.
    after: &'a str,
}

impl Tag<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(attribute, _)| attribute == name).map(|(_, value)| value.as_str())
    }

    fn attribute(&self, name: &str) -> String {
        self.get(name).unwrap_or_default().to_owned()
    }
}

pub fn forms(html: &str) -> Vec<Form> {
    let mut forms: Vec<Form> = Vec::new();
    let mut open = false;
    for tag in tags(html) {
        match tag.name.as_str() {
            "form" => {
                open = true;
                let method = tag.get("method").unwrap_or("GET").to_ascii_uppercase();
                forms.push(Form { action: tag.attribute("action"), method, id: tag.attribute("id"), ..Form::default() });
            }
            "/form" => open = false,
            "input" | "button" | "select" | "option" if open => {
                let form = forms.last_mut().expect("a form is open");
                field(form, &tag);
            }
            _ => {}
        }
    }
    forms
}

fn field(form: &mut Form, tag: &Tag<'_>) {
    let (name, value) = (tag.attribute("name"), tag.attribute("value"));
    let kind = tag.get("type").unwrap_or(if tag.name == "button" { "submit" } else { "text" }).to_ascii_lowercase();
    match (tag.name.as_str(), kind.as_str()) {
        ("button", "submit") => form.buttons.push((name, value, decode(tag.after.trim()))),
        ("input", "submit") => form.buttons.push((name, value.clone(), value)),
        ("button", _) | ("input", "button" | "reset") => {}
        ("select", _) => form.fields.push((name, String::new())),
        ("option", _) => {
            if let Some(last) = form.fields.last_mut()
                && (last.1.is_empty() || tag.get("selected").is_some())
            {
                last.1 = value;
            }
        }
        ("input", "checkbox" | "radio") if tag.get("checked").is_none() => {}
        _ if name.is_empty() => {}
        _ => form.fields.push((name, value)),
    }
}

pub fn links(html: &str) -> Vec<Link> {
    let tags = tags(html);
    let mut links = Vec::new();
    for (index, tag) in tags.iter().enumerate().filter(|(_, tag)| tag.name == "a") {
        let inner = tags[index..].iter().take_while(|tag| tag.name != "/a").map(|tag| tag.after).collect::<String>();
        links.push(Link { href: tag.attribute("href"), text: squeeze(&decode(&inner)) });
    }
    links
}

/// What a person reads, with white space squeezed; style and script left out.
pub fn text(html: &str) -> String {
    let start = html.split('<').next().unwrap_or_default();
    let mut parts = vec![start.to_owned()];
    for tag in tags(html) {
        if !matches!(tag.name.as_str(), "style" | "script" | "title") {
            parts.push(decode(tag.after));
        }
    }
    squeeze(&parts.join(" "))
}

pub fn title(html: &str) -> String {
    tags(html).into_iter().find(|tag| tag.name == "title").map(|tag| squeeze(&decode(tag.after))).unwrap_or_default()
}

fn squeeze(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn tags(html: &str) -> Vec<Tag<'_>> {
    let mut tags = Vec::new();
    let mut rest = html;
    while let Some(start) = rest.find('<') {
        rest = &rest[start + 1..];
        if rest.starts_with("!--") {
            rest = rest.find("-->").map_or("", |end| &rest[end + 3..]);
            continue;
        }
        let end = tag_end(rest);
        let (inside, after) = (&rest[..end], rest.get(end + 1..).unwrap_or_default());
        let name: String = inside.chars().take_while(|c| !c.is_whitespace()).collect::<String>().trim_end_matches('/').to_ascii_lowercase();
        let until = if matches!(name.as_str(), "script" | "style") { after.find("</") } else { after.find('<') };
        let attributes = attributes(&inside[inside.find(char::is_whitespace).unwrap_or(inside.len())..]);
        tags.push(Tag { name, attributes, after: &after[..until.unwrap_or(after.len())] });
        rest = &after[until.unwrap_or(after.len())..];
    }
    tags
}

/// The place of the `>` that closes a tag; one inside quotes does not.
fn tag_end(rest: &str) -> usize {
    let mut quote = None;
    for (place, c) in rest.char_indices() {
        match (quote, c) {
            (None, '>') => return place,
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            _ => {}
        }
    }
    rest.len()
}

fn attributes(mut text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    loop {
        text = text.trim_start_matches(|c: char| c.is_whitespace() || c == '/');
        let length = text.find(|c: char| c.is_whitespace() || c == '=').unwrap_or(text.len());
        if length == 0 {
            return found;
        }
        let name = text[..length].to_ascii_lowercase();
        text = text[length..].trim_start();
        let Some(value) = text.strip_prefix('=') else {
            found.push((name, String::new()));
            continue;
        };
        let value = value.trim_start();
        let (value, rest) = match value.chars().next() {
            Some(quote @ ('"' | '\'')) => value[1..].split_once(quote).unwrap_or((&value[1..], "")),
            _ => value.split_at(value.find(char::is_whitespace).unwrap_or(value.len())),
        };
        found.push((name, decode(value)));
        text = rest;
    }
}

/// Character references, those that pages here use.
fn decode(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find('&') {
        out.push_str(&rest[..start]);
        rest = &rest[start..];
        let decoded = rest.find(';').and_then(|end| Some((reference(&rest[1..end])?, end)));
        let (c, end) = decoded.unwrap_or(('&', 0));
        out.push(c);
        rest = &rest[end + 1..];
    }
    out.push_str(rest);
    out
}

fn reference(name: &str) -> Option<char> {
    match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        "nbsp" => Some(' '),
        _ => {
            let digits = name.strip_prefix('#')?;
            let code = match digits.strip_prefix(['x', 'X']) {
                Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                None => digits.parse().ok()?,
            };
            char::from_u32(code)
        }
    }
}
