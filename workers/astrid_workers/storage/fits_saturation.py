"""Whether the saturation level of a header can be one, seen from the pixels.

Owns that one check; which pixels become mask is `imaging.measured_frame`.
"""

from dataclasses import replace

from astrid_workers.frame import Float32Image, HeaderFacts
from astrid_workers.imaging.noise import robust_median_and_scatter

#: A level within so many sigma of the sky would flag the noise of the sky: no detector is used like that.
SKY_SIGMA = 5.0


def believed_saturation(facts: HeaderFacts, pixels: Float32Image) -> tuple[HeaderFacts, str | None]:
    """The facts without a saturation level that the sky itself reaches, and the sentence that says so.

    `pixels` are in the unit of the facts, NaN where not measured. An image without scatter says nothing.
    """
    level = facts.saturation
    if level is None:
        return facts, None
    sky, scatter = robust_median_and_scatter(pixels)
    if not scatter > 0 or level > sky + SKY_SIGMA * scatter:
        return facts, None
    said = (
        f"SATURATE says {level:g}, and the sky is at {sky:.4g} with a scatter of {scatter:.3g}:"
        " not believed, taken as missing"
    )
    return replace(facts, saturation=None), said
