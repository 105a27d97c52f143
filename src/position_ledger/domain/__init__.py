"""The pure core: commands, events, and how positions and books change. No I/O, no clock."""
