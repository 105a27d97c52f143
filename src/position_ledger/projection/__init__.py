"""The engine that turns the log into SCD2 tables: definitions, folding, writing, leases, rebuild, verification."""
