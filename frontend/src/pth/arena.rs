//! The objects of a pickle: plain nodes in one vector, named by `u32` handles.
//!
//! Nothing owns anything, so building, sharing, cycles and dropping need no recursion, no
//! reference counts and no copies, however the file nests. A node is 16 bytes and an opcode
//! makes at most one.

use std::ops::Range;

use emoc_ir::DType;

/// Names a node.
pub(crate) type Handle = u32;

/// The end of a chain of [`Link`]s.
pub(crate) const END: u32 = u32::MAX;

/// The class of an inert object that has no name in the file, such as a set.
pub(crate) const NAMELESS: u32 = u32::MAX;

/// One object.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Node {
    None,
    Bool(bool),
    Int(i64),
    /// An integer beyond 64 bits.
    BigInt,
    Float(f64),
    /// A str: bytes of the pickle, UTF-8 unless Python wrote a lone surrogate.
    Str(Span),
    Bytes(Span),
    /// Handles in [`Arena::tuples`].
    Tuple(Span),
    List(Chain),
    /// Also an `OrderedDict`.
    Dict(Chain),
    /// A class or function by name, never looked up.
    Global(u32),
    Storage(u32),
    Tensor(u32),
    /// An object of a class that is not built: the class, as index of [`Arena::globals`].
    Inert(u32),
}

/// A piece of the pickle's bytes, or of [`Arena::tuples`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub start: u32,
    pub len: u32,
}

impl Span {
    pub fn range(self) -> Range<usize> {
        self.start as usize..self.start as usize + self.len as usize
    }
}

/// A list or dict: first and last of its links, and their number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chain {
    pub head: u32,
    pub tail: u32,
    pub len: u32,
}

impl Chain {
    pub const EMPTY: Self = Self {
        head: END,
        tail: END,
        len: 0,
    };
}

/// One entry of a list or dict.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Link {
    /// The dict's key; unused in a list.
    pub key: Handle,
    pub value: Handle,
    pub next: u32,
}

/// What is remembered about every node beside its content.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Facts {
    /// Containers from here down to the deepest leaf, at the time of building.
    pub depth: u16,
    /// A tensor is in it.
    pub tensor: bool,
    /// A storage that no tensor has wrapped is in it.
    pub storage: bool,
}

impl Facts {
    fn join(self, child: Self) -> Self {
        Self {
            depth: self.depth.max(child.depth.saturating_add(1)),
            tensor: self.tensor || child.tensor,
            storage: self.storage || child.storage,
        }
    }
}

/// A name in the pickle.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Global {
    pub module: Span,
    pub name: Span,
    pub class: super::globals::Class,
    /// Byte offset of the opcode.
    pub at: u32,
}

/// A storage named by a persistent id.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Storage {
    pub key: Span,
    /// `None`: an element type that emoc has no name for.
    pub dtype: Option<DType>,
    pub bytes: u64,
}

/// A tensor as the pickle describes it, already checked against its storage's declared size.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawTensor {
    pub storage: u32,
    pub dtype: DType,
    /// Elements.
    pub offset: u64,
    pub rank: u8,
    /// Sizes, then strides, in [`Arena::dims`].
    pub dims: u32,
    pub numel: u64,
}

/// All objects of one pickle.
#[derive(Debug, Default)]
pub(crate) struct Arena {
    pub nodes: Vec<Node>,
    pub facts: Vec<Facts>,
    pub links: Vec<Link>,
    pub tuples: Vec<Handle>,
    pub globals: Vec<Global>,
    pub storages: Vec<Storage>,
    pub tensors: Vec<RawTensor>,
    pub dims: Vec<u64>,
}

impl Arena {
    pub const NONE: Handle = 0;
    pub const FALSE: Handle = 1;
    pub const TRUE: Handle = 2;
    pub const EMPTY_TUPLE: Handle = 3;

    pub fn new() -> Self {
        let mut arena = Self::default();
        let empty = Span { start: 0, len: 0 };
        let shared = [
            Node::None,
            Node::Bool(false),
            Node::Bool(true),
            Node::Tuple(empty),
        ];
        for node in shared {
            arena.add(node);
        }
        arena
    }

    pub fn add(&mut self, node: Node) -> Handle {
        let handle = self.nodes.len() as Handle;
        self.nodes.push(node);
        self.facts.push(Facts {
            depth: 0,
            tensor: matches!(node, Node::Tensor(_)),
            storage: matches!(node, Node::Storage(_)),
        });
        handle
    }

    pub fn node(&self, handle: Handle) -> Node {
        self.nodes[handle as usize]
    }

    pub fn facts(&self, handle: Handle) -> Facts {
        self.facts[handle as usize]
    }

    /// Lets `parent` know what it now holds; returns its depth.
    pub fn adopt(&mut self, parent: Handle, child: Handle) -> u16 {
        let joined = self.facts(parent).join(self.facts(child));
        self.facts[parent as usize] = joined;
        joined.depth
    }

    /// The items of a tuple.
    pub fn tuple(&self, span: Span) -> &[Handle] {
        &self.tuples[span.range()]
    }

    /// The entries of a list or dict, in file order.
    pub fn links(&self, chain: Chain) -> impl Iterator<Item = Link> + '_ {
        let link = |at: u32| (at != END).then(|| self.links[at as usize]);
        std::iter::successors(link(chain.head), move |last| link(last.next))
    }

    /// Appends an entry to a list or dict.
    pub fn append(&mut self, container: Handle, key: Handle, value: Handle) {
        let at = self.links.len() as u32;
        self.links.push(Link {
            key,
            value,
            next: END,
        });
        let (Node::List(chain) | Node::Dict(chain)) = &mut self.nodes[container as usize] else {
            unreachable!("the caller has seen a list or dict");
        };
        match chain.head {
            END => chain.head = at,
            _ => self.links[chain.tail as usize].next = at,
        }
        chain.tail = at;
        chain.len += 1;
    }

    /// `module.name` of a global; `bytes` is the pickle.
    pub fn global_name(&self, bytes: &[u8], global: u32) -> String {
        let Global { module, name, .. } = self.globals[global as usize];
        let text = |span: Span| String::from_utf8_lossy(&bytes[span.range()]).into_owned();
        format!("{}.{}", text(module), text(name))
    }

    /// The items of a list or tuple of at most `limit` items. The same one can be used by many
    /// opcodes, so every use must be bounded.
    pub fn sequence(&self, handle: Handle, limit: usize) -> Option<Vec<Handle>> {
        match self.node(handle) {
            Node::Tuple(span) if span.len as usize <= limit => Some(self.tuple(span).to_vec()),
            Node::List(chain) if chain.len as usize <= limit => {
                Some(self.links(chain).map(|link| link.value).collect())
            }
            _ => None,
        }
    }
}
