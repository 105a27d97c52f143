"""What a team would write to add a column to positions that only history can fill: one SQL file and one field."""
