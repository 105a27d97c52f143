"""Game states: score, period, clock and situation of a game as it goes on."""
