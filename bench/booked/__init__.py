"""A table of thirty columns whose every event says all of them: what a load is measured on, and its floor in SQL."""
