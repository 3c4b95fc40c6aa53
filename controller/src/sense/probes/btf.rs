//! Reads what is needed of the kernel's own type description (BTF): field offsets, functions, arguments of tracepoints.
//!
//! rustc emits no CO-RE relocations and aya keeps struct members to itself, so the offsets are found here and passed
//! to the programs as constants. Format: Documentation/bpf/btf.rst. Bad input gives an error or `None`, never a panic.

/// Why a BTF blob can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BtfError {
    /// Too short, or another format or byte order.
    #[error("no BTF header of this machine's byte order")]
    Header,
    /// A section lies outside.
    #[error("the {0} section lies outside of the {1} bytes")]
    Section(&'static str, usize),
    /// The list of types breaks off, or has a kind that the format did not have in 2026.
    #[error("type {id} of kind {kind} can't be read")]
    Type {
        /// Its number.
        id: usize,
        /// Its kind.
        kind: u32,
    },
}

const MAGIC: u16 = 0xeb9f;

const PTR: u32 = 2;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const TYPEDEF: u32 = 8;
const VOLATILE: u32 = 9;
const CONST: u32 = 10;
const RESTRICT: u32 = 11;
const FUNC: u32 = 12;
const FUNC_PROTO: u32 = 13;
const TYPE_TAG: u32 = 18;

/// Chains of typedefs and of nested anonymous members are short; a loop in a damaged blob is cut here.
const DEPTH: usize = 32;

/// A parsed blob: where each type starts.
pub(super) struct Btf<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    starts: Vec<usize>,
}

/// One `struct btf_type` with what follows it.
#[derive(Clone, Copy)]
struct Type<'a> {
    name: u32,
    kind: u32,
    /// Members carry a bit-field size in the upper byte of their offset.
    kind_flag: bool,
    /// The type referred to, or a size.
    target: u32,
    count: usize,
    rest: &'a [u8],
}

struct Member {
    name: u32,
    target: u32,
    bits: u32,
}

impl<'a> Btf<'a> {
    pub(super) fn parse(blob: &'a [u8]) -> Result<Self, BtfError> {
        if blob.get(..2) != Some(&MAGIC.to_ne_bytes()) {
            return Err(BtfError::Header);
        }
        let field = |n: usize| word(blob, 4 + 4 * n).ok_or(BtfError::Header);
        let section = |name, offset: u32, length: u32| {
            let start = field(0)? as usize + offset as usize;
            blob.get(start..start + length as usize).ok_or(BtfError::Section(name, blob.len()))
        };
        let types = section("type", field(1)?, field(2)?)?;
        let strings = section("string", field(3)?, field(4)?)?;
        Ok(Self { types, strings, starts: starts(types)? })
    }

    /// Offset in bytes of a field, along a path of members (`&["css", "cgroup"]`): through anonymous structs and
    /// unions, not through pointers. `None` where it does not exist, or is a bit field.
    pub(super) fn offset(&self, structure: &str, path: &[&str]) -> Option<u32> {
        let mut id = self.find(structure, STRUCT)?;
        let mut bits = 0_u32;
        for member in path {
            let (target, offset) = self.member(id, member, DEPTH)?;
            bits = bits.checked_add(offset)?;
            id = target;
        }
        bits.is_multiple_of(8).then_some(bits / 8)
    }

    /// Whether the kernel has a function of this name that programs can be attached to.
    pub(super) fn has_function(&self, name: &str) -> bool {
        self.find(name, FUNC).is_some()
    }

    /// Whether the kernel has this tracepoint.
    pub(super) fn has_tracepoint(&self, name: &str) -> bool {
        self.find(&format!("btf_trace_{name}"), TYPEDEF).is_some()
    }

    /// Whether the nth argument of a tracepoint is a pointer. `None` where there is no such argument.
    pub(super) fn tracepoint_takes_pointer(&self, name: &str, n: usize) -> Option<bool> {
        let typedef = self.get(self.find(&format!("btf_trace_{name}"), TYPEDEF)?)?;
        let pointer = self.get(self.plain(typedef.target)?)?;
        let prototype = self.get(self.plain(pointer.target)?)?;
        // The first parameter is the tracer's own data.
        (prototype.kind == FUNC_PROTO && n + 1 < prototype.count).then_some(())?;
        let argument = word(prototype.rest, 8 * (n + 1) + 4)?;
        Some(self.get(self.plain(argument)?)?.kind == PTR)
    }

