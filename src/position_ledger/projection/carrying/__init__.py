"""Which amounts a load may leave as text, read from the source of the folds: `amounts` asks, `reading` finds, `uses` keeps."""
