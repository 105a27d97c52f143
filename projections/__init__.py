"""What a team edits: one module per table, with its columns, business key and fold."""
