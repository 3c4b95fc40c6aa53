//! A small BTF blob, and what damage to it does.

use super::*;

const INT: u32 = 1;
const CONSTANT: u32 = CONST;

/// Builds a blob type by type. Ids count from 1.
#[derive(Default)]
struct Blob {
    types: Vec<u8>,
    strings: Vec<u8>,
}

impl Blob {
    fn name(&mut self, text: &str) -> u32 {
        if self.strings.is_empty() {
            self.strings.push(0);
        }
        if text.is_empty() {
            return 0;
        }
        let at = u32::try_from(self.strings.len()).unwrap();
        self.strings.extend(text.bytes().chain([0]));
        at
    }

    fn words(&mut self, words: &[u32]) {
        self.types.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
    }

    fn ty(&mut self, name: &str, kind: u32, count: usize, target: u32) {
        let name = self.name(name);
        self.words(&[name, kind << 24 | u32::try_from(count).unwrap(), target]);
    }

    fn structure(&mut self, name: &str, kind: u32, members: &[(&str, u32, u32)]) {
        self.ty(name, kind, members.len(), 0);
        for (name, target, bits) in members {
            let name = self.name(name);
            self.words(&[name, *target, *bits]);
        }
    }

    fn finish(self) -> Vec<u8> {
        let (types, strings) = (self.types.len() as u32, self.strings.len() as u32);
        let mut blob: Vec<u8> = MAGIC.to_ne_bytes().into_iter().chain([1, 0]).collect();
        for word in [24, 0, types, types, strings] {
            blob.extend(u32::to_ne_bytes(word));
        }
        blob.extend(self.types);
        blob.extend(self.strings);
        blob
    }
}

fn kernel() -> Vec<u8> {
    let mut blob = Blob::default();
    blob.ty("int", INT, 0, 4); // 1
    blob.words(&[32]);
    blob.ty("", PTR, 0, 1); // 2
    blob.structure("css", STRUCT, &[("ss", 2, 0), ("cgroup", 2, 64)]); // 3
    blob.ty("css_t", TYPEDEF, 0, 3); // 4
    blob.ty("", CONSTANT, 0, 4); // 5
    blob.structure("", UNION, &[("first", 1, 0), ("second", 2, 0)]); // 6
    blob.structure("mem_cgroup", STRUCT, &[("id", 1, 0), ("css", 5, 128), ("", 6, 320), ("flag", 1, 391)]); // 7
    blob.ty("handle", FUNC, 0, 9); // 8
    blob.ty("", FUNC_PROTO, 3, 0); // 9
    blob.words(&[0, 2, 0, 2, 0, 1]);
    blob.ty("", PTR, 0, 9); // 10
    blob.ty("btf_trace_mark", TYPEDEF, 0, 10); // 11
    blob.ty("loop", TYPEDEF, 0, 12); // 12
    blob.structure("nest", STRUCT, &[("", 13, 8)]); // 13
    blob.finish()
}

/// Everything that can be asked; the answers of a damaged blob do not matter, that they come does.
fn ask(blob: &[u8]) {
    let Ok(btf) = Btf::parse(blob) else { return };
    let _ = btf.offset("mem_cgroup", &["css", "cgroup"]);
    let _ = btf.offset("mem_cgroup", &["second"]);
    let _ = btf.offset("nest", &["x"]);
    let _ = btf.offset("loop", &["x"]);
    let _ = btf.has_function("handle");
    let _ = btf.tracepoint_takes_pointer("mark", 1);
}

#[test]
fn offsets_are_found_through_typedefs_and_anonymous_members() {
    let blob = kernel();
    let btf = Btf::parse(&blob).unwrap();
    for (path, expected) in [
        (&["id"][..], Some(0)),
        (&["css"], Some(16)),
        (&["css", "cgroup"], Some(24)),
        (&["second"], Some(40)),
        (&["flag"], None),
        (&["css", "gone"], None),
        (&["id", "gone"], None),
    ] {
        assert_eq!(btf.offset("mem_cgroup", path), expected, "{path:?}");
    }
    assert_eq!(btf.offset("mem", &["id"]), None);
    assert_eq!(btf.offset("nest", &["x"]), None, "a structure inside itself");
}

#[test]
fn functions_and_tracepoints_are_told_apart() {
    let blob = kernel();
    let btf = Btf::parse(&blob).unwrap();
    assert!(btf.has_function("handle") && !btf.has_function("handl") && !btf.has_function("mark"));
    assert!(btf.has_tracepoint("mark") && !btf.has_tracepoint("handle"));
    assert_eq!(btf.tracepoint_takes_pointer("mark", 0), Some(true));
    assert_eq!(btf.tracepoint_takes_pointer("mark", 1), Some(false));
    assert_eq!(btf.tracepoint_takes_pointer("mark", 2), None);
}

#[test]
fn other_bytes_are_refused() {
    assert_eq!(Btf::parse(b"").err(), Some(BtfError::Header));
    assert_eq!(Btf::parse(b"\x7fELF and so on, for as long as a header").err(), Some(BtfError::Header));
    let mut unknown = Blob::default();
    unknown.ty("new", 30, 0, 0);
    assert_eq!(Btf::parse(&unknown.finish()).err(), Some(BtfError::Type { id: 1, kind: 30 }));
}

#[test]
fn no_damage_makes_it_panic() {
    let blob = kernel();
    for length in 0..blob.len() {
        ask(&blob[..length]);
    }
    for at in 0..blob.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff, blob[at].wrapping_add(1)] {
            let mut damaged = blob.clone();
            damaged[at] = value;
            ask(&damaged);
        }
    }
}
