//! What stands between the marks of a call, once it is whole.

use serde_json::{Map, Value};

use super::{Tool, ToolFormat};

/// The longest block that is read: it is read again where a mark may end it.
pub(super) const MOST_BYTES: usize = 64 << 10;

/// A call: the tool's name and its arguments.
pub(super) type Call = (String, Value);

/// The calls of a whole block, and what stands behind them where a format has no mark for their end;
/// what is wrong with it where it is none.
pub(super) fn calls<'b>(
    format: ToolFormat,
    body: &'b str,
    tools: &[Tool],
) -> Result<(Vec<Call>, &'b str), String> {
    let body = body.trim_start();
    if body.len() > MOST_BYTES {
        return Err(format!("it is longer than {} KiB", MOST_BYTES >> 10));
    }
    let alone = |calls: Vec<Call>| (calls, "");
    let (calls, rest) = match format {
        ToolFormat::Xml if body.starts_with('<') => alone(xml(body.trim_end(), tools)?),
        ToolFormat::Json | ToolFormat::Xml => alone(json(body)?),
        ToolFormat::Llama => several(body)?,
        ToolFormat::Mistral if body.starts_with('[') => list(body)?,
        ToolFormat::Mistral => named(body)?,
        ToolFormat::Gemma => alone(gemma(body.trim_end())?),
    };
    if calls.is_empty() {
        return Err("there is no call in it".to_owned());
    }
    Ok((calls, rest))
}

/// An object, or a list of them.
fn json(body: &str) -> Result<Vec<Call>, String> {
    let value: Value = serde_json::from_str(body).map_err(|error| error.to_string())?;
    of_value(value)
}

fn of_value(value: Value) -> Result<Vec<Call>, String> {
    match value {
        Value::Array(calls) => calls.into_iter().map(call).collect(),
        value => Ok(vec![call(value)?]),
    }
}

/// The value that a text begins with, and what stands behind it.
fn first_value(text: &str) -> Result<(Value, &str), String> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let value = values.next().ok_or("expected a value")?;
    let value = value.map_err(|error| error.to_string())?;
    Ok((value, &text[values.byte_offset()..]))
}

/// A list of objects, and what stands behind it.
fn list(body: &str) -> Result<(Vec<Call>, &str), String> {
    let (value, rest) = first_value(body)?;
    Ok((of_value(value)?, rest.trim_end()))
}

fn call(value: Value) -> Result<Call, String> {
    let Value::Object(mut fields) = value else {
        return Err("a call is no object".to_owned());
    };
    let Some(Value::String(name)) = fields.remove("name") else {
        return Err("a call has no `name`".to_owned());
    };
    let (one, other) = (fields.remove("arguments"), fields.remove("parameters"));
    if one.is_some() && other.is_some() {
        return Err("a call has both `arguments` and `parameters`".to_owned());
    }
    let arguments = one.or(other);
    let arguments = match arguments {
        None | Some(Value::Null) => Value::Object(Map::new()),
        // Some models write the object as a text.
        Some(Value::String(text)) => {
            serde_json::from_str(&text).map_err(|error| error.to_string())?
        }
        Some(arguments) => arguments,
    };
    if !arguments.is_object() {
        return Err("the arguments of a call are no object".to_owned());
    }
    Ok((name, arguments))
}

/// Objects one after the other, between which there may be semicolons, and what stands behind them.
fn several(body: &str) -> Result<(Vec<Call>, &str), String> {
    let mut calls = Vec::new();
    let mut rest = body.trim_start_matches("<|python_tag|>").trim();
    loop {
        let (value, behind) = first_value(rest)?;
        calls.push(call(value)?);
        let next = behind.trim_start_matches(|c: char| c == ';' || c.is_whitespace());
        if !next.starts_with('{') {
            return Ok((calls, if next.is_empty() { "" } else { behind }));
        }
        rest = next;
    }
}

/// `NAME[ARGS]{..}`, one after the other, and what stands behind them; newer templates repeat the mark
/// before each.
fn named(body: &str) -> Result<(Vec<Call>, &str), String> {
    let mut calls = Vec::new();
    let mut rest = body;
    loop {
        let (name, behind) = rest.split_once("[ARGS]").ok_or("a call has no `[ARGS]`")?;
        // Between the two may be an id.
        let name = name.split("[CALL_ID]").next().unwrap_or(name).trim();
        let (arguments, behind) = first_value(behind)?;
        let fields = [("name", name.into()), ("arguments", arguments)];
        let fields = fields.map(|(key, value): (_, Value)| (key.to_owned(), value));
        calls.push(call(Value::Object(fields.into_iter().collect()))?);
        match behind.trim_start().strip_prefix("[TOOL_CALLS]") {
            Some(next) => rest = next,
            None => return Ok((calls, behind.trim_end())),
        }
    }
}

