"""Which candidates are kept as detections, and by which model.

Owns the registry of models and the rule of `matched-filter`; never reads pixels or rows. A model sees
facts and returns one verdict for each candidate, in order.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from astrid_workers.errors import UnknownModel


@dataclass(frozen=True, slots=True)
class CandidateFacts:
    """What a model may know of a candidate."""

    candidate_id: UUID
    x: float
    y: float
    #: Signed matched-filter significance, sigma.
    score: float
    snr: float
    #: Names of `CandidateFlag` that are set, in lower case.
    flags: frozenset[str]
    is_positive: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a model says of one candidate."""

    is_kept: bool
    #: Why not, one phrase each; empty when it is kept.
    reasons: tuple[str, ...] = ()
    #: Calibrated probability that the candidate is real; None where the model has none.
    confidence: float | None = None
    #: supernova, variable, transient, unknown or artifact; None where the model does not say.
    label: str | None = None


class Model(Protocol):
    """Anything that can judge candidates."""

    @property
    def version(self) -> str:
        """Raised whenever the same candidates could get another verdict."""

    def classify(self, candidates: Sequence[CandidateFacts]) -> list[Verdict]:
        """One verdict for each candidate, in order."""


class MatchedFilter:
    """Keeps every candidate whose flags do not explain it away; has no opinion on what it is.

    A flag explains a candidate away when the pixels under it could not be trusted, or when its shape is
    that of a subtraction gone wrong. Nothing is calibrated, so confidence and label are None.
    """

    #: Flag → what it says about the candidate.
    EXPLAINED_BY: dict[str, str] = {  # noqa: RUF012 - a constant table
        "edge": "too close to the edge",
        "masked": "touches pixels that are not trusted",
        "saturated": "on or beside saturated pixels",
        "streak": "on the track of a satellite or an aeroplane",
        "glint": "a flash of a satellite or of debris: one of several in a row, or a short trail",
        "stray_light": "in the halo of a saturated star or on a spike of a bright one",
        "dipole": "positive and negative side by side: a registration residual",
        "sharp": "narrower than the PSF: not a point source",
        "extended": "much wider than the PSF: a residual of the subtraction",
    }

    version = "1"

    def classify(self, candidates: Sequence[CandidateFacts]) -> list[Verdict]:
        """Kept unless a flag explains it."""
        return [self._judge(candidate) for candidate in candidates]

    def _judge(self, candidate: CandidateFacts) -> Verdict:
        reasons = tuple(sentence for flag, sentence in self.EXPLAINED_BY.items() if flag in candidate.flags)
        return Verdict(is_kept=not reasons, reasons=reasons)


#: Installed models by the name that clients use.
MODELS: dict[str, Callable[[], Model]] = {"matched-filter": MatchedFilter}


def installed_model(model_id: str) -> Model:
    """The model with that name; UnknownModel names those that are installed."""
    if model_id not in MODELS:
        message = f"the model {model_id!r} is not installed; installed: {', '.join(sorted(MODELS))}"
        raise UnknownModel(message)
    return MODELS[model_id]()
