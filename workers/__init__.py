"""How projecting is run: the broker made from settings, and the dramatiq actors."""
