"""What a variable of the environment may be."""

import pytest

from astrid_workers.errors import SettingRejected
from astrid_workers.settings import CurationSettings, DifferencingSettings, NotificationSettings


@pytest.mark.parametrize(
    ("variable", "value", "settings"),
    [
        ("ASTRID_DIFFERENCING_ALGORITHM", "hotpants", DifferencingSettings),
        ("ASTRID_DIFFERENCING_THRESHOLD_SIGMA", "low", DifferencingSettings),
        ("ASTRID_CURATION_TRIPLET_SIZE_PX", "3", CurationSettings),
        ("ASTRID_WEBHOOK_TIMEOUT_SECONDS", "-1", NotificationSettings),
    ],
)
def test_a_bad_variable_is_refused_by_its_name(monkeypatch, variable, value, settings):
    """A message must not be retried for a typing error of whoever runs the workers."""
    monkeypatch.setenv(variable, value)

    with pytest.raises(SettingRejected, match=f"{variable} is '{value}'"):
        settings()
