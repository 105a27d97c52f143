"""Does the code fit the schema: its SQL statements, the row types of its projections, the generations it needs."""
