//! The pickle machine: protocols 2 to 5, run into an [`Arena`].
//!
//! It knows every opcode that Python's pickler writes at these protocols, and does what each
//! says with nodes and handles; [`super::objects`] has those that make objects.

use emoc_ir::{Diagnostic, Result};

use super::{
    arena::{Arena, Chain, Handle, NAMELESS, Node, Span},
    globals::Class,
};

/// Containers inside one another. The deepest real file nests 8.
pub(super) const MAX_DEPTH: usize = 512;
/// Bytes of a pickle. A real file may hold a string of 12 MB.
pub(super) const MAX_BYTES: usize = 256 << 20;
/// Longest key or class name in bytes.
pub(super) const MAX_NAME: usize = 1024;
/// Opcodes of a pickle: what one byte of hostile input can cost is bounded. A state_dict of the
/// largest EMO2 has 26,492.
const MAX_WORK: usize = 1 << 22;

/// A pickle that has been read: its objects, the root among them, and where it ended.
pub(crate) struct Unpickled {
    pub arena: Arena,
    pub root: Handle,
    /// Bytes consumed, `STOP` included.
    pub len: usize,
}

/// Runs the pickle at the start of `bytes`. `place` and `base` say where `bytes` lies, for
/// messages: in which entry, and how many bytes into it.
pub(super) fn unpickle(bytes: &[u8], place: &str, base: usize) -> Result<Unpickled> {
    let mut machine = Machine {
        bytes: &bytes[..bytes.len().min(MAX_BYTES)],
        place,
        base,
        at: 0,
        op_at: 0,
        opcodes: 0,
        work: 0,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: Vec::new(),
        arena: Arena::new(),
    };
    let root = machine.run()?;
    Ok(Unpickled {
        arena: machine.arena,
        root,
        len: machine.at,
    })
}

/// A memo slot that was never written.
const UNSET: Handle = Handle::MAX;

pub(super) struct Machine<'a> {
    pub(super) bytes: &'a [u8],
    place: &'a str,
    base: usize,
    /// The next byte to read.
    at: usize,
    /// The opcode being executed.
    pub(super) op_at: usize,
    /// Executed so far.
    opcodes: usize,
    /// The same, and what single opcodes copy.
    work: usize,
    stack: Vec<Handle>,
    marks: Vec<usize>,
    memo: Vec<Handle>,
    pub(super) arena: Arena,
}

impl<'a> Machine<'a> {
    fn run(&mut self) -> Result<Handle> {
        if self.u8()? != 0x80 {
            return Err(self.error("the pickle does not begin with its protocol"));
        }
        let protocol = self.u8()?;
        if !(2..=5).contains(&protocol) {
            return Err(self.error(format!("pickle protocol {protocol}: 2 to 5 are read")));
        }
        loop {
            self.op_at = self.at;
            let op = self.u8()?;
            self.opcodes += 1;
            self.work(1)?;
            if op == b'.' {
                return self.stop();
            }
            self.step(op)?;
        }
    }

    /// Counts what grows with the file.
    pub(super) fn work(&mut self, amount: usize) -> Result<()> {
        self.work += amount;
        match self.work > MAX_WORK {
            true => Err(self.error(format!("the pickle has more than {MAX_WORK} opcodes"))),
            false => Ok(()),
        }
    }

    fn stop(&mut self) -> Result<Handle> {
        let root = self.pop()?;
        match self.stack.is_empty() && self.marks.is_empty() {
            true => Ok(root),
            false => Err(self.error("objects are left on the stack at the pickle's end")),
        }
    }

