"""Paying the positions of markets that were settled, amended or voided: a loop over what is not yet as it should be."""
