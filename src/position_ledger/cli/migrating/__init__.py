"""`position-ledger migrate`: a group whose commands are found by name, like those of the program."""
