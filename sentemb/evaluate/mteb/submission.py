"""What MTEB's leaderboard asks of a submission: the model's description as Python, and results in its tree.

The results repository takes scores of the reference implementation only, so everything else is refused: another
precision, another protocol, and a model that is not the one on the hub.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from sentemb.encoder import Encoder
from sentemb.errors import EvaluationError, needs_extra
from sentemb.evaluate.model import EvalModel
from sentemb.evaluate.opening import ModelOptions, of_source
from sentemb.evaluate.results import Results, read_results
from sentemb.files import atomic_folder, write_json, write_text

_COMMIT = re.compile(r"[0-9a-f]{40}")
_TO_FILL = ("release_date", "languages", "license", "public_training_code", "public_training_data", "training_datasets")


def submission(results: Path, output: Path, *, model: str, revision: str | None = None) -> Path:
    """Lay out results for ``ResultCache(output).submit_results``, with ``model_meta.py`` beside them; gives that file.

    Args:
        results: a results file of ``sentemb eval -o FOLDER``, inside that folder.
        output: a new folder.
        model: hub id of the model that was scored; its weights, tokenizer and prompts must be those that were scored.
        revision: its branch, tag or commit; None: the newest.

    Raises:
        EvaluationError: scores that MTEB does not take; says every reason.
        ModelError: the hub has no such model.
    """
    needs_extra("mteb", "eval")
    if model.count("/") != 1 or Path(model).exists():
        raise EvaluationError(f"{model}: is no id of the hub (OWNER/NAME); push the model first, then name it")
    if output.exists():
        raise EvaluationError(f"{output}: exists; name a new folder")
    scored = read_results(results)
    faults = _faults(scored)
    if faults:
        raise EvaluationError("\n".join(f"{results}: {fault}" for fault in faults))
    options = ModelOptions(precision="fp32", revision=revision)
    encoder = Encoder.load(model, **options.settings)
    on_hub = of_source(encoder, model, options)
    commit = on_hub.identity.revision or ""
    if not _COMMIT.fullmatch(commit):
        raise EvaluationError(f"{model}: the hub named no commit (found {commit!r}); give --revision")
    if on_hub.identity.digest != scored.model.digest:
        raise EvaluationError(
            f"{results}: scores of {scored.model.name} (digest {(scored.model.digest or '')[:12]}), and {model} at "
            f"{commit[:12]} is another model (digest {(on_hub.identity.digest or '')[:12]}): other weights, tokenizer, "
            "length or prompts; score it: sentemb eval OWNER/NAME --precision fp32"
        )
    files = _files(results.parent, scored)
    meta = _meta(on_hub, encoder, model)
    with atomic_folder(output) as temporary:
        folder = temporary / "results" / meta.model_name_as_path() / commit
        folder.mkdir(parents=True)
        for file in files:
            shutil.copyfile(file, folder / file.name)
        write_json(folder / "model_meta.json", meta.to_dict())
        write_text(temporary / "model_meta.py", _python(meta))
    return output / "model_meta.py"


def _faults(scored: Results) -> list[str]:
    faults = []
    identity = scored.model
    if identity.backend != "sentemb" or identity.digest is None:
        faults.append(f"{identity.name} has no digest (backend {identity.backend}); score the model's folder or id")
    elif identity.precision != "float32":
        faults.append(f"scored in {identity.precision}; MTEB takes fp32: sentemb eval MODEL --precision fp32")
    others = [task.task for task in scored.tasks if (task.protocol, task.engine) != ("mteb", "mteb")]
    if others:
        faults.append(f"not by mteb's protocol: {', '.join(others)}; score with --suite mteb-… or --task NAME")
    if scored.failures or not scored.tasks:
        failed = ", ".join(failure.task for failure in scored.failures) or "all"
        faults.append(f"tasks without a score: {failed}; score them, or leave them out")
    return faults


def _files(folder: Path, scored: Results) -> list[Path]:
    """The files of mteb's tree with these results: a task's each, and how they were run."""
    import mteb

    from sentemb.evaluate.mteb.encoder import model_meta

    path = mteb.ResultCache(cache_path=folder.resolve()).get_task_result_path
    meta = model_meta(EvalModel(scored.model, lambda texts, prompt: texts, {}))  # only its name is asked
    files = [path(task.task, meta) for task in scored.tasks]
    absent = [file.name for file in files if not file.is_file()]
    if absent:
        raise EvaluationError(f"{files[0].parent}: {', '.join(absent)} missing; give the results file where "
                              "sentemb eval -o wrote it, beside its folder results")
    settings = files[0].parent / "run_settings.jsonl"
    return [*files, *([settings] if settings.is_file() else [])]


def _meta(on_hub: EvalModel, encoder: Encoder, model: str) -> Any:
    """mteb's description of the hub's model, with what can be known here."""
    from mteb.models import sentence_transformers_loader

    from sentemb.evaluate.mteb.encoder import model_meta

    on_hub.identity = replace(on_hub.identity, name=model)
    count = sum(weight.numel() for weight in encoder.module.parameters())
    has_templates = any("{text}" in prompt for prompt in on_hub.prompts.values())  # which sentemb alone opens
    facts = {
        "loader": None if has_templates else sentence_transformers_loader,
        "n_parameters": count, "memory_usage_mb": round(4 * count / 2**20), "open_weights": True,
        "reference": f"https://huggingface.co/{model}",
    }
    return model_meta(on_hub).model_copy(update=facts)


def _python(meta: Any) -> str:
    name = re.sub(r"\W+", "_", meta.name.rpartition("/")[2])
    return (
        "# For mteb/models/model_implementations of mteb's repository. Not known to sentemb, for you to fill in:\n"
        f"# {', '.join(field for field in _TO_FILL if getattr(meta, field, None) is None)}.\n"
        "from mteb.models import ModelMeta, sentence_transformers_loader\n"
        "from mteb.models.model_meta import ScoringFunction\n\n"
        f"{name if name.isidentifier() else f'model_{name}'} = {meta.to_python()}\n"
    )
