"""What holds where nobody says otherwise, and stands in the help of `astrid`.

Owns the defaults that a verb's arguments share with its work; imports nothing but the standard library, so
that help answers at once.
"""

from pathlib import Path
from typing import Final

#: Where the embedded default keeps its database and artifacts, relative to the working directory.
HOME = Path("out/astrid")
#: Survey of an observation that names none.
SURVEY = "default"

#: |score| in sigma from which a peak of either sign is a candidate.
THRESHOLD_SIGMA = 5.0
#: How two frames are subtracted: as what is measured of them allows.
ALGORITHM: Final = "auto"
#: Seed of injected sources: their places and photons.
INJECTION_SEED = 1

#: Whose pixel grid a stack takes: that of its first frame.
ONTO: Final = "first"
#: A pixel of a stack further than this from the median of all frames is an outlier, sigma.
CLIP_SIGMA = 5.0
#: Frames that are stacked at most.
MOST_STACKED = 30
