"""The measurements behind docs/reference/performance.md: ratios within one run, with the floor beside each."""