    /// Executes one opcode. Those of protocols 0 and 1 that no pickler writes at protocol 2 or
    /// later (numbers and strings in text form) are unknown here.
    fn step(&mut self, op: u8) -> Result<()> {
        match op {
            b'(' => self.mark(),
            b'0' => self.discard(),
            b'1' => self.pop_mark().map(drop),
            b'2' => self.duplicate(),
            b'N' => self.push(Arena::NONE),
            0x88 => self.push(Arena::TRUE),
            0x89 => self.push(Arena::FALSE),
            b')' => self.push(Arena::EMPTY_TUPLE),
            b'K' | b'M' | b'J' | b'G' | 0x8a | 0x8b => self.number(op),
            b'X' | b'U' | b'T' | b'B' | b'C' | 0x8c | 0x8d | 0x8e | 0x96 => self.text(op),
            b']' => self.push_node(Node::List(Chain::EMPTY)),
            b'}' => self.push_node(Node::Dict(Chain::EMPTY)),
            // EMPTY_SET
            0x8f => self.push_node(Node::Inert(NAMELESS)),
            b't' | 0x85..=0x87 => self.tuple(op),
            b'l' | b'd' | 0x91 => self.container_of_mark(op),
            b'a' | b'e' | 0x90 => self.append(op),
            b's' | b'u' => self.set_items(op),
            b'q' | b'r' | 0x94 => self.memoize(op),
            b'h' | b'j' => self.recall(op),
            b'c' | 0x93 => self.global(op),
            b'i' | b'o' => self.instance(op),
            b'R' | 0x81 | 0x92 => self.call(op),
            b'b' => self.build(),
            b'Q' => {
                let id = self.pop()?;
                let storage = self.persistent(id)?;
                self.push(storage)
            }
            // FRAME: the pickler's own buffering; only its size must be true.
            0x95 => {
                let size = self.uint(8)?;
                self.fits(size).map(drop)
            }
            0x82..=0x84 => Err(self.error("the pickle uses Python's extension registry")),
            0x97 | 0x98 => Err(self.error("the pickle refers to out-of-band buffers")),
            _ => Err(self.error(format!("unknown pickle opcode 0x{op:02x}"))),
        }
    }

    // Reading

    pub(super) fn error(&self, message: impl Into<String>) -> Box<Diagnostic> {
        Diagnostic::input(message).at(self.place_of(self.op_at))
    }

    pub(super) fn place_of(&self, at: usize) -> String {
        let at = at + self.base;
        match self.place {
            "" => format!("byte {at}"),
            place => format!("entry `{place}`, byte {at}"),
        }
    }

    /// Checks a declared length against the bytes that are left.
    fn fits(&self, len: u64) -> Result<usize> {
        let left = self.bytes.len() - self.at;
        match usize::try_from(len) {
            Ok(len) if len <= left => Ok(len),
            _ => Err(self.error(format!(
                "the pickle is cut off or lies: {len} bytes are announced, {left} are left"
            ))),
        }
    }

    fn take(&mut self, len: u64) -> Result<(Span, &'a [u8])> {
        let len = self.fits(len)?;
        // MAX_BYTES keeps both inside u32.
        let span = Span {
            start: self.at as u32,
            len: len as u32,
        };
        self.at += len;
        Ok((span, &self.bytes[span.range()]))
    }

    fn u8(&mut self) -> Result<u8> {
        Ok(self.take(1)?.1[0])
    }

    /// A little-endian unsigned integer of up to 8 bytes.
    fn uint(&mut self, size: u64) -> Result<u64> {
        let bytes = self.take(size)?.1.iter().rev();
        Ok(bytes.fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }

    /// A name that ends with its line.
    pub(super) fn line(&mut self) -> Result<Span> {
        let rest = &self.bytes[self.at..];
        let window = &rest[..rest.len().min(MAX_NAME + 1)];
        let Some(len) = window.iter().position(|&byte| byte == b'\n') else {
            return Err(self.error("a class name is cut off or longer than 1 KiB"));
        };
        let span = self.take(len as u64)?.0;
        self.at += 1;
        Ok(span)
    }

    /// The text of a str node, if it is valid UTF-8 and no longer than a name.
    pub(super) fn str_of(&self, handle: Handle) -> Option<&'a str> {
        match self.arena.node(handle) {
            Node::Str(span) if span.len as usize <= MAX_NAME => {
                std::str::from_utf8(&self.bytes[span.range()]).ok()
            }
            _ => None,
        }
    }

    // The stack

    pub(super) fn push(&mut self, handle: Handle) -> Result<()> {
        self.stack.push(handle);
        Ok(())
    }

