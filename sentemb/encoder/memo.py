"""What was learned of a checkpoint on this machine, so that the next start need not learn it again.

The first full load checks the lean forward pass against transformers and reads the tokenizer through it; a memo of
that in the user's cache folder lets later starts do without transformers. It is bound to the files (size and time of
change), to the releases and to sentemb's own code, and anything unexpected in it means a full load.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from sentemb.files import cache_dir, write_json
from sentemb.types import Vocabulary

_READ = (".json", ".safetensors", ".txt", ".model")


@dataclass(frozen=True)
class Memo:
    """What one checkpoint's full load found."""

    tokenizer: str  # JSON of the `tokenizers` backend
    size: int
    pad: int
    mask: int | None
    special: list[int]
    max_tokens: int  # without override
    digest: str  # of ``digest_of``
    checked: list[str]  # devices and dtypes in which the lean forward pass agreed with the plain one

    @property
    def vocabulary(self) -> Vocabulary:
        """What parts must know of the tokenizer."""
        return Vocabulary(self.size, self.pad, self.mask, frozenset(self.special))


def memo_path(folder: Path) -> Path:
    """Where the memo of the checkpoint in ``folder`` lies, or would lie."""
    files = [path for path in sorted(folder.rglob("*")) if path.suffix in _READ and path.is_file()]
    code = sorted(Path(__file__).parent.rglob("*.py"))
    facts = [str(folder.resolve()), _states([*files, *code]), torch.backends.cpu.get_cpu_capability()]
    for package in ("sentemb", "torch", "transformers", "tokenizers"):
        try:
            facts.append(version(package))
        except PackageNotFoundError:
            facts.append("source")
    key = sha256(json.dumps(facts).encode()).hexdigest()[:32]
    return cache_dir() / "encoders" / f"{key}.json"


def read_memo(path: Path) -> Memo | None:
    """The memo, or None where there is none that can be used."""
    try:
        return Memo(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def write_memo(path: Path, memo: Memo) -> None:
    """Keep the memo; a cache folder that cannot be written is no fault."""
    try:
        write_json(path, asdict(memo))
    except OSError:
        return


def _states(paths: Iterable[Path]) -> str:
    return json.dumps([(path.name, (state := path.stat()).st_size, state.st_mtime_ns) for path in paths])
