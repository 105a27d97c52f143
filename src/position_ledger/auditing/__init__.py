"""Comparing the projected tables with the log all the time, a little at a time, in the workers."""
