"""Simulated frames with their truth, from a seed: for the demonstration, the tests and the benchmarks."""

from astrid_workers.sky.blemishes import Blemished, Blemishes
from astrid_workers.sky.make_sky import TRUTH_DTYPE, Sky, make_sky
from astrid_workers.sky.sky_to_fits import frame_to_user_fits, mask_to_user_fits, sky_to_fits

__all__ = [
    "TRUTH_DTYPE",
    "Blemished",
    "Blemishes",
    "Sky",
    "frame_to_user_fits",
    "make_sky",
    "mask_to_user_fits",
    "sky_to_fits",
]