/// `<function=NAME><parameter=KEY>VALUE</parameter>..</function>`, one after the other. What a value
/// is, the tool's schema says.
fn xml(body: &str, tools: &[Tool]) -> Result<Vec<Call>, String> {
    let mut calls = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        let (name, inner) = tag(rest, "<function=").ok_or("expected `<function=NAME>`")?;
        let (inner, after) = inner
            .split_once("</function>")
            .ok_or("expected `</function>`")?;
        let tool = tools.iter().find(|tool| tool.name == name);
        let mut arguments = Map::new();
        let mut parameters = inner.trim();
        while !parameters.is_empty() {
            let (key, value) =
                tag(parameters, "<parameter=").ok_or("expected `<parameter=KEY>`")?;
            let (value, next) = value
                .split_once("</parameter>")
                .ok_or("expected `</parameter>`")?;
            let value = value.strip_prefix('\n').unwrap_or(value);
            let value = value.strip_suffix('\n').unwrap_or(value);
            arguments.insert(key.to_owned(), typed(value, tool, key));
            parameters = next.trim_start();
        }
        calls.push((name.to_owned(), Value::Object(arguments)));
        rest = after.trim_start();
    }
    Ok(calls)
}

/// What is in a tag that begins so, and what is behind it.
fn tag<'t>(text: &'t str, begin: &str) -> Option<(&'t str, &'t str)> {
    let (name, rest) = text.strip_prefix(begin)?.split_once('>')?;
    Some((name.trim(), rest))
}

/// The text as what the schema wants; as text, where it wants that or says nothing that fits.
fn typed(text: &str, tool: Option<&Tool>, key: &str) -> Value {
    let wanted = tool.and_then(|tool| tool.parameters.get("properties")?.get(key));
    let is_text = |kind: &Value| kind == "string";
    let wants_text = match wanted.and_then(|schema| schema.get("type")) {
        Some(Value::Array(kinds)) => kinds.iter().any(is_text),
        Some(kind) => is_text(kind),
        None => false,
    };
    if wants_text {
        return text.into();
    }
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}

/// `call:NAME{KEY:VALUE,..}`, where texts stand between marks and other values are as in JSON, keys
/// of objects without quotes.
fn gemma(body: &str) -> Result<Vec<Call>, String> {
    let rest = body.strip_prefix("call:").ok_or("expected `call:NAME`")?;
    let at = rest.find('{').ok_or("expected `{`")?;
    let mut values = Values {
        rest: &rest[at..],
        depth: 0,
    };
    let arguments = values.value()?;
    if !values.rest.trim().is_empty() {
        return Err("there is more behind the arguments".to_owned());
    }
    Ok(vec![(rest[..at].trim().to_owned(), arguments)])
}

/// Values in each other, at most.
const MOST_NESTED: usize = 32;
const ESCAPE: &str = "<escape>";

struct Values<'t> {
    rest: &'t str,
    depth: usize,
}

impl<'t> Values<'t> {
    fn take(&mut self, text: &str) -> bool {
        self.rest = self.rest.trim_start();
        let rest = self.rest.strip_prefix(text);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn until(&mut self, end: impl Fn(char) -> bool) -> &'t str {
        let at = self.rest.find(end).unwrap_or(self.rest.len());
        let (text, rest) = self.rest.split_at(at);
        self.rest = rest;
        text
    }

    fn value(&mut self) -> Result<Value, String> {
        if self.depth == MOST_NESTED {
            return Err("values nest too deep".to_owned());
        }
        if self.take(ESCAPE) {
            let (text, rest) = self.rest.split_once(ESCAPE).ok_or("a text has no end")?;
            self.rest = rest;
            return Ok(text.into());
        }
        // As in JSON, which constrained calls keep to.
        if self.rest.starts_with('"') {
            let (text, rest) = first_value(self.rest)?;
            self.rest = rest;
            return Ok(text);
        }
        self.depth += 1;
        let value = if self.take("{") {
            self.object()?
        } else if self.take("[") {
            self.list()?
        } else {
            let text = self.until(|c| matches!(c, ',' | '}' | ']')).trim();
            serde_json::from_str(text).unwrap_or_else(|_| text.into())
        };
        self.depth -= 1;
        Ok(value)
    }

    fn object(&mut self) -> Result<Value, String> {
        let mut fields = Map::new();
        while !self.take("}") {
            let key = match self.rest.starts_with('"') {
                true => match self.value()? {
                    Value::String(key) => key,
                    _ => return Err("a key is no text".to_owned()),
                },
                false => self.until(|c| c == ':').trim().to_owned(),
            };
            if !self.take(":") {
                return Err("expected `:` behind a key".to_owned());
            }
            let value = self.value()?;
            fields.insert(key, value);
            if !self.take(",") && !self.rest.starts_with('}') {
                return Err("expected `,` or `}`".to_owned());
            }
        }
        Ok(Value::Object(fields))
    }

