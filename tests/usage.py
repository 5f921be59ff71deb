"""The error message of wrong options, for the tests of several modules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from slurp.config import parse
from slurp.errors import Exit


def usage_error(
    capsys: pytest.CaptureFixture[str], argv: Sequence[str], environ: Mapping[str, str] | None = None
) -> str:
    """Parse wrong options; return the one line on standard error that they must cause, with exit code 2."""
    with pytest.raises(SystemExit) as stopped:
        parse(argv, environ or {})
    assert stopped.value.code == Exit.USAGE
    out, err = capsys.readouterr()
    assert not out
    assert err.count("\n") == 1
    return err
