"""What the environment tells a worker process or the `astrid` command, parsed once.

Owns names, defaults and units of the variables; never connects to anything.
"""

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

#: Where the embedded default keeps its database and artifacts, relative to the working directory.
DEFAULT_HOME = Path("out/astrid")


class StorageSettings(BaseSettings):
    """Where rows and pixels live, and what may be read."""

    model_config = SettingsConfigDict(env_prefix="ASTRID_", extra="ignore", frozen=True)

    #: SQLAlchemy URL. `sqlite:///…` or `postgresql+psycopg://…`; plain `postgresql://` is understood too.
    database_url: SecretStr = SecretStr(f"sqlite:///{DEFAULT_HOME}/astrid.sqlite3")
    #: fsspec URL of the artifact store: a folder (`file:///…` or a path) or `s3://bucket/prefix`.
    artifacts_url: str = f"{DEFAULT_HOME}/artifacts"
    #: Colon-separated folders from which `file://` addresses and plain paths may be read; empty: none.
    input_roots: str = ""
    #: Most bytes that one fetched or read file may have, and that it may become when decompressed.
    max_input_bytes: int = 2_000_000_000
    #: Most pixels of one image HDU.
    max_pixels: int = 400_000_000
    #: Seconds one download may take.
    fetch_timeout_seconds: float = 120.0
    #: http(s) address that the `webhook` channel posts alerts to; none: that channel is not configured.
    webhook_url: SecretStr | None = None

    @property
    def allowed_roots(self) -> tuple[Path, ...]:
        """`input_roots` as resolved paths."""
        return tuple(Path(part).resolve() for part in self.input_roots.split(":") if part)


class ModelSettings(BaseSettings):
    """Which model classifies candidates."""

    model_config = SettingsConfigDict(env_prefix="WORKER_", extra="ignore", frozen=True, protected_namespaces=())

    #: Goes into the hand-off from differencing to detection.
    model_id: str = Field(default="matched-filter", min_length=1)
