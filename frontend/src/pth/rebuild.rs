//! What PyTorch's own classes and rebuild functions mean, and the check that every tensor lies
//! inside its storage.

use emoc_ir::{DType, Result};

use super::{
    arena::{Arena, Chain, Handle, Node, RawTensor, Span, Storage},
    globals::Class,
    pickle::Machine,
};

/// Arguments of the longest call that is understood.
pub(super) const MAX_ARGS: usize = 8;
/// Axes of a tensor.
pub(crate) const MAX_RANK: usize = 8;
/// An axis is shorter than this.
pub(crate) const MAX_DIM: u64 = 1 << 31;
/// A tensor may repeat its storage (stride 0) up to this size in bytes.
pub(crate) const MAX_EXPANDED: u64 = 64 << 20;

impl Machine<'_> {
    /// The result of calling one of the functions and classes that are understood.
    pub(super) fn rebuild(&mut self, global: u32, args: &[Handle]) -> Result<Handle> {
        match self.class(global) {
            Class::OrderedDict => self.ordered_dict(args),
            Class::Size => match args {
                &[sizes] if matches!(self.arena.node(sizes), Node::Tuple(_) | Node::List(_)) => {
                    Ok(sizes)
                }
                _ => Err(self.error("`torch.Size` is not given a list of sizes")),
            },
            Class::RebuildFromType => match args {
                // The subclass and its attributes are dropped, the tensor counts.
                &[function, _, inner, _] => {
                    match (
                        self.arena.node(function),
                        self.arena.sequence(inner, MAX_ARGS),
                    ) {
                        (Node::Global(function), Some(inner)) => self.tensor(function, &inner),
                        _ => self.not_understood(global),
                    }
                }
                _ => self.not_understood(global),
            },
            _ => self.tensor(global, args),
        }
    }

    fn tensor(&mut self, global: u32, args: &[Handle]) -> Result<Handle> {
        match (self.class(global), args) {
            (Class::RebuildTensor, &[storage, offset, sizes, strides]) => {
                self.view(None, storage, offset, sizes, strides)
            }
            (Class::RebuildTensor, &[storage, offset, sizes, strides, _, _, ref rest @ ..])
                if rest.len() <= 1 =>
            {
                self.plain_metadata(rest.first().copied())?;
                self.view(None, storage, offset, sizes, strides)
            }
            (
                Class::RebuildTensorV3,
                &[storage, offset, sizes, strides, _, _, dtype, ref rest @ ..],
            ) if rest.len() <= 1 => {
                self.plain_metadata(rest.first().copied())?;
                let Node::Global(dtype) = self.arena.node(dtype) else {
                    return self.not_understood(global);
                };
                match self.class(dtype) {
                    Class::DType(Some(dtype)) => {
                        self.view(Some(dtype), storage, offset, sizes, strides)
                    }
                    _ => Err(self.error(format!(
                        "a tensor of element type `{}` is not supported",
                        self.global_name(dtype)
                    ))),
                }
            }
            (Class::RebuildParameter, &[data, _, _] | &[data, _, _, _])
                if matches!(self.arena.node(data), Node::Tensor(_)) =>
            {
                Ok(data)
            }
            _ => self.not_understood(global),
        }
    }

    pub(super) fn not_understood(&self, global: u32) -> Result<Handle> {
        Err(self
            .error(format!(
                "a tensor is rebuilt by `{}` in a way that is not understood (sparse, quantized \
                 and nested tensors, and tensors without data, cannot be read)",
                self.global_name(global)
            ))
            .help("load the file in Python and save plain, dense tensors"))
    }

    /// An `OrderedDict`: empty, or (from Python 2) made from a list of pairs.
    fn ordered_dict(&mut self, args: &[Handle]) -> Result<Handle> {
        let dict = self.arena.add(Node::Dict(Chain::EMPTY));
        let pairs = match args {
            [] => Some(Vec::new()),
            &[pairs] => self.arena.sequence(pairs, usize::MAX),
            _ => None,
        };
        let Some(pairs) = pairs else {
            return Err(self.error("an `OrderedDict` is made from something unknown"));
        };
        // One opcode copies them all, so they count as opcodes.
        self.work(pairs.len())?;
        for pair in pairs {
            match self.arena.sequence(pair, 2).as_deref() {
                Some(items @ [_, _]) => self.fill(dict, items, true)?,
                _ => return Err(self.error("an `OrderedDict` holds something that is no pair")),
            }
        }
        Ok(dict)
    }

    /// BINPERSID: a storage, or a class with its source code (legacy).
    pub(super) fn persistent(&mut self, id: Handle) -> Result<Handle> {
        let unknown = "a persistent id does not describe a storage";
        let Some(items) = self.arena.sequence(id, MAX_ARGS) else {
            return Err(self.error(unknown));
        };
        let kind = items.first().and_then(|&kind| self.str_of(kind));
        match (kind, &items[..]) {
            // The source is for a warning when the class has changed since.
            (Some("module"), &[_, class, _, _]) => Ok(class),
            (Some("storage"), &[_, class, key, location, numel, ref view @ ..]) => {
                if !matches!(view, [] | [Arena::NONE]) {
                    return Err(self.error("storages that are views of others are not supported"));
                }
                self.storage(class, key, location, numel)
            }
            _ => Err(self.error(unknown)),
        }
    }

    fn storage(
        &mut self,
        class: Handle,
        key: Handle,
        location: Handle,
        numel: Handle,
    ) -> Result<Handle> {
        let Node::Global(class) = self.arena.node(class) else {
            return Err(self.error("a storage has no class"));
        };
        let Class::Storage(dtype) = self.class(class) else {
            let name = self.global_name(class);
            return Err(self.error(format!("`{name}` is not a storage class")));
        };
        let (Node::Str(key), Some(_), Some(_)) = (
            self.arena.node(key),
            self.str_of(key),
            self.str_of(location),
        ) else {
            return Err(self.error("a storage's key or device is not a str of at most 1 KiB"));
        };
        let numel = self.unsigned(numel, "a storage's size")?;
        // A storage of unknown elements cannot become a tensor, so its size is never used.
        let bytes = numel.checked_mul(dtype.map_or(1, DType::size) as u64);
        let Some(bytes) = bytes.filter(|&bytes| i64::try_from(bytes).is_ok()) else {
            return Err(self.error(format!("a storage of {numel} elements is impossible")));
        };
        let number = self.arena.storages.len() as u32;
        self.arena.storages.push(Storage { key, dtype, bytes });
        Ok(self.arena.add(Node::Storage(number)))
    }

    /// The `neg` and `conj` bits say that the bytes are not yet the values.
    fn plain_metadata(&self, metadata: Option<Handle>) -> Result<()> {
        let chain = match metadata.map(|metadata| self.arena.node(metadata)) {
            None | Some(Node::None) => return Ok(()),
            Some(Node::Dict(chain)) if chain.len as usize <= MAX_ARGS => chain,
            Some(_) => return Err(self.error("a tensor's metadata is not a small dict")),
        };
        for link in self.arena.links(chain) {
            let name = self.str_of(link.key).unwrap_or("?");
            if !matches!(name, "neg" | "conj") || link.value != Arena::FALSE {
                return Err(self
                    .error(format!("a tensor has `{name}` set, which is not supported"))
                    .help("save `tensor.resolve_neg().resolve_conj()`"));
            }
        }
        Ok(())
    }

    fn unsigned(&self, handle: Handle, what: &str) -> Result<u64> {
        match self.arena.node(handle) {
            Node::Int(value) if value >= 0 => Ok(value as u64),
            Node::Int(value) => Err(self.error(format!("{what} is negative ({value})"))),
            Node::BigInt => Err(self.error(format!("{what} is beyond 64 bits"))),
            _ => Err(self.error(format!("{what} is not an integer"))),
        }
    }

    fn unsigned_list(&self, handle: Handle, what: &str) -> Result<Vec<u64>> {
        let items = match self.arena.node(handle) {
            Node::Tuple(Span { len, .. }) if len as usize > MAX_RANK => None,
            Node::Tuple(span) => Some(self.arena.tuple(span)),
            _ => return Err(self.error(format!("{what} of a tensor is not a tuple"))),
        };
        let Some(items) = items else {
            return Err(self.error(format!("a tensor has more than {MAX_RANK} axes")));
        };
        let each = items.iter();
        each.map(|&item| self.unsigned(item, &format!("{what} of a tensor")))
            .collect()
    }

    fn view(
        &mut self,
        dtype: Option<DType>,
        storage: Handle,
        offset: Handle,
        sizes: Handle,
        strides: Handle,
    ) -> Result<Handle> {
        let Node::Storage(number) = self.arena.node(storage) else {
            return Err(self.error("a tensor is rebuilt from something that is no storage"));
        };
        let Storage {
            dtype: own, bytes, ..
        } = self.arena.storages[number as usize];
        let Some(dtype) = dtype.or(own) else {
            return Err(self.error("a tensor's storage has an element type that is not supported"));
        };
        let offset = self.unsigned(offset, "the offset of a tensor")?;
        let sizes = self.unsigned_list(sizes, "the size")?;
        let strides = self.unsigned_list(strides, "the stride")?;
        if sizes.len() != strides.len() {
            return Err(self.error(format!(
                "a tensor has {} sizes and {} strides",
                sizes.len(),
                strides.len()
            )));
        }
        let numel = check_extent(dtype, offset, &sizes, &strides, bytes)
            .map_err(|what| self.error(what))?;
        let dims = self.arena.dims.len() as u32;
        self.arena.dims.extend(sizes.iter().chain(&strides));
        let tensor = self.arena.tensors.len() as u32;
        self.arena.tensors.push(RawTensor {
            storage: number,
            dtype,
            // An empty tensor may stand anywhere; it reads nothing.
            offset: if numel == 0 { 0 } else { offset },
            rank: sizes.len() as u8,
            dims,
            numel,
        });
        Ok(self.arena.add(Node::Tensor(tensor)))
    }
}

