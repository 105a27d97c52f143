"""What changes who holds a position, or what a contract is, without an execution: transfers, splits and merges."""
