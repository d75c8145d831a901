//! One warm instance as an actor.
