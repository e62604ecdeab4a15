"""What ASTRID_DATABASE_URL may say, and the one sentence for what it may not."""

import pytest

from astrid_workers.errors import SettingRejected
from astrid_workers.storage.connection import parsed_url


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        pytest.param("", "is not a database address", id="nothing"),
        pytest.param("sky.db", "is not a database address", id="a file's name alone"),
        pytest.param("postgresql://user@host:port/sky", "is not a database address", id="a port in letters"),
        pytest.param("postgresql://[::1/sky", "is not a database address", id="a bracket left open"),
        pytest.param("mysql://host/sky", "valid are sqlite and postgresql", id="another database"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_in_one_sentence(url: str, sentence: str) -> None:
    with pytest.raises(SettingRejected, match=sentence):
        parsed_url(url)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql"])
def test_a_plain_postgresql_address_takes_the_driver_that_is_installed(scheme: str) -> None:
    assert parsed_url(f"{scheme}://user@host/sky").drivername == "postgresql+psycopg"
