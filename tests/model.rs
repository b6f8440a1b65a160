//! The machines of rotation and registration as small models: every interleaving of two workers, two proxies, writers,
//! crashes and lost answers is looked at. docs/decisions/2026-11-key-lifecycle.md is what they model.
//!
//! Each safeguard is also left out once, and the model must then find what it is there for: so it can fail.
mod explore;
mod registration;
mod rotation;
