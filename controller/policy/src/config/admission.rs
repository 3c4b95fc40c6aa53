//! The section `admission`: how much is kept back from those who want to load a model, and how long a promise lasts.

use super::Admission;
use super::scalar::{Memory, Time};
use super::section::Section;
use crate::units::{Bytes, Span};

const MARGIN: Memory = Memory(Bytes::ZERO, Bytes::mib(16 << 20));
const TTL: Time = Time(Span::secs(1), Span::secs(3600));
const LOAD: Time = Time(Span::secs(1), Span::secs(24 * 3600));

pub(super) fn admission(section: &mut Section<'_>) -> Admission {
    let mut admission = Admission::default();
    section.set("margin_normal", &mut admission.margin_normal, &MARGIN);
    section.set("margin_elevated", &mut admission.margin_elevated, &MARGIN);
    section.set("margin_constrained", &mut admission.margin_constrained, &MARGIN);
    section.set("ttl", &mut admission.ttl, &TTL);
    section.set("load", &mut admission.load, &LOAD);
    admission
}
