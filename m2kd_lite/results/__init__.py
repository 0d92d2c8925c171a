"""Measured runs: as tables, as one page, and beside the numbers of the paper."""
