//! Pickles that lie, or want to run something.

use crate::support::{Pickle, check_refused, raw, torch_zip};

/// A checkpoint with a tensor and this beside it.
fn beside(extra: impl FnOnce(Pickle) -> Pickle) -> Vec<u8> {
    torch_zip(Pickle::dict_with(extra))
}

fn call(module: &str, name: &str) -> Vec<u8> {
    beside(|pickle| pickle.global(module, name).str("id").raw(b"\x85R"))
}

#[test]
fn nothing_that_could_run_is_read() {
    let short = |text: &str| [&[0x8c, text.len() as u8], text.as_bytes()].concat();
    let stack_global = |module: &str, name: &str| {
        let names = [short(module), short(name)].concat();
        beside(|pickle| pickle.raw(&names).raw(b"\x93").str("id").raw(b"\x85R"))
    };
    let getattr = |class: [&str; 2], name: &str| {
        beside(|pickle| {
            let pickle = pickle.global("builtins", "getattr").raw(b"(");
            pickle.global(class[0], class[1]).str(name).raw(b"tR")
        })
    };
    check_refused(vec![
        ("GLOBAL", call("os", "system"), "`os.system`"),
        ("posix", call("posix", "system"), "`posix.system`"),
        ("nt", call("nt", "system"), "`nt.system`"),
        (
            "subprocess",
            call("subprocess", "Popen"),
            "`subprocess.Popen`",
        ),
        ("submodule", call("os.path", "join"), "`os.path.join`"),
        ("STACK_GLOBAL", stack_global("os", "system"), "`os.system`"),
        (
            "path in the name",
            stack_global("logging", "os.system"),
            "`logging.os.system`",
        ),
        (
            "dunder in the name",
            stack_global("a", "B.__init__.__globals__"),
            "__globals__",
        ),
        (
            "INST",
            beside(|p| p.raw(b"(").str("id").raw(b"ios\nsystem\n")),
            "`os.system`",
        ),
        (
            "OBJ",
            beside(|p| p.raw(b"(").global("os", "system").str("id").raw(b"o")),
            "`os.system`",
        ),
        (
            "NEWOBJ",
            beside(|p| p.global("os", "_wrap_close").raw(b")\x81")),
            "`os._wrap_close`",
        ),
        (
            "never called",
            beside(|p| p.global("os", "system")),
            "`os.system`",
        ),
        (
            "discarded",
            beside(|p| p.global("os", "system").raw(b"0N")),
            "`os.system`",
        ),
        (
            "inside a partial",
            beside(|p| {
                p.global("functools", "partial")
                    .global("os", "system")
                    .raw(b"\x85R")
            }),
            "`os.system`",
        ),
        ("eval", call("builtins", "eval"), "`builtins.eval`"),
        ("exec", call("__builtin__", "exec"), "`__builtin__.exec`"),
        ("open", call("builtins", "open"), "`builtins.open`"),
        (
            "import",
            call("builtins", "__import__"),
            "`builtins.__import__`",
        ),
        ("io.open", call("io", "open"), "`io.open`"),
        ("runpy", call("runpy", "_run_code"), "`runpy._run_code`"),
        ("pickle", call("pickle", "loads"), "`pickle.loads`"),
        ("ctypes", call("ctypes", "CDLL"), "`ctypes.CDLL`"),
        (
            "code objects",
            call("types", "CodeType"),
            "`types.CodeType`",
        ),
        (
            "attrgetter",
            call("operator", "attrgetter"),
            "`operator.attrgetter`",
        ),
        (
            "numpy's runner",
            call("numpy.testing._private.utils", "runstring"),
            "runstring",
        ),
        ("torch.load", call("torch", "load"), "`torch.load`"),
        (
            "bytes",
            call("torch.storage", "_load_from_bytes"),
            "`torch.storage._load_from_bytes`",
        ),
        ("hub", call("torch.hub", "load"), "`torch.hub.load`"),
        (
            "compiler",
            call("torch.utils.cpp_extension", "load_inline"),
            "load_inline",
        ),
        (
            "fake rebuild",
            call("torch._utils", "_import_dotted_name"),
            "_import_dotted_name",
        ),
        (
            "getattr of a module",
            getattr(["os", "path"], "join"),
            "`os.path`",
        ),
        (
            "getattr private",
            getattr(["mmengine.a", "B"], "__init__"),
            "`builtins.getattr`",
        ),
        (
            "getattr path",
            getattr(["mmengine.a", "B"], "a.b"),
            "`builtins.getattr`",
        ),
        (
            "getattr of torch",
            getattr(["torch", "Size"], "mro"),
            "`builtins.getattr`",
        ),
        (
            "getattr kept",
            beside(|p| p.global("builtins", "getattr")),
            "`builtins.getattr`",
        ),
        (
            "getattr in a partial",
            beside(|p| {
                p.global("functools", "partial")
                    .global("builtins", "getattr")
                    .raw(b"\x85R")
            }),
            "`builtins.getattr`",
        ),
        (
            "extension",
            beside(|p| p.raw(b"\x82\x01")),
            "extension registry",
        ),
        ("buffer", beside(|p| p.raw(b"\x97")), "out-of-band"),
        (
            "names an offset",
            raw(b"cos\nsystem\n."),
            "entry `net/data.pkl`, byte 2",
        ),
    ]);
}