    fn list(&mut self) -> Result<Value, String> {
        let mut items = Vec::new();
        while !self.take("]") {
            items.push(self.value()?);
            if !self.take(",") && !self.rest.starts_with(']') {
                return Err("expected `,` or `]`".to_owned());
            }
        }
        Ok(Value::Array(items))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tools() -> Vec<Tool> {
        let properties = json!({"city": {"type": "string"}, "days": {"type": "integer"}, "zip": {"type": ["string", "null"]}});
        vec![Tool::new(
            "weather",
            json!({"type": "object", "properties": properties}),
        )]
    }

    #[test]
    fn every_family_writes_calls_its_own_way() {
        let weather = ("weather".to_owned(), json!({"city": "Oslo", "days": 2}));
        let time = ("time".to_owned(), json!({}));
        let one = vec![weather.clone()];
        let two = vec![weather, time];
        for (format, body, expected) in [
            (
                ToolFormat::Json,
                "\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Oslo\", \"days\": 2}}\n",
                &one,
            ),
            (
                ToolFormat::Json,
                r#"[{"name": "weather", "arguments": "{\"city\": \"Oslo\", \"days\": 2}"}, {"name": "time"}]"#,
                &two,
            ),
            (
                ToolFormat::Xml,
                "\n<function=weather>\n<parameter=city>\nOslo\n</parameter>\n<parameter=days>\n2\n</parameter>\n</function>\n<function=time>\n</function>\n",
                &two,
            ),
            (
                ToolFormat::Llama,
                r#"<|python_tag|>{"name": "weather", "parameters": {"city": "Oslo", "days": 2}}; {"name": "time", "parameters": {}}"#,
                &two,
            ),
            (
                ToolFormat::Mistral,
                r#" [{"name": "weather", "arguments": {"city": "Oslo", "days": 2}, "id": "abc"}]"#,
                &one,
            ),
            (
                ToolFormat::Mistral,
                r#"weather[CALL_ID]x1[ARGS]{"city": "Oslo", "days": 2}[TOOL_CALLS]time[ARGS]{}"#,
                &two,
            ),
            (
                ToolFormat::Gemma,
                "call:weather{city:<escape>Oslo<escape>,days:2}",
                &one,
            ),
        ] {
            let found = calls(format, body, &tools()).unwrap();
            assert_eq!(found, (expected.clone(), ""), "{format:?}");
        }
    }

    #[test]
    fn values_are_what_the_schema_wants() {
        let body = "<function=weather><parameter=city>12</parameter><parameter=zip>0150</parameter><parameter=days>2</parameter><parameter=more>[1]</parameter><parameter=note>two\nlines</parameter></function>";
        let found = calls(ToolFormat::Xml, body, &tools()).unwrap();
        let expected =
            json!({"city": "12", "zip": "0150", "days": 2, "more": [1], "note": "two\nlines"});
        assert_eq!(found.0[0].1, expected);
        let body = "call:f{a:<escape>x, {y}<escape>, b:[1, <escape>z<escape>], c:{d:true}}";
        let found = calls(ToolFormat::Gemma, body, &[]).unwrap();
        assert_eq!(
            found.0[0].1,
            json!({"a": "x, {y}", "b": [1, "z"], "c": {"d": true}})
        );
    }

    #[test]
    fn values_may_be_written_as_json() {
        let body = r#"call:f{"a, b": "x: {y}, \"z\"", "c": [1, "]"], "d": {"e": null}}"#;
        let found = calls(ToolFormat::Gemma, body, &[]).unwrap();
        assert_eq!(
            found.0[0].1,
            json!({"a, b": "x: {y}, \"z\"", "c": [1, "]"], "d": {"e": null}})
        );
    }

    #[test]
    fn what_is_no_call_is_said() {
        for (format, body) in [
            (ToolFormat::Json, ""),
            (ToolFormat::Json, "[]"),
            (ToolFormat::Json, "{\"name\": \"a\""),
            (ToolFormat::Json, "{\"arguments\": {}}"),
            (ToolFormat::Json, "{\"name\": \"a\", \"arguments\": [1]}"),
            (
                ToolFormat::Json,
                "{\"name\": \"a\", \"arguments\": {}, \"parameters\": {}}",
            ),
            (ToolFormat::Xml, "<function=a><parameter=b>1</function>"),
            (ToolFormat::Xml, "<function=a>"),
            (ToolFormat::Llama, "{\"name\": 1}"),
            (ToolFormat::Mistral, "weather{}"),
            (ToolFormat::Mistral, "weather[ARGS]"),
            (ToolFormat::Gemma, "call:a"),
            (ToolFormat::Gemma, "call:a{b:<escape>c}"),
            (ToolFormat::Gemma, "call:a{b}"),
        ] {
            assert!(calls(format, body, &[]).is_err(), "{format:?}: {body}");
        }
        let deep = format!("call:a{{b:{}", "[".repeat(10_000));
        assert!(calls(ToolFormat::Gemma, &deep, &[]).is_err());
    }
}
