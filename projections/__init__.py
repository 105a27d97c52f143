"""The projected tables: one module each, with its columns, its business key and its folds."""
