"""Every failure the workers name, on one screen.

Owns the error tree and what each ending means for a message; never logs, retries or catches.

    AstridError
    ├── NothingToDo          an ending, not a failure: the reason is the result
    ├── PermanentFailure     a retry cannot help; the message goes to the dead letters at once
    │   ├── ObservationRejected   payload with errors, one sentence each
    │   ├── FrameRejected         a file or its pixels cannot be used
    │   ├── ArtifactDamaged       stored bytes that are not what was stored
    │   ├── SourceRefused         an address or path that may not be read
    │   ├── UnknownObservation    an id that matches none, or several, for good
    │   ├── UnknownRecord         an id of a run, difference, detection or alert that names nothing
    │   ├── UnknownModel          a model that is not installed
    │   ├── SubtractionRefused    the frames cannot be differenced, with the numbers
    │   ├── DeliveryRefused       a channel's other end says no, and would say so again
    │   └── SettingRejected       a setting, queue or worker type that is not valid
    └── TransientFailure     a retry may help
        ├── ObservationNotThereYet
        └── ServiceUnavailable    database, artifact store, archive or broker
"""


class AstridError(Exception):
    """Root of all errors that Astrid raises on purpose; `str()` of it is one clear sentence."""

    #: Numbers behind the sentence, storable as JSON.
    numbers: dict[str, float | int | str]

    def __init__(self, sentence: str, **numbers: float | int | str) -> None:
        super().__init__(sentence)
        self.numbers = numbers


class NothingToDo(AstridError):  # noqa: N818 - an ending, not an error
    """There is no work here, and why."""


class PermanentFailure(AstridError):  # noqa: N818 - named for what it is
    """A retry cannot help."""


class TransientFailure(AstridError):  # noqa: N818 - named for what it is
    """A retry may help."""


class ObservationRejected(PermanentFailure):
    """An ingest payload that breaks rules; `errors` holds one sentence per broken rule."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("; ".join(errors))
        self.errors = errors


class FrameRejected(PermanentFailure):
    """A file or frame that cannot be used; the sentence names file, card, value and what was expected."""


class ArtifactDamaged(PermanentFailure):
    """Stored bytes that do not have the checksum of what was stored; the sentence names the key."""


class SourceRefused(PermanentFailure):
    """An address or a path outside what may be read."""


class UnknownObservation(PermanentFailure):
    """An id that names no observation, or more than one survey's."""


class UnknownRecord(PermanentFailure):
    """An id of a run, difference, detection or alert that names nothing; the sentence says of which kind."""


class UnknownModel(PermanentFailure):
    """A model that is not installed; the sentence lists those that are."""


class SubtractionRefused(PermanentFailure):
    """Two frames that cannot be differenced: too few stars, no significant registration, large residuals."""


class DeliveryRefused(PermanentFailure):
    """The other end of a channel refused the message and would again; the sentence has its answer."""


class SettingRejected(PermanentFailure):
    """A setting, queue or worker type outside what is valid; the sentence lists what is."""


class ObservationNotThereYet(TransientFailure):
    """An observation that has not been ingested yet."""


class ServiceUnavailable(TransientFailure):
    """A database, artifact store, archive or broker that does not answer; the sentence says which."""
