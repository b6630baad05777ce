"""``sentemb.report``: results of evaluations and training runs as one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sentemb.errors import DataError, EvaluationError
from sentemb.evaluate.report import load_side
from sentemb.evaluate.result_pages import named, result_sections
from sentemb.evaluate.results import Results
from sentemb.files import write_text
from sentemb.pages import page
from sentemb.training.plan import TrainResult
from sentemb.training.run_pages import RunRecord, is_run, run_section


def report(
    *sources: str | Path | Results | TrainResult, output: str | Path, title: str | None = None,
    resamples: int = 10_000, seed: int = 0,
) -> Path:
    """Write one HTML file that shows results and runs and loads nothing from elsewhere; returns its path.

    Args:
        sources: a results file of ``sentemb eval``, a folder of them (seeds of one recipe), a run's folder, or what
            ``evaluate_model`` and ``train`` returned. The first model is the one that others are compared with.
        output: the file.
        title: of the page; by default the names of what it shows.
        resamples: of the paired tests between models.
        seed: of those.

    Raises: DataError, EvaluationError: a source is none of these, or damaged; the output is a folder.
    """
    if not sources:
        raise EvaluationError("nothing to report: give results of sentemb eval, or runs' folders")
    if Path(output).is_dir():
        raise DataError(f"{output}: is a folder; give the name of a file, such as {Path(output) / 'report.html'}")
    sides: list[Sequence[Results]] = []
    runs: list[RunRecord] = []
    for source in sources:
        if isinstance(source, Results):
            sides.append([source])
        elif isinstance(source, TrainResult):
            runs.append(RunRecord.read(source.run_dir))
        elif Path(source).is_dir() and is_run(Path(source)):
            runs.append(RunRecord.read(Path(source)))
        else:
            sides.append(_results(Path(source)))
    models = named(sides)
    names = list(dict.fromkeys([*(side.name for side in models), *(run.name for run in runs)]))
    sections = result_sections(models, resamples=resamples, seed=seed) if models else []
    sections += [run_section(run) for run in runs]
    heading = title or ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    path = Path(output)
    write_text(path, page(heading, sections, below=["Report of sentemb"]))
    return path


def _results(path: Path) -> list[Results]:
    try:
        return load_side(path)
    except DataError as error:
        if path.is_dir():
            raise DataError(f"{error}, and no run (a run's folder has run.json and metrics.jsonl)") from None
        raise
