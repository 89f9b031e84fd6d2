//! What a name in a pickle may mean. Three kinds: names that emoc itself gives a meaning to
//! ([`Class`]), any other class, which stays an opaque value ([`Class::Inert`]), and names that
//! have no business in a checkpoint, which are refused on sight.

use emoc_ir::DType;

/// The meaning of a global.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    OrderedDict,
    /// `torch.FloatStorage` and its like; `None` for element types emoc has no name for.
    Storage(Option<DType>),
    /// `torch._utils._rebuild_tensor` and `_rebuild_tensor_v2`.
    RebuildTensor,
    /// The storage is untyped, the element type is an argument.
    RebuildTensorV3,
    RebuildParameter,
    /// A tensor subclass, or a tensor with Python attributes.
    RebuildFromType,
    /// Sparse, quantized, nested, meta tensors: known, but not readable here.
    RebuildUnsupported,
    /// `torch.Size`, a tuple.
    Size,
    DType(Option<DType>),
    /// The one function that a real file (of mmengine) holds. Harmless only where the pickle
    /// machine says so.
    Getattr,
    /// Anything else: carried by name, never constructed.
    Inert,
}

/// Top-level modules that reach processes, files, the network, memory, or Python itself.
const FORBIDDEN: &str = "IPython _aix_support _bootsubprocess _ctypes _frozen_importlib \
    _frozen_importlib_external _imp _osx_support _pickle _posixshmem _posixsubprocess _pyio \
    _socket _sqlite3 _ssl _thread _winapi antigravity asyncio asyncore atexit bdb cPickle \
    cProfile cffi cgi cloudpickle codeop commands compileall ctypes dbm dill dis distutils \
    doctest ensurepip faulthandler fcntl fileinput ftplib gc http idlelib imaplib imp importlib \
    joblib lib2to3 linecache marshal mmap modulefinder msvcrt multiprocessing nntplib nt ntpath \
    os pdb pickle pickletools pip pkg_resources pkgutil platform popen2 poplib posix posixpath \
    profile pty py_compile pyclbr pydoc requests resource runpy select selectors setuptools \
    shelve shutil signal site smtplib socket socketserver sqlite3 ssl subprocess sys tarfile \
    telnetlib tempfile threading timeit trace urllib venv webbrowser winreg xmlrpc zipfile \
    zipimport";

/// Packages with the same reach below a harmless top-level name.
const FORBIDDEN_UNDER: &str = "logging.config logging.handlers numpy.distutils numpy.f2py \
    numpy.testing pandas.io six.moves sympy.parsing torch.hub torch.jit torch.package";

/// Functions and classes that read or run what they are given.
const FORBIDDEN_NAMES: &str = "code.InteractiveConsole code.InteractiveInterpreter code.interact \
    numpy.fromfile numpy.genfromtxt numpy.load numpy.loadtxt numpy.memmap numpy.save pandas.eval \
    pandas.read_pickle";

/// Modules of which only a few names are harmless.
const ONLY: &[(&str, &str)] = &[
    ("_codecs", "encode"),
    ("_io", "BytesIO StringIO"),
    ("_operator", "itemgetter"),
    ("codecs", "encode"),
    ("copy_reg", "_reconstructor __newobj__ __newobj_ex__"),
    ("copyreg", "_reconstructor __newobj__ __newobj_ex__"),
    ("functools", "partial partialmethod"),
    ("io", "BytesIO StringIO"),
    ("operator", "itemgetter"),
    ("types", "MappingProxyType NoneType SimpleNamespace"),
    ("uuid", "SafeUUID UUID"),
];

/// Builtins without power over anything.
const BUILTINS: &str = "Ellipsis Exception KeyError NotImplemented RuntimeError StopIteration \
    TypeError ValueError bool bytearray bytes complex dict float frozenset int list long object \
    range set slice str tuple type unicode xrange";

/// Decides what `module.name` means; `None`: it is forbidden.
pub(super) fn classify(module: &str, name: &str) -> Option<Class> {
    let top = module.split('.').next().unwrap_or_default();
    // From protocol 4 on a name may be a path, which walks through attributes: `Class.Inner`,
    // but also `Class.__init__.__globals__` or a module's imported `os`.
    let walks_out = name.contains('.')
        && name
            .split('.')
            .any(|part| part.starts_with("__") || listed(FORBIDDEN, part));
    if walks_out
        || listed(FORBIDDEN, top)
        || listed(FORBIDDEN_NAMES, &format!("{module}.{name}"))
        || words(FORBIDDEN_UNDER).any(|package| is_inside(module, package))
    {
        return None;
    }
    match top {
        "torch" => torch(module, name),
        "builtins" | "__builtin__" if name == "getattr" => Some(Class::Getattr),
        "builtins" | "__builtin__" | "__builtins__" => {
            listed(BUILTINS, name).then_some(Class::Inert)
        }
        "collections" if (module, name) == ("collections", "OrderedDict") => {
            Some(Class::OrderedDict)
        }
        _ => match ONLY.iter().find(|row| row.0 == top) {
            Some(row) => listed(row.1, name).then_some(Class::Inert),
            None => Some(Class::Inert),
        },
    }
}

