//! The manifests as an API server takes them, and the rights that they give: enough, and no more.
