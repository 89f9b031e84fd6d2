//! JSON schema, as far as `plan.schema.json` uses it.

use serde_json::Value;

use super::Version;

/// The first place where a value is not as the schema says.
pub fn fault(schema: &Value, value: &Value) -> Option<String> {
    check(schema, schema, value, "").err()
}

fn check(root: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let object = schema.as_object().expect("a schema is an object");
    for (keyword, rule) in object {
        let good = match &**keyword {
            "$schema" | "$defs" | "title" | "description" => true,
            "$ref" => {
                let name = rule.as_str().and_then(|path| path.strip_prefix("#/$defs/"));
                let target = &root["$defs"][name.expect("a definition")];
                check(root, target, value, at)?;
                true
            }
            "type" => rule
                .as_array()
                .unwrap_or(&vec![rule.clone()])
                .iter()
                .any(|t| is(t, value)),
            "const" => value == rule,
            "enum" => rule.as_array().expect("values").contains(value),
            "minimum" => value.as_f64() >= rule.as_f64(),
            "minItems" => value.as_array().map(Vec::len) >= rule.as_u64().map(|n| n as usize),
            "maxItems" => value.as_array().map(Vec::len) <= rule.as_u64().map(|n| n as usize),
            "pattern" => matches(
                rule.as_str().expect("a pattern"),
                value.as_str().unwrap_or(""),
            ),
            "required" => {
                let mut names = rule.as_array().expect("names").iter();
                names.all(|name| value.get(name.as_str().expect("a name")).is_some())
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(root, rule, item, &format!("{at}[{index}]"))?;
                }
                true
            }
            "properties" => {
                for (name, rule) in rule.as_object().expect("properties") {
                    if let Some(found) = value.get(name) {
                        check(root, rule, found, &format!("{at}.{name}"))?;
                    }
                }
                true
            }
            "additionalProperties" => {
                for (name, found) in value.as_object().into_iter().flatten() {
                    let known = object
                        .get("properties")
                        .and_then(|all| all.get(name))
                        .is_some();
                    match rule {
                        _ if known => {}
                        Value::Bool(false) => {
                            return Err(format!("{at}: no property `{name}`"));
                        }
                        rule => check(root, rule, found, &format!("{at}.{name}"))?,
                    }
                }
                true
            }
            other => panic!("the schema has a keyword that is not checked: {other}"),
        };
        if !good {
            return Err(format!("{at}: {value} is not as {keyword} says: {rule}"));
        }
    }
    Ok(())
}

fn is(name: &Value, value: &Value) -> bool {
    match name.as_str().expect("a type") {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "number" => value.is_number(),
        "integer" => value.is_u64() || value.is_i64(),
        other => panic!("unknown type {other}"),
    }
}

/// The two patterns of the schema.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern {
        r"^[0-9]+\.[0-9]+$" => text.parse::<Version>().is_ok_and(|v| v.to_string() == text),
        "^[0-9a-f]{64}$" => {
            text.len() == 64 && text.bytes().all(|b| b"0123456789abcdef".contains(&b))
        }
        other => panic!("unknown pattern {other}"),
    }
}
