"""Markets: what can be traded, on which terms, at which quotes, and what became of it."""
