//! What is granted when a tool asks for a permission.