    fn push_node(&mut self, node: Node) -> Result<()> {
        let handle = self.arena.add(node);
        self.push(handle)
    }

    /// Everything above the topmost mark, or the whole stack.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    /// Pops an operand that becomes part of something. `getattr` may be called, and nothing
    /// else, so it is no operand.
    pub(super) fn pop(&mut self) -> Result<Handle> {
        let handle = self.pop_any()?;
        self.operand(handle)?;
        Ok(handle)
    }

    pub(super) fn pop_any(&mut self) -> Result<Handle> {
        if self.stack.len() <= self.floor() {
            return Err(self.error("the pickle takes more objects than it has made"));
        }
        self.stack
            .pop()
            .ok_or_else(|| self.error("the stack is empty"))
    }

    pub(super) fn operand(&self, handle: Handle) -> Result<()> {
        match self.arena.node(handle) {
            Node::Global(global) if self.class(global) == Class::Getattr => {
                Err(self.forbidden(global))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn top(&self) -> Result<Handle> {
        match self.stack[self.floor()..].last() {
            Some(&handle) => Ok(handle),
            None => Err(self.error("the pickle uses an object it has not made")),
        }
    }

    fn mark(&mut self) -> Result<()> {
        if self.marks.len() >= MAX_DEPTH {
            return Err(self.error(format!(
                "more than {MAX_DEPTH} marks are open: nested too deep"
            )));
        }
        self.marks.push(self.stack.len());
        Ok(())
    }

    /// Removes the topmost mark and returns the operands above it.
    pub(super) fn pop_mark(&mut self) -> Result<Vec<Handle>> {
        let Some(mark) = self.marks.pop() else {
            return Err(self.error("the pickle closes a mark it has not set"));
        };
        let items = self.stack.split_off(mark);
        for &item in &items {
            self.operand(item)?;
        }
        Ok(items)
    }

    /// POP removes a mark too, if one is on top.
    fn discard(&mut self) -> Result<()> {
        if self.marks.last() == Some(&self.stack.len()) {
            self.marks.pop();
            return Ok(());
        }
        self.pop().map(drop)
    }

    fn duplicate(&mut self) -> Result<()> {
        let top = self.top()?;
        self.push(top)
    }

    /// Records that `child` is now inside `parent`.
    pub(super) fn adopt(&mut self, parent: Handle, child: Handle) -> Result<()> {
        match self.arena.adopt(parent, child) as usize > MAX_DEPTH {
            true => Err(self.error(format!("objects nest deeper than {MAX_DEPTH}"))),
            false => Ok(()),
        }
    }

    // Scalars

    fn number(&mut self, op: u8) -> Result<()> {
        let node = match op {
            b'K' => Node::Int(self.uint(1)? as i64),
            b'M' => Node::Int(self.uint(2)? as i64),
            b'J' => Node::Int(i64::from(self.uint(4)? as u32 as i32)),
            // The only big-endian number of the format.
            b'G' => Node::Float(f64::from_bits(self.uint(8)?.swap_bytes())),
            // LONG1, LONG4: little-endian two's complement of any length.
            _ => {
                let size = self.uint(if op == 0x8a { 1 } else { 4 })?;
                let bytes = self.take(size)?.1;
                match bytes.len() {
                    0 => Node::Int(0),
                    len @ 1..=8 => {
                        let fill = if bytes[len - 1] & 0x80 != 0 { 0xff } else { 0 };
                        let mut wide = [fill; 8];
                        wide[..len].copy_from_slice(bytes);
                        Node::Int(i64::from_le_bytes(wide))
                    }
                    _ => Node::BigInt,
                }
            }
        };
        self.push_node(node)
    }

    fn text(&mut self, op: u8) -> Result<()> {
        let size = match op {
            b'U' | b'C' | 0x8c => 1,
            b'X' | b'T' | b'B' => 4,
            _ => 8,
        };
        let len = self.uint(size)?;
        let span = self.take(len)?.0;
        // Python 2 writes its str, the keys of its dicts, as U and T.
        self.push_node(match op {
            b'X' | b'U' | b'T' | 0x8c | 0x8d => Node::Str(span),
            _ => Node::Bytes(span),
        })
    }

    // Containers

    fn tuple(&mut self, op: u8) -> Result<()> {
        let items = match op {
            b't' => self.pop_mark()?,
            _ => {
                let mut items = Vec::with_capacity(3);
                for _ in 0x84..op {
                    items.push(self.pop()?);
                }
                items.reverse();
                items
            }
        };
        let tuple = self.add_tuple(&items)?;
        self.push(tuple)
    }

    pub(super) fn add_tuple(&mut self, items: &[Handle]) -> Result<Handle> {
        let span = Span {
            start: self.arena.tuples.len() as u32,
            len: items.len() as u32,
        };
        self.arena.tuples.extend_from_slice(items);
        let tuple = self.arena.add(Node::Tuple(span));
        for &item in items {
            self.adopt(tuple, item)?;
        }
        Ok(tuple)
    }

    /// LIST, DICT, FROZENSET: made from the objects above the mark.
    fn container_of_mark(&mut self, op: u8) -> Result<()> {
        let items = self.pop_mark()?;
        let node = match op {
            b'l' => Node::List(Chain::EMPTY),
            b'd' => Node::Dict(Chain::EMPTY),
            _ => Node::Inert(NAMELESS),
        };
        let container = self.arena.add(node);
        self.push(container)?;
        self.fill(container, &items, op == b'd')
    }

    /// APPEND, APPENDS, ADDITEMS.
    fn append(&mut self, op: u8) -> Result<()> {
        let items = match op {
            b'a' => vec![self.pop()?],
            _ => self.pop_mark()?,
        };
        let list = self.top()?;
        self.fill(list, &items, false)
    }

    /// SETITEM, SETITEMS.
    fn set_items(&mut self, op: u8) -> Result<()> {
        let items = match op {
            b's' => {
                let value = self.pop()?;
                vec![self.pop()?, value]
            }
            _ => self.pop_mark()?,
        };
        let dict = self.top()?;
        self.fill(dict, &items, true)
    }

    /// Adds items, or keys and values in turn, to a list, dict or inert object.
    pub(super) fn fill(&mut self, container: Handle, items: &[Handle], pairs: bool) -> Result<()> {
        if pairs && !items.len().is_multiple_of(2) {
            return Err(self.error("a dict has a key without a value"));
        }
        let node = self.arena.node(container);
        for item in items.chunks(if pairs { 2 } else { 1 }) {
            let (key, value) = (item[0], item[item.len() - 1]);
            match node {
                Node::Dict(_) if pairs => self.arena.append(container, key, value),
                Node::List(_) if !pairs => self.arena.append(container, Arena::NONE, value),
                Node::Inert(_) => self.adopt(container, key)?,
                _ => return Err(self.error("items are added to something that takes none")),
            }
            self.adopt(container, value)?;
        }
        if let Node::Inert(_) = node {
            return self.no_stray_storage(container);
        }
        Ok(())
    }

    // The memo

    fn memoize(&mut self, op: u8) -> Result<()> {
        let index = match op {
            b'q' => self.uint(1)? as usize,
            b'r' => self.uint(4)? as usize,
            _ => self.memo.len(),
        };
        if index > self.opcodes {
            return Err(self.error(format!("memo index {index} after {} opcodes", self.opcodes)));
        }
        let top = self.top()?;
        if index >= self.memo.len() {
            self.memo.resize(index + 1, UNSET);
        }
        self.memo[index] = top;
        Ok(())
    }

    fn recall(&mut self, op: u8) -> Result<()> {
        let index = self.uint(if op == b'h' { 1 } else { 4 })? as usize;
        match self.memo.get(index) {
            Some(&handle) if handle != UNSET => self.push(handle),
            _ => Err(self.error(format!("memo index {index} was never written"))),
        }
    }
}

/// Whether a text can be a key or class name: short, and harmless on a terminal.
pub(crate) fn is_name(text: &str) -> bool {
    text.len() <= MAX_NAME && !text.contains(char::is_control)
}
