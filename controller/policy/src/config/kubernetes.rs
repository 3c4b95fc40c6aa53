//! The section `kubernetes`: whether pods of this node are workloads, which of them, and what the API server is told.

use super::Kubernetes;
use super::daemon::absolute;
use super::scalar::{Flag, Form, OrNone, Time};
use super::section::Section;
use super::selector::Selector;
use crate::units::Span;

const NODE: Form = Form(dns, "the name of a node: lower case letters, digits, '-' and '.'");
const NAMESPACE: Form = Form(dns, "the name of a namespace: lower case letters, digits and '-'");
const FILE: Form = Form(absolute, "an absolute path");
const SELECTOR: Form = Form(
    |text| text.len() < 4096 && Selector::parse(text).is_some(),
    "a label selector like app=chat,tier!=batch",
);
const EVICT_AFTER: Time = Time(Span::secs(5), Span::secs(3600));

pub(super) fn kubernetes(section: &mut Section<'_>) -> Kubernetes {
    let mut kubernetes = Kubernetes::default();
    section.set("enabled", &mut kubernetes.enabled, &Flag);
    section.set("node", &mut kubernetes.node, &OrNone(NODE));
    section.set("kubeconfig", &mut kubernetes.kubeconfig, &OrNone(FILE));
    section.set("select", &mut kubernetes.select, &OrNone(SELECTOR));
    if let Some(namespaces) = section.list("namespaces", &NAMESPACE) {
        kubernetes.namespaces = namespaces;
    }
    if let Some(namespaces) = section.list("omit_namespaces", &NAMESPACE) {
        kubernetes.omit_namespaces = namespaces;
    }
    section.set("events", &mut kubernetes.events, &Flag);
    section.set("condition", &mut kubernetes.condition, &Flag);
    section.set("taint", &mut kubernetes.taint, &Flag);
    section.set("evict", &mut kubernetes.evict, &Flag);
    section.set("evict_after", &mut kubernetes.evict_after, &EVICT_AFTER);
    if let Some(both) = kubernetes.namespaces.iter().find(|name| kubernetes.omit_namespaces.contains(name)) {
        let sentence = format!("has {both:?}, which `omit_namespaces` has as well");
        section.conflict("namespaces", sentence);
    }
    kubernetes
}

/// RFC 1123, as names of nodes and namespaces are.
pub(super) fn dns(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(label)
}

/// One part of such a name; names of containers are one.
pub(super) fn label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}
