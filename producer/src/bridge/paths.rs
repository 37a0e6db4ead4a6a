//! Where something is in an event: JSON Pointers (RFC 6901).

use serde_json::Value;

/// Why a text is no path.
const FORM: &str =
    "a path is empty or begins with /, as in /payment/amount (JSON Pointer, RFC 6901)";

/// Refuses what is no JSON Pointer.
pub(super) fn require(path: &str) -> Result<(), String> {
    let escapes = path.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    match (path.is_empty() || path.starts_with('/')) && escapes {
        true => Ok(()),
        false => Err(format!("{path:?}: {FORM}")),
    }
}

/// The path of a name at the top.
pub(super) fn of_name(name: &str) -> String {
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// A text or an integer, as text; nothing of what is neither.
pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) if !number.is_f64() => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_are_found_whatever_is_in_them() {
        let event = json!({ "a/b~c": 1, "": 2, "a": { "b": [3, 4] } });
        for (name, value) in [("a/b~c", 1), ("", 2)] {
            assert_eq!(event.pointer(&of_name(name)), Some(&json!(value)));
        }
        assert_eq!(event.pointer("/a/b/1"), Some(&json!(4)));
    }

    #[test]
    fn what_is_no_path_is_refused() {
        assert!(["", "/", "/a/0", "/a~1b"].iter().all(|path| require(path).is_ok()));
        assert!(["a", "a/b", "/a~2", "/~"].iter().all(|path| require(path).is_err()));
    }

    #[test]
    fn ids_are_texts_and_integers() {
        let all = [json!("a"), json!(7), json!(1.5), json!(null), json!(true), json!([1])];
        let texts = all.each_ref().map(text);
        assert_eq!(texts, [Some("a".into()), Some("7".into()), None, None, None, None]);
    }
}
