"""What is imported is declared: in the core, or in an extra that its absence names."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
# import name -> name of the distribution, where they differ
DISTRIBUTIONS = {
    "faiss": "faiss-cpu", "sklearn": "scikit-learn", "pytrec_eval": "pytrec-eval-terrier", "tomli_w": "tomli-w",
    "sentence_transformers": "sentence-transformers", "Stemmer": "pystemmer",
    "bs4": "beautifulsoup4", "docx": "python-docx", "haystack": "haystack-ai", "llama_index": "llama-index-core",
}  # fmt: skip
BROUGHT_BY_OTHERS = {"IPython", "pydantic_core"}  # by the notebook that runs sentemb; by pydantic
NOT_INSTALLED = {"wandb", "mlflow"}


def name_of(requirement: str) -> str:
    return re.split(r"[\[<>=!~;\s]", requirement)[0].lower().replace("_", "-")


def packages_of(extra: str) -> set[str]:
    """Distributions of an extra and of the extras that it includes."""
    names: set[str] = set()
    for requirement in EXTRAS[extra]:
        if requirement.startswith("sentemb["):
            for other in requirement.removeprefix("sentemb[").rstrip("]").split(","):
                names |= packages_of(other)
        else:
            names.add(name_of(requirement))
    return names


def distribution(package: str) -> str:
    return DISTRIBUTIONS.get(package, package).replace("_", "-")


CORE = {name_of(requirement) for requirement in PROJECT["dependencies"]}


def imported(tree: ast.AST) -> set[str]:
    """Packages that a file imports when it is imported or used, not those for type checkers."""
    names: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").partition(".")[0] if not node.level else "")
        elif not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
            names |= imported(node)
    return names - sys.stdlib_module_names - {"sentemb", ""}


def guarded(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Package and extra of every ``needs_extra``; a task's ``packages`` are of the extra "eval"."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "needs_extra":
            values = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
            if len(values) == 2:
                yield str(values[0]), str(values[1])
        elif isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == "packages" and node.value:
            yield from ((package, "eval") for package in ast.literal_eval(node.value))


FILES = sorted((ROOT / "sentemb").rglob("*.py"))


# files that are only reached behind the guard of another file
BEHIND = {
    "sentemb/evaluate/mteb/encoder.py": {"mteb"}, "sentemb/evaluate/mteb/run.py": {"mteb"},
    "sentemb/serve/app.py": {"starlette", "prometheus_client"}, "sentemb/serve/running.py": {"starlette", "uvicorn"},
    "sentemb/integrations/mcp.py": {"starlette"}, "sentemb/serve/service.py": {"starlette"},
    "sentemb/serve/models.py": {"starlette"},
    "sentemb/encoder/ray_engine.py": {"pyarrow"},
}  # fmt: skip


@pytest.mark.parametrize("file", [str(path.relative_to(ROOT)) for path in FILES])
def test_every_import_is_declared(file: str) -> None:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    guards = dict(guarded(tree))
    for package, extra in guards.items():
        assert distribution(package) in packages_of(extra), f'{package} is not in the extra "{extra}"'
    for package in imported(tree) - BROUGHT_BY_OTHERS - BEHIND.get(file, set()) - guards.keys():
        assert distribution(package) in CORE, f'{package}: needs_extra("{package}", …) must stand before its import'


def test_the_floors_are_those_that_were_installed() -> None:
    """.ci/floors.txt holds, for every requirement, its lower bound exactly."""
    lines = (ROOT / ".ci" / "floors.txt").read_text().splitlines()
    pins = [line.lower().replace("_", "-").split("==") for line in lines if line[:1] not in ("#", "")]
    installed = dict(pins)
    requirements = [*PROJECT["dependencies"], *(one for extra in EXTRAS if extra != "dev" for one in EXTRAS[extra])]
    for requirement in requirements:
        bound = re.search(r">=([\d.]+)", requirement)
        name = name_of(requirement)
        if bound and name not in NOT_INSTALLED:
            version = installed[name].partition("+")[0]
            assert version == bound[1] or version.startswith(f"{bound[1]}."), f"{requirement}: {version} was tested"