    fn find(&self, name: &str, kind: u32) -> Option<u32> {
        let ids = 1..=u32::try_from(self.starts.len()).ok()?;
        ids.into_iter()
            .find(|id| self.get(*id).is_some_and(|ty| ty.kind == kind && self.is_named(ty.name, name)))
    }

    fn member(&self, id: u32, name: &str, depth: usize) -> Option<(u32, u32)> {
        let ty = self.get(self.plain(id)?)?;
        if depth == 0 || !matches!(ty.kind, STRUCT | UNION) {
            return None;
        }
        ty.members().find_map(|member| {
            if self.is_named(member.name, name) {
                return Some((member.target, member.bits));
            }
            let (target, bits) =
                (member.name == 0).then(|| self.member(member.target, name, depth - 1))??;
            Some((target, bits.checked_add(member.bits)?))
        })
    }

    /// Takes off typedefs and qualifiers.
    fn plain(&self, mut id: u32) -> Option<u32> {
        for _ in 0..DEPTH {
            let ty = self.get(id)?;
            match ty.kind {
                TYPEDEF | VOLATILE | CONST | RESTRICT | TYPE_TAG => id = ty.target,
                _ => return Some(id),
            }
        }
        None
    }

    fn get(&self, id: u32) -> Option<Type<'a>> {
        // Type 0 is void and is not in the list.
        let start = *self.starts.get((id as usize).checked_sub(1)?)?;
        Type::at(self.types, start)
    }

    fn is_named(&self, offset: u32, name: &str) -> bool {
        let Some(text) = self.strings.get(offset as usize..) else { return false };
        text.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&0))
    }
}

impl<'a> Type<'a> {
    fn at(types: &'a [u8], start: usize) -> Option<Self> {
        let info = word(types, start + 4)?;
        Some(Self {
            name: word(types, start)?,
            kind: info >> 24 & 0x1f,
            kind_flag: info >> 31 == 1,
            target: word(types, start + 8)?,
            count: (info & 0xffff) as usize,
            rest: types.get(start + 12..)?,
        })
    }

    fn members(self) -> impl Iterator<Item = Member> + use<'a> {
        let bits_mask = if self.kind_flag { 0x00ff_ffff } else { u32::MAX };
        (0..self.count).map_while(move |n| {
            Some(Member {
                name: word(self.rest, 12 * n)?,
                target: word(self.rest, 12 * n + 4)?,
                bits: word(self.rest, 12 * n + 8)? & bits_mask,
            })
        })
    }

    /// Bytes that follow the common part.
    fn tail(self) -> Option<usize> {
        Some(match self.kind {
            // PTR, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT, FUNC, FLOAT, TYPE_TAG
            PTR | 7..=12 | 16 | TYPE_TAG => 0,
            // INT, VAR, DECL_TAG
            1 | 14 | 17 => 4,
            // ARRAY
            3 => 12,
            // ENUM, FUNC_PROTO
            6 | FUNC_PROTO => 8 * self.count,
            // STRUCT, UNION, DATASEC, ENUM64
            STRUCT | UNION | 15 | 19 => 12 * self.count,
            _ => return None,
        })
    }
}

fn starts(types: &[u8]) -> Result<Vec<usize>, BtfError> {
    let (mut starts, mut at) = (Vec::new(), 0);
    while at < types.len() {
        let id = starts.len() + 1;
        let ty = Type::at(types, at).ok_or(BtfError::Type { id, kind: 0 })?;
        let tail = ty.tail().filter(|tail| *tail <= ty.rest.len());
        starts.push(at);
        at += 12 + tail.ok_or(BtfError::Type { id, kind: ty.kind })?;
    }
    Ok(starts)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*word))
}

#[cfg(test)]
mod tests;
