//! Opcodes that name classes and make objects. Nothing is looked up or called:
//! [`super::rebuild`] recognises PyTorch's own rebuild functions, everything else becomes an
//! inert node.

use emoc_ir::{Diagnostic, Result};

use super::{
    arena::{Facts, Global, Handle, NAMELESS, Node, Span},
    globals::{Class, classify},
    pickle::{Machine, is_name},
    rebuild::MAX_ARGS,
};

/// Names of classes in one pickle. Picklers write each class once.
const MAX_GLOBALS: usize = 1 << 16;

impl Machine<'_> {
    /// GLOBAL, STACK_GLOBAL.
    pub(super) fn global(&mut self, op: u8) -> Result<()> {
        let (module, name) = match op {
            b'c' => (self.line()?, self.line()?),
            _ => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (self.arena.node(module), self.arena.node(name)) {
                    (Node::Str(module), Node::Str(name)) => (module, name),
                    _ => return Err(self.error("a class is named by something other than a str")),
                }
            }
        };
        let global = self.add_global(module, name)?;
        self.push(global)
    }

    fn add_global(&mut self, module: Span, name: Span) -> Result<Handle> {
        if self.arena.globals.len() == MAX_GLOBALS {
            return Err(self.error(format!("the pickle names more than {MAX_GLOBALS} classes")));
        }
        let number = self.arena.globals.len() as u32;
        let text = |span: Span| {
            let text = std::str::from_utf8(&self.bytes[span.range()]).ok()?;
            (!text.is_empty() && is_name(text)).then_some(text)
        };
        let (Some(module_text), Some(name_text)) = (text(module), text(name)) else {
            return Err(
                self.error("a class name is empty, longer than 1 KiB, or holds control characters")
            );
        };
        let class = classify(module_text, name_text);
        self.arena.globals.push(Global {
            module,
            name,
            class: class.unwrap_or(Class::Inert),
            at: self.op_at as u32,
        });
        match class {
            Some(_) => Ok(self.arena.add(Node::Global(number))),
            None => Err(self.forbidden(number)),
        }
    }

    pub(super) fn forbidden(&self, global: u32) -> Box<Diagnostic> {
        let at = self.arena.globals[global as usize].at as usize;
        Diagnostic::input(format!(
            "the pickle names `{}`, which no checkpoint needs; loading it in Python would run code",
            self.global_name(global)
        ))
        .at(self.place_of(at))
        .help("do not load this file; ask its author for the state_dict alone, as safetensors")
    }

    pub(super) fn class(&self, global: u32) -> Class {
        self.arena.globals[global as usize].class
    }

    /// `module.name`.
    pub(super) fn global_name(&self, global: u32) -> String {
        self.arena.global_name(self.bytes, global)
    }

    /// INST, OBJ: instances of classic classes of Python 2.
    pub(super) fn instance(&mut self, op: u8) -> Result<()> {
        let (class, args) = match op {
            b'i' => {
                let (module, name) = (self.line()?, self.line()?);
                let class = self.add_global(module, name)?;
                (class, self.pop_mark()?)
            }
            _ => {
                let items = self.pop_mark()?;
                match items.split_first() {
                    Some((&class, args)) => (class, args.to_vec()),
                    None => return Err(self.error("an object has no class")),
                }
            }
        };
        let args = self.add_tuple(&args)?;
        let object = self.reduce(class, args)?;
        self.push(object)
    }

    /// REDUCE, NEWOBJ, NEWOBJ_EX.
    pub(super) fn call(&mut self, op: u8) -> Result<()> {
        let keywords = match op {
            0x92 => Some(self.pop()?),
            _ => None,
        };
        let args = self.pop()?;
        let callable = self.pop_any()?;
        let object = self.reduce(callable, args)?;
        if let (Some(keywords), Node::Inert(_)) = (keywords, self.arena.node(object)) {
            self.adopt(object, keywords)?;
            self.no_stray_storage(object)?;
        }
        self.push(object)
    }

    /// What calling `callable` gives.
    fn reduce(&mut self, callable: Handle, args: Handle) -> Result<Handle> {
        if !matches!(self.arena.node(args), Node::Tuple(_)) {
            return Err(self.error("the arguments of a call are not a tuple"));
        }
        match self.arena.node(callable) {
            Node::Global(global) => match self.class(global) {
                Class::Inert | Class::DType(_) | Class::Storage(_) => self.inert(global, args),
                Class::Getattr => self.getattr(global, args),
                _ => match self.arena.sequence(args, MAX_ARGS) {
                    Some(args) => self.rebuild(global, &args),
                    None => self.not_understood(global),
                },
            },
            // A bound method of an inert class, or the like.
            Node::Inert(global) => self.inert(global, args),
            _ => Err(self.error("the pickle calls something that is no class or function")),
        }
    }

    /// `getattr(inert class, "public name")`, which mmengine writes for enumerations.
    fn getattr(&mut self, getattr: u32, args: Handle) -> Result<Handle> {
        let Node::Tuple(span) = self.arena.node(args) else {
            return Err(self.forbidden(getattr));
        };
        let &[object, name] = self.arena.tuple(span) else {
            return Err(self.forbidden(getattr));
        };
        let public = |name: &str| !name.starts_with('_') && !name.contains('.');
        match (self.arena.node(object), self.str_of(name)) {
            (Node::Global(class), Some(name))
                if self.class(class) == Class::Inert && public(name) =>
            {
                self.inert(class, args)
            }
            _ => Err(self.forbidden(getattr)),
        }
    }

    /// An object that stays closed. What it was made from is not kept, only whether tensors were
    /// in it.
    pub(super) fn inert(&mut self, class: u32, args: Handle) -> Result<Handle> {
        let object = self.arena.add(Node::Inert(class));
        self.adopt(object, args)?;
        self.no_stray_storage(object)?;
        Ok(object)
    }

    /// A storage that ends up in an unknown object is a tensor rebuilt in a way that is not
    /// understood here, and dropping it would be silent.
    pub(super) fn no_stray_storage(&self, object: Handle) -> Result<()> {
        let (Facts { storage: true, .. }, Node::Inert(class)) =
            (self.arena.facts(object), self.arena.node(object))
        else {
            return Ok(());
        };
        let by = match class {
            NAMELESS => "a set".to_owned(),
            class => format!("`{}`", self.global_name(class)),
        };
        Err(self
            .error(format!(
                "a tensor is rebuilt by {by}, which is not understood"
            ))
            .help("load the file in Python and save plain tensors: `model.state_dict()`"))
    }

    /// BUILD: gives an object its state.
    pub(super) fn build(&mut self) -> Result<()> {
        let state = self.pop()?;
        let object = self.top()?;
        self.operand(object)?;
        match self.arena.node(object) {
            Node::Inert(_) => {
                self.adopt(object, state)?;
                self.no_stray_storage(object)
            }
            // Attributes beside the entries, such as a state_dict's `_metadata`, or a tensor's.
            Node::Dict(_) | Node::Tensor(_) if !self.arena.facts(state).storage => Ok(()),
            _ => Err(self.error("state is given to something that takes none")),
        }
    }
}
