"""The team's projected tables after the change."""
