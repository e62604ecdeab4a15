"""Simulated skies with their truth: used by the demonstration, tests and benchmarks."""

from astrid_workers.sky.make_sky import TRUTH_DTYPE, Sky, make_sky

__all__ = ["TRUTH_DTYPE", "Sky", "make_sky"]
