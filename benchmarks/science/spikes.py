"""Flags on spikes: what stands on drawn rays and has none, and what has one and stands on no ray.

Owns the drawing and the counting; never tunes anything. Frames of each kind are made for each seed, with and
without spikes; spikes are on stars from a tenth of the light on that clips, at an angle that goes with the
seed. Cosmic rays are masked as `astrid run` does.

    python benchmarks/science/spikes.py 9331 9332 --size 768
"""

import argparse
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pairs import pair_settings
from scipy import ndimage

from astrid_workers.differencing.pair import PairResult, run_pair
from astrid_workers.mask import MaskBit
from astrid_workers.preprocessing.calibrate import calibrate
from astrid_workers.sky import Blemishes, Sky, make_sky

#: Many bright stars that do not clip; stars per Mpix.
BRIGHT: dict[str, Any] = {"n_stars": 1500, "star_flux_e": (2e3, 1.5e6)}
CROWDED: dict[str, Any] = {"n_stars": 8000, "star_flux_e": (5e2, 1.5e6)}
#: Kind → changes to the realistic pair, share of a star's light in its spikes.
KINDS: dict[str, tuple[dict[str, Any], float]] = {
    "bright stars": (BRIGHT, 0.0),
    "crowded": (CROWDED, 0.0),
    "galaxies": ({"n_galaxies": 3000, "galaxy_sigma_px": (0.8, 5.0)}, 0.0),
    "bright stars, 0.3 %": (BRIGHT, 0.003),
    "bright stars, 1 %": (BRIGHT, 0.01),
    "bright stars, 3 %": (BRIGHT, 0.03),
    "crowded, 1 %": (CROWDED, 0.01),
}
#: A candidate stands on a ray where the ray's light alone, filtered as a point, has this S/N within 2 px.
RAY_SNR = 1.5
#: A transient stands on no ray where none of so many electrons per pixel is drawn within so many FWHM.
NO_RAY_E, NO_RAY_FWHM = 0.02, 2.0
MATCH_PX = 3.0


@dataclass(frozen=True, slots=True)
class Counted:
    """Of one pair."""

    #: Rays that were found; candidates on drawn rays, and how many of them have no flag that speaks against
    #: them.
    rays: int
    on_rays: int
    clean_on_rays: int
    #: Transients that stand on no drawn ray, and how many of their pixels are flagged as stray light.
    transients: int
    flagged_transients: int
    #: Share of the pixels that is flagged, in units of 0.01 %.
    flagged_e4: int


def counted(sky: Sky, pair: PairResult) -> Counted:
    """Against what was drawn."""
    made, drawn = pair.difference, sky.blemished.stray_light
    stray = (made.mask & np.uint32(MaskBit.STRAY_LIGHT)) != 0
    lit = _ray_snr(drawn, made.flux_error, made.fwhm_science_px) > RAY_SNR
    near = 2 * round(NO_RAY_FWHM * made.fwhm_science_px) + 1
    off = ~ndimage.maximum_filter(drawn > NO_RAY_E, near)
    truth = sky.truth
    places = [
        (round(y), round(x)) for x, y in zip(truth["x"], truth["y"], strict=True) if off[round(y), round(x)]
    ]
    on_rays = [
        c
        for c in pair.candidates.items
        if lit[round(c.y), round(c.x)] and np.min(np.hypot(truth["x"] - c.x, truth["y"] - c.y)) > MATCH_PX
    ]
    return Counted(
        int(made.numbers["spikes"] or 0),
        len(on_rays),
        sum(not c.is_doubted for c in on_rays),
        len(places),
        sum(bool(stray[place]) for place in places),
        round(1e4 * float(stray.mean())),
    )


def _ray_snr(drawn: NDArray[np.float64], flux_error: NDArray[np.float32], fwhm_px: float) -> NDArray[Any]:
    sigma = fwhm_px / 2.355
    flux = ndimage.gaussian_filter(drawn, sigma) * 4 * np.pi * sigma**2
    return np.asarray(ndimage.maximum_filter(np.nan_to_num(flux / flux_error), 5))


def main() -> None:
    """One line per pair, and the sums of each kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seeds", type=int, nargs="+")
    parser.add_argument("--size", type=int, default=768)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    asked = parser.parse_args()
    print("kind", *(field.name for field in fields(Counted)), sep="\t")
    for kind in asked.kinds:
        changes, share = KINDS[kind]
        totals = np.zeros(len(fields(Counted)), int)
        for seed in asked.seeds:
            blemishes = Blemishes(spike_share=share, spikes_from=0.1, spike_angle_deg=7.0 * seed % 90)
            settings = pair_settings("realistic", seed, asked.size) | {"blemishes": blemishes}
            counts = {n: round(changes[n] * asked.size**2 / 1e6) for n in changes if n.startswith("n_")}
            sky = make_sky(**(settings | changes | counts))
            pair = run_pair(calibrate(sky.science).frame, calibrate(sky.reference).frame)
            found = counted(sky, pair)
            row = [getattr(found, field.name) for field in fields(Counted)]
            totals += row
            print(f"{kind} {seed}", *row, sep="\t", flush=True)
        print(f"{kind} all", *totals, sep="\t", flush=True)


if __name__ == "__main__":
    main()
