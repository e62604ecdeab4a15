"""What the environment tells a worker process or the `astrid` command, parsed once.

Owns names, defaults and units of the variables; never connects to anything.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from astrid_workers.defaults import ALGORITHM, HOME, THRESHOLD_SIGMA
from astrid_workers.errors import SettingRejected


class EnvironmentSettings(BaseSettings):
    """Settings that refuse a bad variable by its name, in one sentence: a retry cannot help."""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise SettingRejected("; ".join(self._sentence(one) for one in error.errors())) from None

    def _sentence(self, error: Any) -> str:
        prefix = type(self).model_config.get("env_prefix", "")
        name = f"{prefix}{'_'.join(map(str, error['loc']))}".upper()
        return f"{name} is {error['input']!r}: {error['msg']}"


class StorageSettings(EnvironmentSettings):
    """Where rows and pixels live, and what may be read."""

    model_config = SettingsConfigDict(env_prefix="ASTRID_", extra="ignore", frozen=True)

    #: SQLAlchemy URL. `sqlite:///…` or `postgresql+psycopg://…`; plain `postgresql://` is understood too.
    database_url: SecretStr = SecretStr(f"sqlite:///{HOME}/astrid.sqlite3")
    #: fsspec URL of the artifact store: a folder (`file:///…` or a path) or `s3://bucket/prefix`.
    artifacts_url: str = f"{HOME}/artifacts"
    #: Colon-separated folders from which `file://` addresses and plain paths may be read; empty: none.
    input_roots: str = ""
    #: Most bytes that one fetched or read file may have, and that it may become when decompressed.
    max_input_bytes: int = 2_000_000_000
    #: Most pixels of one image HDU.
    max_pixels: int = 400_000_000
    #: Seconds one download may take.
    fetch_timeout_seconds: float = 120.0

    @property
    def allowed_roots(self) -> tuple[Path, ...]:
        """`input_roots` as resolved paths."""
        return tuple(Path(part).resolve() for part in self.input_roots.split(":") if part)


class ModelSettings(EnvironmentSettings):
    """Which model classifies candidates."""

    model_config = SettingsConfigDict(
        env_prefix="WORKER_", extra="ignore", frozen=True, protected_namespaces=()
    )

    #: Goes into the hand-off from differencing to detection.
    model_id: str = Field(default="matched-filter", min_length=1)


#: Algorithms that a message or a setting may ask for.
AlgorithmName = Literal["auto", "zogy", "classic"]


class DifferencingSettings(EnvironmentSettings):
    """How observations are differenced when a message does not say."""

    model_config = SettingsConfigDict(env_prefix="ASTRID_DIFFERENCING_", extra="ignore", frozen=True)

    #: `auto` chooses between the others by what the frames allow.
    algorithm: AlgorithmName = ALGORITHM
    #: |score| in sigma from which a peak of either sign is a candidate.
    threshold_sigma: float = Field(default=THRESHOLD_SIGMA, ge=3.0, le=100.0)


class CurationSettings(EnvironmentSettings):
    """What is put before people, and what may wake them."""

    model_config = SettingsConfigDict(env_prefix="ASTRID_CURATION_", extra="ignore", frozen=True)

    #: |score| in sigma from which a detection raises an alert; 10 is photometry to 10 %.
    alert_min_score: float = Field(default=10.0, gt=0)
    #: Most alerts of one detection run, strongest first; a bad subtraction must not flood a channel.
    max_alerts_per_run: int = Field(default=20, ge=0)
    #: Most triplet pictures of one detection run, strongest first.
    max_triplets_per_run: int = Field(default=100, ge=0)
    #: Side of one cutout, in pixels of the science frame; odd, so that the detection has a centre.
    triplet_size_px: int = Field(default=63, ge=15, le=511)


#: Every channel that alerts can be delivered by.
CHANNELS = ("log", "webhook")


class NotificationSettings(EnvironmentSettings):
    """Where alerts go."""

    model_config = SettingsConfigDict(env_prefix="ASTRID_", extra="ignore", frozen=True)

    #: Comma-separated channels that alerts are sent to; one that is not configured says so and is left out.
    notification_channels: str = "log,webhook"
    #: http(s) address that the `webhook` channel posts alerts to; none: that channel is not configured.
    webhook_url: SecretStr | None = None
    #: Seconds that the webhook's server has to take the connection, and then to answer.
    webhook_timeout_seconds: float = Field(default=10.0, gt=0, le=50)

    @property
    def channel_names(self) -> tuple[str, ...]:
        """`notification_channels`, split, in the order given, without repeats."""
        names = (part.strip() for part in self.notification_channels.split(","))
        return tuple(dict.fromkeys(name for name in names if name))

    def missing_for(self, channel: str) -> str | None:
        """What keeps `channel` from being used, as a phrase; None when it is ready."""
        if channel not in CHANNELS:
            return f"there is no channel {channel!r}; there are: {', '.join(CHANNELS)}"
        if channel == "webhook" and self.webhook_url is None:
            return "no address is configured (ASTRID_WEBHOOK_URL)"
        return None
