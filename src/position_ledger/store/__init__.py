"""The event log: append, feed, mapping, upcasting. The only package that imports the eventsourcing library."""
