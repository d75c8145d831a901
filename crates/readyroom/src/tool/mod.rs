//! What a tool is: its definition, the registry of all known tools, where a tool's program is found on this machine,
//! and the spawn contract that all instances of a pool share. The page is `docs/design/tools.md`.

pub mod aim;
mod builtin;
mod contract;
mod definition;
mod discovery;
pub mod document;
mod layers;
mod probe;
mod registry;
mod script;
mod secrets;
mod settings;
pub mod trust;
mod validate;

pub use builtin::BUILTIN;
pub use contract::{Contract, ContractOptions};
pub use definition::*;
pub use discovery::{Found, find};
pub use layers::{AimFile, Layers, ProjectFile, ProjectFileKind};
pub use probe::{version, version_within};
pub use registry::{Entry, Ignored, Registry, RegistryError, Undriven};
pub use secrets::Secrets;
