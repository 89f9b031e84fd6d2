//! Which state_dict a checkpoint means.

use emoc_frontend::{Checkpoint, Choice, StateDict};
use emoc_ir::Result;

use crate::support::{Pickle, torch_zip};

/// The content of a checkpoint, written as `{net: {a, b}, net_E: None, epoch: 3}`: a key alone
/// is a tensor, `!` an object that is not opened.
fn checkpoint(text: &str) -> Checkpoint {
    let pickle = value(Pickle::new(), &mut text.trim()).raw(b".");
    Checkpoint::from_bytes(torch_zip(pickle)).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn value(pickle: Pickle, text: &mut &str) -> Pickle {
    let take = |text: &mut &str, end: &[char]| {
        let at = text.find(end).unwrap_or(text.len());
        let (word, rest) = text.split_at(at);
        *text = rest;
        word.trim().to_owned()
    };
    let Some(mut inside) = text.strip_prefix('{') else {
        return match &*take(text, &[',', '}']) {
            "None" => pickle.raw(b"N"),
            "!" => pickle.global("models.emo", "EMO").raw(b")\x81"),
            "!tensor" => pickle.global("models.emo", "EMO").tensor().raw(b"\x85\x81"),
            number => pickle.int(number.parse().expect("a number")),
        };
    };
    let mut dict = pickle.raw(b"}");
    while !inside.starts_with('}') {
        let key = take(&mut inside, &[':', ',', '}']);
        dict = dict.str(&key);
        dict = match inside.strip_prefix(':') {
            Some(rest) => {
                inside = rest.trim_start();
                value(dict, &mut inside)
            }
            None => dict.tensor(),
        };
        dict = dict.raw(b"s");
        inside = inside.strip_prefix(',').unwrap_or(inside).trim_start();
    }
    *text = inside[1..].trim_start();
    dict
}

fn describe(dict: &StateDict) -> String {
    let origin = dict.origin();
    let keys: Vec<_> = dict.iter().map(|(key, _)| key).collect();
    let mut text = format!("{}[{}]", origin.root, keys.join(" "));
    for prefix in &origin.stripped {
        text += &format!(" -{prefix}");
    }
    for (first, count) in &origin.ignored {
        text += &format!(" {first}:{count}");
    }
    if origin.non_tensors > 0 {
        text += &format!(" others:{}", origin.non_tensors);
    }
    text
}

fn check(choice: Choice, content: &str, expected: Result<&str, &str>) {
    let found = StateDict::choose(&checkpoint(content), choice);
    match (found.map(|dict| describe(&dict)), expected) {
        (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{content}"),
        (Err(error), Err(expected)) => {
            let text = error.to_string();
            assert!(
                text.contains(expected),
                "{content}: expected `{expected}` in `{text}`"
            );
            assert!(error.help.is_some(), "{content}: no help in `{text}`");
        }
        (Ok(found), Err(_)) => panic!("{content}: takes {found}"),
        (Err(error), Ok(_)) => panic!("{content}: {error}"),
    }
}

#[test]
fn the_network_is_found() {
    let ok = |content, expected| check(Choice::Net, content, Ok(expected));
    ok("{a, b}", "[a b]");
    ok("{a, epoch: 3, b}", "[a b] others:1");
    ok(
        "{net: {a}, net_E: {a}, optimizer: {state: {0: {step}}}, epoch: 3}",
        "net[a]",
    );
    ok("{net: {a}, net_E: None}", "net[a]");
    ok("{net: {a}, iter}", "net[a]");
    ok(
        "{epoch: 3, state_dict: {a}, state_dict_ema: {a}}",
        "state_dict[a]",
    );
    ok("{model: {a}, model_ema: {a}}", "model[a]");
    ok("{model_state_dict: {a}}", "model_state_dict[a]");
    ok("{state_dict: {model: {a}}}", "state_dict/model[a]");
    ok("{checkpoint: {epoch: 1, net: {a}}}", "checkpoint/net[a]");
    ok("{model: !, state_dict: {a}}", "state_dict[a]");
    // The outermost wins.
    ok("{model: {a}, teacher: {model: {a}}}", "model[a]");
}

#[test]
fn prefixes_are_removed() {
    let ok = |content, expected| check(Choice::Net, content, Ok(expected));
    ok("{module.a, module.b}", "[a b] -module.");
    ok("{_orig_mod.module.a}", "[a] -_orig_mod. -module.");
    ok("{module.module.a}", "[a] -module. -module.");
    ok(
        "{state_dict: {backbone.a, neck.x, neck.y, bbox_head.z}}",
        "state_dict[a] -backbone. neck:2 bbox_head:1",
    );
    ok(
        "{module.backbone._orig_mod.a, module.head.b}",
        "[a] -module. -backbone. -_orig_mod. head:1",
    );
    let refused = |content, expected| check(Choice::Net, content, Err(expected));
    refused("{module.a, b}", "only some keys begin with `module.`");
    refused("{module.a, b}", "without: b");
    refused("{backbone.}", "nothing but the prefix");
}

#[test]
fn nothing_is_guessed() {
    let refused = |content, expected| check(Choice::Net, content, Err(expected));
    refused("{net: {a}, state_dict: {a}}", "ambiguous");
    refused("{net: {a}, state_dict: {a, b}}", "`state_dict`: 2 tensors");
    refused("{x: {net: {a}}, y: {net: {a}}}", "`y/net`: 1 tensors");
    refused("{student: {a}, teacher: {a}}", "`student`: 1 tensors");
    refused(
        "{model: !}",
        "`model` is no state_dict: object of `models.emo.EMO`",
    );
    refused("{epoch: 3}", "holds no tensors");
    refused("{}", "holds no tensors");
    refused("!", "object of `models.emo.EMO`");
    refused("{x: {y: {net: {a}}}}", "its first tensor is `x/y/net/a`");
    refused("{a, b: !tensor}", "holds tensors and cannot be opened");
}

#[test]
fn the_average_is_found_or_missed() {
    let ema = |content, expected| check(Choice::Ema, content, expected);
    ema("{net: {a}, net_E: {module.a}}", Ok("net_E[a] -module."));
    ema("{run: {net_E: {a}}}", Ok("run/net_E[a]"));
    ema("{net: {a}}", Err("there is no `net_E`"));
    ema("{net: {a}, net_E: None}", Err("`net_E` is None"));
    ema(
        "{net: {a}, net_E: !}",
        Err("`net_E` is no state_dict: object of `models.emo.EMO`"),
    );
    ema("{a}", Err("there is no `net_E`"));
}
