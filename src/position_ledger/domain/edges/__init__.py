"""Edges: what a model believes a contract is worth against what the market asks, and what became of it."""
