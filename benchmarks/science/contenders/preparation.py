"""What rivals need before they subtract: one grid, cosmic rays masked, a PSF, a noise map.

Owns the customary way to get each, with the tools that STDPipe wraps (SWarp, astroscrappy, SExtractor,
PSFEx); what it costs is charged to the contender that asks. Runs in the rivals' Python.
"""

from typing import Any

import numpy as np

from contract import Pair


def reference_on_science_grid(pair: Pair) -> tuple[Any, Any]:
    """`(pixels, mask)` of the reference, resampled by SWarp (Lanczos 3) through both headers' WCS.

    Without a WCS on both: frames of one shape are taken as they lie when nothing says otherwise (`ALIGNED`
    card), else registered by astroalign.
    """
    science, reference = pair.science, pair.reference
    if reference.header.get("ALIGNED", False):
        return reference.pixels.copy(), reference.mask.copy()
    if science.wcs is None or reference.wcs is None:
        return _by_asterisms(pair)
    from stdpipe.reproject import reproject_swarp

    holes = np.where(reference.mask, np.nan, reference.pixels)
    header = science.header
    shape = science.pixels.shape
    moved = reproject_swarp(
        [(filled(holes, reference.mask), reference.header)], wcs=science.wcs, shape=shape, header=header
    )
    flags = reproject_swarp(
        [(reference.mask.astype(np.int16), reference.header)],
        wcs=science.wcs, shape=shape, header=header, is_flags=True,
    )  # fmt: skip
    if moved is None or flags is None:
        msg = "SWarp gave no image: STDPipe looks for a program named swarp on PATH (Debian's is named SWarp)"
        raise RuntimeError(msg)
    mask = (np.asarray(flags) != 0) | ~np.isfinite(moved)
    return np.where(np.isfinite(moved), moved, 0.0).astype(np.float64), mask


def _by_asterisms(pair: Pair) -> tuple[Any, Any]:
    import astroalign

    science, reference = pair.science, pair.reference
    source = np.ma.array(filled(reference.pixels, reference.mask), mask=reference.mask)
    target = np.ma.array(filled(science.pixels, science.mask), mask=science.mask)
    transform, _ = astroalign.find_transform(source, target, detection_sigma=5)
    moved, outside = astroalign.apply_transform(transform, source, target, propagate_mask=True)
    return np.asarray(moved, np.float64), np.asarray(outside, bool)


def filled(pixels: Any, mask: Any) -> Any:
    """Masked pixels at the median of the rest, for tools that know no NaN."""
    return np.where(mask, np.median(pixels[~mask]), pixels)


def cosmic_rays(pixels: Any, mask: Any, header: Any) -> Any:
    """The mask of astroscrappy with its own settings (sigma 4.5, fraction 0.3, contrast 5), gain 1."""
    import astroscrappy

    read_noise = float(header.get("RDNOISE", 5.0))
    saturation = float(header.get("SATURATE", 1e9))
    found, _ = astroscrappy.detect_cosmics(
        filled(pixels, mask).astype(np.float32), inmask=mask, gain=1.0, readnoise=read_noise,
        satlevel=saturation, cleantype="medmask",
    )  # fmt: skip
    return np.asarray(found, bool)


def background(pixels: Any, mask: Any) -> tuple[Any, float]:
    """sep's mesh of 64 px, the customary one: `(image, global rms)`."""
    import sep

    found = sep.Background(np.ascontiguousarray(filled(pixels, mask)), mask=mask, bw=64, bh=64)
    return found.back(), float(found.globalrms)


def variance(pixels: Any, sky: Any, rms: float) -> Any:
    """Of each pixel: the measured sky's, and the photons of what stands above it (gain 1)."""
    return rms**2 + np.maximum(pixels - sky, 0.0)


def psf_model(pixels: Any, mask: Any, *, order: int = 2) -> tuple[dict[str, Any], Any]:
    """PSFEx through STDPipe, and the objects that SExtractor found on the way."""
    from stdpipe.psf import run_psfex

    model, objects = run_psfex(pixels, mask=mask, gain=1.0, order=order, get_obj=True)
    return model, objects


def psf_stamp(model: dict[str, Any], shape: tuple[int, int]) -> Any:
    """The PSF at the frame's centre, sum 1, centred in an odd square."""
    from stdpipe.psf import get_psf_stamp

    stamp = get_psf_stamp(model, x=shape[1] / 2, y=shape[0] / 2, dx=0, dy=0, normalize=True)
    return np.asarray(stamp)


def flux_ratio(first: Any, second: Any, reach_px: float = 2.0) -> float:
    """Median flux of the objects of `first` over those of `second` that lie at the same places."""
    from scipy.spatial import cKDTree

    distance, index = cKDTree(np.transpose([second["x"], second["y"]])).query(
        np.transpose([first["x"], first["y"]]), distance_upper_bound=reach_px
    )
    both = np.isfinite(distance) & (np.asarray(first["flags"]) == 0)
    both[both] &= np.asarray(second["flags"])[index[both]] == 0
    ratio = np.asarray(first["flux"])[both] / np.asarray(second["flux"])[index[both]]
    return float(np.median(ratio)) if ratio.size else 1.0


def registration_scatter(first: Any, second: Any, reach_px: float = 2.0) -> tuple[float, float]:
    """Robust scatter in x and y of bright objects (S/N above 50) that both lists hold, pixels."""
    from scipy.spatial import cKDTree

    bright = np.asarray(first["flux"]) / np.asarray(first["fluxerr"]) > 50
    one = np.transpose([first["x"], first["y"]])[bright]
    two = np.transpose([second["x"], second["y"]])
    distance, index = cKDTree(two).query(one, distance_upper_bound=reach_px)
    near = np.isfinite(distance)
    if np.count_nonzero(near) < 5:
        return 0.25, 0.25
    off = one[near] - two[index[near]]
    scatter = 1.4826 * np.median(np.abs(off - np.median(off, axis=0)), axis=0)
    return float(scatter[0]), float(scatter[1])