/// Everything under `torch`: known names, and classes; never any other function.
fn torch(module: &str, name: &str) -> Option<Class> {
    let known = match module {
        "torch" | "torch.storage" if name.ends_with("Storage") => storage(name),
        "torch" if name == "Size" => Some(Class::Size),
        "torch" => dtype(name),
        "torch._utils" | "torch._tensor" => rebuild(module, name),
        _ => None,
    };
    // Values and harmless callables in lower case.
    let value = match module {
        "torch" => {
            "device dtype layout memory_format qscheme strided sparse_coo contiguous_format \
             preserve_format channels_last channels_last_3d per_tensor_affine per_channel_affine"
        }
        "torch.serialization" => "_get_layout",
        _ => "",
    };
    // Python code of PyTorch spells classes, and nothing else, with a capital.
    let last = name.rsplit('.').next().unwrap_or_default();
    let capital = last.trim_start_matches('_').starts_with(char::is_uppercase);
    let inert = (capital || listed(value, name)).then_some(Class::Inert);
    known.or(inert)
}

fn rebuild(module: &str, name: &str) -> Option<Class> {
    Some(match (module, name) {
        ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Class::RebuildTensor,
        ("torch._utils", "_rebuild_tensor_v3") => Class::RebuildTensorV3,
        ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => {
            Class::RebuildParameter
        }
        ("torch._tensor", "_rebuild_from_type" | "_rebuild_from_type_v2") => Class::RebuildFromType,
        ("torch._utils", _) if name.starts_with("_rebuild_") => Class::RebuildUnsupported,
        _ => return None,
    })
}

fn storage(name: &str) -> Option<Class> {
    Some(Class::Storage(Some(match name {
        "FloatStorage" => DType::F32,
        "DoubleStorage" => DType::F64,
        "HalfStorage" => DType::F16,
        "BFloat16Storage" => DType::BF16,
        "LongStorage" => DType::I64,
        "IntStorage" => DType::I32,
        "ShortStorage" => DType::I16,
        "CharStorage" => DType::I8,
        // Untyped storages are bytes; the tensor names the element type.
        "ByteStorage" | "UntypedStorage" => DType::U8,
        "BoolStorage" => DType::Bool,
        "ComplexFloatStorage" => DType::C64,
        "ComplexDoubleStorage" => DType::C128,
        "TypedStorage" | "QInt8Storage" | "QInt32Storage" | "QUInt8Storage" | "QUInt4x2Storage"
        | "QUInt2x4Storage" => return Some(Class::Storage(None)),
        _ => return None,
    })))
}

fn dtype(name: &str) -> Option<Class> {
    Some(Class::DType(Some(match name {
        "float32" | "float" => DType::F32,
        "float64" | "double" => DType::F64,
        "float16" | "half" => DType::F16,
        "bfloat16" => DType::BF16,
        "float8_e4m3fn" => DType::F8E4M3,
        "float8_e5m2" => DType::F8E5M2,
        "int64" | "long" => DType::I64,
        "int32" | "int" => DType::I32,
        "int16" | "short" => DType::I16,
        "int8" => DType::I8,
        "uint8" => DType::U8,
        "uint16" => DType::U16,
        "uint32" => DType::U32,
        "uint64" => DType::U64,
        "bool" => DType::Bool,
        "complex64" | "cfloat" => DType::C64,
        "complex128" | "cdouble" => DType::C128,
        _ if listed(
            "complex32 chalf float8_e4m3fnuz float8_e5m2fnuz float8_e8m0fnu float4_e2m1fn_x2 \
             bits1x8 bits2x4 bits4x2 bits8 bits16 qint8 quint8 qint32 quint4x2 quint2x4 int1 int2 \
             int3 int4 int5 int6 int7 uint1 uint2 uint3 uint4 uint5 uint6 uint7",
            name,
        ) =>
        {
            return Some(Class::DType(None));
        }
        _ => return None,
    })))
}

fn words(list: &'static str) -> impl Iterator<Item = &'static str> {
    list.split_ascii_whitespace()
}

fn listed(list: &'static str, word: &str) -> bool {
    words(list).any(|listed| listed == word)
}

fn is_inside(module: &str, package: &str) -> bool {
    let rest = module.strip_prefix(package);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}