/// Checks that a tensor lies inside a storage of `bytes` bytes and does not repeat it beyond
/// reason; returns its number of elements.
fn check_extent(
    dtype: DType,
    offset: u64,
    sizes: &[u64],
    strides: &[u64],
    bytes: u64,
) -> Result<u64, String> {
    if let Some(size) = sizes.iter().find(|&&size| size >= MAX_DIM) {
        return Err(format!("a tensor has an axis of {size} elements"));
    }
    if sizes.contains(&0) {
        return Ok(0);
    }
    // Extents in i64, as in PyTorch: what overflows there overflows here.
    let signed = |value: u64| i64::try_from(value).ok();
    let extent = || {
        let mut last = signed(offset)?;
        let mut numel = 1i64;
        for (&size, &stride) in sizes.iter().zip(strides) {
            let (size, stride) = (signed(size)?, signed(stride)?);
            last = last.checked_add((size - 1).checked_mul(stride)?)?;
            numel = numel.checked_mul(size)?;
        }
        let item = dtype.size() as i64;
        let end = last.checked_add(1)?.checked_mul(item)?;
        Some((end as u64, numel as u64, numel.checked_mul(item)? as u64))
    };
    let (end, numel, logical) = extent()
        .ok_or_else(|| format!("the extent of a tensor overflows: {sizes:?} by {strides:?}"))?;
    if end > bytes {
        return Err(format!(
            "a tensor reaches to byte {end} of a storage of {bytes} bytes"
        ));
    }
    if logical > bytes.max(MAX_EXPANDED) {
        return Err(format!(
            "a tensor of {logical} bytes is expanded from a storage of {bytes} bytes"
        ));
    }
    Ok(numel)
}
