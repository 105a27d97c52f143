"""From a command to its append: load streams, decide, append under optimistic concurrency, answer repeats."""
