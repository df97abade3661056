"""Fixtures that several test files share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The public annotations and golden numbers; skipped without them, an error on CI."""
    folder = os.environ.get("AVVP_REAL_DATA")
    if folder and Path(folder).is_dir():
        return Path(folder)
    reason = f"real annotations wanted: AVVP_REAL_DATA is {folder!r}, not a folder"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
