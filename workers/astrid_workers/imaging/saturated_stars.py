"""The saturated stars of a frame: where they stand, and the frame without their light.

Owns which regions are stars of which size, and the order in which their wings are fitted and taken off. Never
changes a mask.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from astrid_workers.frame import Float32Image
from astrid_workers.imaging.star_wings import Wings, fit_wings

BoolImage = NDArray[np.bool_]

#: Pixels of a region below which it is no star: a hot pixel, a cosmic ray.
FEWEST_PIXELS = 9
#: Stars that are fitted per megapixel at most, the largest: more than that are a crowded field's own light.
MOST_PER_MPIX = 30.0


@dataclass(frozen=True, slots=True)
class SaturatedStar:
    """A saturated region: its widest place, and how far from that it is saturated all around."""

    #: Of the region among the labels.
    number: int
    x: float
    y: float
    radius_px: float
    n_pixels: int


def saturated_stars(saturated: BoolImage) -> tuple[NDArray[np.int32], list[SaturatedStar]]:
    """Regions of `saturated` pixels (touching ones, corners included): their labels, and the stars among
    them, largest first.

    The widest place of a region is where its star stands, also where charge bled along a column.
    """
    labels, _ = ndimage.label(saturated, np.ones((3, 3)))
    found = []
    for number, window in enumerate(ndimage.find_objects(labels), start=1):
        region = np.pad(labels[window] == number, 1)
        n_pixels = int(np.count_nonzero(region))
        if n_pixels < FEWEST_PIXELS:
            continue
        depth = ndimage.distance_transform_edt(region)
        rows, columns = np.nonzero(depth > depth.max() - 0.5)
        found.append(
            SaturatedStar(
                number,
                float(columns.mean()) - 1 + window[1].start,
                float(rows.mean()) - 1 + window[0].start,
                float(depth.max()),
                n_pixels,
            )
        )
    most = max(int(MOST_PER_MPIX * saturated.size / 1e6), 10)
    found.sort(key=lambda star: (-star.radius_px, -star.n_pixels, star.number))
    return labels, found[:most]


def without_wings(
    image: Float32Image,
    variance: Float32Image,
    usable: BoolImage,
    stars: list[SaturatedStar],
    fwhm_px: float,
    sky_sigma: float,
) -> tuple[Float32Image, list[Wings | None]]:
    """A copy of a background-subtracted `image` less the fitted light of `stars`, and the fits.

    Stars are fitted largest first, each on what the others have left; those whose wings overlap once more.
    None stands for a star that could not be fitted: its light is still in the image. Values of pixels that
    are not `usable` mean nothing.
    """
    left = image.copy()
    fits: list[Wings | None] = []
    for star in stars:
        place = star.x, star.y
        fits.append(fit_wings(left, variance, usable, place, star.radius_px, fwhm_px, sky_sigma))
        _take_off(left, fits[-1])
    for number, star in enumerate(stars):
        if not _overlaps(fits, number):
            continue
        put_back(left, fits[number])
        again = fit_wings(left, variance, usable, (star.x, star.y), star.radius_px, fwhm_px, sky_sigma)
        fits[number] = again or fits[number]
        _take_off(left, fits[number])
    return left, fits


def _take_off(image: Float32Image, wings: Wings | None) -> None:
    if wings is not None:
        window = wings.window(image.shape)
        image[window] -= wings.image(window)


def put_back(image: Float32Image, wings: Wings | None) -> None:
    """Add the light of one fit to an image again, in place."""
    if wings is not None:
        window = wings.window(image.shape)
        image[window] += wings.image(window)


def _overlaps(fits: list[Wings | None], number: int) -> bool:
    """Whether another star's wing reaches the middle of this one's."""
    one = fits[number]
    return one is not None and any(
        other is not None
        and other is not one
        and max(abs(other.x - one.x), abs(other.y - one.y)) < other.reach_px + one.reach_px / 2
        for other in fits
    )
