"""What the tests of several libraries share."""

from __future__ import annotations

import os

import pytest

from sentemb import Encoder

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"


@pytest.fixture(scope="session")
def encoder(tiny_bert) -> Encoder:
    return Encoder.load(tiny_bert, precision="fp32")
