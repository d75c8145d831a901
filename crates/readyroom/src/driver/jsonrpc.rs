//! JSON-RPC over lines, shared by the `acp` and `codex` drivers.
