"""The projections, workers and migrations that ship: beside this file in a wheel, else at the top of the checkout."""

from pathlib import Path

if not Path(__file__).with_name("projections").is_dir():  # pragma: no branch - beside it only in a wheel
    __path__.append(str(Path(__file__).parents[3]))
