"""The rows of ECSV tables against astropy's own."""

import io

import numpy as np
import pytest
from astropy import units as u
from astropy.table import MaskedColumn, Table

from astrid_workers.report.ecsv import ecsv_text

NUMBERS = [0.0, -0.0, 1.0, 1 / 3, -2.5e-7, 1e-4, 9.99e15, 1e16, 6.02e23, 1e300, float(np.float32(0.1))]
WORDS = ["", "a", "on_source,dipole", "two words", 'a "quoted" one', "#3", "'", "é", ",", "NaN", "nan"]


def _written(table: Table) -> str:
    out = io.StringIO()
    table.write(out, format="ascii.ecsv")
    return out.getvalue()


def _table(n: int) -> Table:
    table = Table()
    table["word"] = MaskedColumn(WORDS[:n], dtype=str)
    table["x"] = MaskedColumn(NUMBERS[:n], dtype=np.float64, unit=u.pix)
    table["flux"] = MaskedColumn(
        NUMBERS[:n], mask=[i % 2 == 0 for i in range(n)], dtype=np.float64, unit=u.Unit("MJy / sr")
    )
    table["never"] = MaskedColumn([np.nan] * n, mask=[True] * n, dtype=np.float64)
    return table


@pytest.mark.parametrize("n", [0, 1, 2, len(NUMBERS)])
def test_as_astropy_to_the_byte(n: int) -> None:
    """Numbers of every size, words with blanks and quotes, masked cells, and no rows at all."""
    assert ecsv_text(_table(n)) == _written(_table(n))


def test_one_column_alone() -> None:
    """A row that is one empty word is still a row."""
    table = Table()
    table["part"] = MaskedColumn(["", "SCI 1"], dtype=str)
    assert ecsv_text(table) == _written(table)