#[test]
fn broken_pickles_are_refused() {
    check_refused(vec![
        ("empty", torch_zip(Pickle(vec![])), "cut off or lies"),
        (
            "no protocol",
            torch_zip(Pickle(b"}.".to_vec())),
            "does not begin with its protocol",
        ),
        (
            "protocol 0",
            torch_zip(Pickle(b"\x80\x00}.".to_vec())),
            "pickle protocol 0",
        ),
        (
            "protocol 6",
            torch_zip(Pickle(b"\x80\x06}.".to_vec())),
            "pickle protocol 6",
        ),
        (
            "protocol again",
            raw(b"\x80\x02}."),
            "unknown pickle opcode 0x80",
        ),
        (
            "unknown opcode",
            raw(b"\xff."),
            "unknown pickle opcode 0xff",
        ),
        ("text opcode", raw(b"I1\n."), "unknown pickle opcode 0x49"),
        ("no STOP", raw(b"}"), "cut off or lies"),
        ("nothing at STOP", raw(b"."), "takes more objects"),
        ("two at STOP", raw(b"NN."), "left on the stack"),
        ("a mark at STOP", raw(b"N(."), "takes more objects"),
        (
            "bytes after STOP",
            raw(b"N.N"),
            "bytes follow the end of the pickle",
        ),
        (
            "string beyond",
            raw(b"X\xff\xff\xff\x7fa."),
            "2147483647 bytes are announced",
        ),
        (
            "bytes8 beyond",
            raw(b"\x8e\xff\xff\xff\xff\xff\xff\xff\xffa."),
            "are announced",
        ),
        (
            "bytearray8 beyond",
            raw(b"\x96\0\0\0\0\0\0\0\x10a."),
            "are announced",
        ),
        (
            "long beyond",
            raw(b"\x8b\xff\xff\xff\xff."),
            "are announced",
        ),
        (
            "frame beyond",
            raw(b"\x95\xff\xff\xff\xff\xff\xff\xff\xffN."),
            "are announced",
        ),
        ("name without end", raw(b"cabc"), "a class name is cut off"),
        (
            "long name",
            raw(&[b"c".as_slice(), &[b'a'; 2000], b"\nb\n."].concat()),
            "longer than 1 KiB",
        ),
        (
            "control in a name",
            raw(b"ca\x1b[2J\nb\n."),
            "control characters",
        ),
        ("class from a number", raw(b"NN\x93."), "other than a str"),
        ("pop from nothing", raw(b"0."), "takes more objects"),
        ("below the mark", raw(b"N(s."), "takes more objects"),
        ("mark never set", raw(b"t."), "a mark it has not set"),
        ("key without value", raw(b"}(Nu."), "a key without a value"),
        ("append to a number", raw(b"K\x01Na."), "takes none"),
        ("items into a list", raw(b"]NNs."), "takes none"),
        ("call of a number", raw(b"K\x01)R."), "no class or function"),
        ("call without a tuple", raw(b"ca\nb\nNR."), "not a tuple"),
        ("state for a number", raw(b"K\x01}b."), "takes none"),
        ("memo never written", raw(b"h\x00."), "never written"),
        (
            "memo far away",
            raw(b"Nr\xff\xff\xff\xff."),
            "memo index 4294967295 after",
        ),
        ("memo of nothing", raw(b"q\x00."), "has not made"),
        ("persistent id", raw(b"NQ."), "does not describe a storage"),
        (
            "persistent text",
            raw(b"P0\n."),
            "unknown pickle opcode 0x50",
        ),
        (
            "same key twice",
            torch_zip(
                Pickle::new()
                    .raw(b"}(")
                    .str("a")
                    .tensor()
                    .str("a")
                    .raw(b"Nu."),
            ),
            "the same key twice",
        ),
        (
            "same number twice",
            raw(b"}(K\x01NM\x01\0Nu."),
            "the same key twice",
        ),
        (
            "escape in a key",
            torch_zip(Pickle::new().raw(b"}").str("a\x1b[2J").tensor().raw(b"s.")),
            "control characters",
        ),
        (
            "long key",
            torch_zip(
                Pickle::new()
                    .raw(b"}")
                    .str(&"k".repeat(1025))
                    .tensor()
                    .raw(b"s."),
            ),
            "longer than 1 KiB",
        ),
    ]);
}
