"""The model card of a trained model: recipe, data, scores, sources; and sending a model to the hub."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sentemb.encoder import Encoder
from sentemb.encoder.card import card_of
from sentemb.encoder.exported import FACTS
from sentemb.errors import ModelError, first_line
from sentemb.evaluate.results import Results, TaskResult, read_results
from sentemb.files import write_text
from sentemb.parts.help import describe
from sentemb.recipe.recipe import Recipe

_SENT = ["*.json", "*.safetensors", "*.txt", "*.model", "*.md", "*.jinja"]  # what loading reads: never a pickle
_GRAPHS = ["model.onnx*", "openvino_model.*"]  # of sentemb export


def write_card(
    model: Path, *, encoder: Encoder | None = None, name: str | None = None, results: Sequence[Path] = (),
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Write ``README.md`` of a saved model anew, with what its run's folder knows where it lies in one (RUN/model).

    Args:
        encoder: what was saved there, where it is at hand.
        name: what readers load; None: the folder.
        results: files of ``sentemb eval`` whose scores it shows.
        facts: further entries of the hub's table, e.g. license.

    Raises: ModelError, DataError: no model there, or a results file that is none, or of another model.
    """
    encoder = encoder or Encoder.load(model)
    read = [read_results(path) for path in results]
    other = next((path for path, one in zip(results, read, strict=True)
                  if one.model.digest not in (None, "", encoder.digest())), None)  # fmt: skip
    if other is not None:
        raise ModelError(f"{other}: scores of another model than {model}; evaluate this one")
    sections, run = {}, model.parent
    has_run = (run / "recipe.toml").is_file() and (run / "run.json").is_file() and model.name == "model"
    if has_run:
        recipe = Recipe.load(run / "recipe.toml")
        encoder.source = recipe.encoder.backbone  # what it was made from
        sections["Training"] = _training(recipe, run)
    if read:
        sections["Scores"] = _scores(read)
    if has_run:
        sections["Sources"] = _sources(recipe)
    title = name or (run.resolve().name if has_run else model.resolve().name)
    name = name or str(model)
    table = {**({"model-index": _index(title, read)} if read else {}), **(facts or {})}
    write_text(model / "README.md", card_of(encoder, model, name=name, title=title, sections=sections, facts=table))


def push(
    model: str | Path, repository: str, *, results: Sequence[Path] = (), facts: Mapping[str, Any] | None = None,
    is_private: bool = False, branch: str | None = None,
) -> str:
    """Write the model card and send the folder to the hub; gives the address.

    The token is that of ``hf auth login`` or of the variable HF_TOKEN. Only what loading reads is sent. The card of an
    exported model stays as it is.

    Raises: ModelError: no model there, or the hub refused.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    folder = Path(model)
    is_export = (folder / FACTS).is_file()
    if not is_export and not (folder / "modules.json").is_file():
        raise ModelError(f"{folder}: no saved model (no modules.json); give the folder that training, Encoder.save or "
                         "sentemb export wrote")
    if is_export and (results or facts):
        raise ModelError(f"{folder}: the card of an exported model is sent as it is; write scores and further facts "
                         "into its README.md")
    if not is_export:
        write_card(folder, name=repository, results=results, facts=facts)
    api = HfApi()
    try:
        api.create_repo(repository, private=is_private, exist_ok=True)
        if branch is not None:
            api.create_branch(repository, branch=branch, exist_ok=True)
        done = api.upload_folder(
            repo_id=repository, folder_path=folder, revision=branch,
            allow_patterns=[*_SENT, *(_GRAPHS if is_export else [])],
            commit_message="Model saved by sentemb",
        )
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        advice = "log in with: hf auth login" if "401" in str(error) or "403" in str(error) else "try again"
        raise ModelError(f"{repository}: the hub did not take the model ({first_line(error)}); {advice}") from None
    return str(done.commit_url)


def _training(recipe: Recipe, run: Path) -> str:
    """What was trained on what, how long, and how it scored on the way."""
    facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
    lines = [f"Recipe `{recipe.name}`" + (f": {recipe.source}." if recipe.source else ".")]
    lines.append(f"Data: {recipe.data}, {facts['rows']:,} rows.")
    file = run / "result.json"
    if file.is_file():
        result = json.loads(file.read_text(encoding="utf-8"))
        gpu = f" on {facts['gpu']}" if facts.get("gpu") else ""
        lines.append(f"{result['steps']:,} steps of {recipe.train.batch_size} in {result['seconds']:,.0f} s{gpu}, "
                     f"seed {recipe.train.seed}.")  # fmt: skip
        if result.get("best_score") is not None:
            lines.append(f"Best dev score {result['best_score']:.4g} at step {result['best_step']:,}, which is the "
                         "checkpoint that is kept.")  # fmt: skip
    versions = ", ".join(f"{name} {version}" for name, version in facts.get("versions", {}).items())
    return "\n".join([*lines, f"Versions: {versions}.", "", "```toml", recipe.to_toml().rstrip(), "```"])


def _scores(read: Sequence[Results]) -> str:
    rows = ["| task | protocol | metric | score | 95 % interval | n |", "|---|---|---|---:|---|---:|"]
    for results in read:
        rows += [
            f"| {task.task} | {task.protocol} | {task.metric} | {task.main:.2f} | {_interval(task)} | {task.count:,} |"
            for task in results.tasks
        ]
        rows += [f"| average {name} | | | {value:.2f} | | |" for name, value in results.averages.items()]
    return "\n".join(["Scores × 100 of this checkpoint, by `sentemb eval`.", "", *rows])


def _interval(task: TaskResult) -> str:
    return "" if task.interval is None else f"{task.interval.low:.2f} to {task.interval.high:.2f}"


def _index(name: str, read: Sequence[Results]) -> list[dict[str, Any]]:
    """The scores as the hub's ``model-index`` has them."""
    return [{"name": name, "results": [
        {"task": {"type": task.kind}, "dataset": {"name": task.task, "type": task.task, "split": task.split},
         "metrics": [{"type": task.metric, "value": round(task.main, 4)}]}
        for results in read for task in results.tasks
    ]}]  # fmt: skip


def _sources(recipe: Recipe) -> str:
    """Where every part comes from."""
    lines = []
    for place, part in recipe.parts().items():
        source = describe(type(part)).source
        if source and source.rstrip(".") != "none":
            lines.append(f"* `{type(part).__name__}` ({place}): {source}")
    return "\n".join(lines) or "The parts of this recipe are sentemb's own."
