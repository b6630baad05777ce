"""The core of every benchmark: races of contenders, side by side in one run.

Each contender lives in its own process (its own peak memory, its own Python where a peer needs one) and does its
work once a round; the rounds go through all contenders in turn, so that a slow minute of the machine hits everyone.
What is reported are medians, and medians of the ratios *within* a round, with their spread.

    lanes = race([Contender("ours", __file__, "ours", {...}), Contender("theirs", __file__, "theirs", {...})], rounds=5)
    ratio(lanes["theirs"], lanes["ours"])          # how many times faster ours is
    text = lanes_table(["", "seconds"], lanes, lambda lane: [f"{lane.median_s:.2f}"])
    write_report("name", "Title", text, machine(), {"race": lanes})
"""

from __future__ import annotations

import atexit
import json
import math
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

RESULTS = Path(os.environ.get("SENTEMB_BENCH_RESULTS") or Path(__file__).resolve().parents[1] / "results")
Work = Callable[[], dict[str, Any]]  # what a contender times; its facts
_WORKER = Path(__file__).with_name("worker.py")


@dataclass(frozen=True)
class Contender:
    """One way to do the work: ``function(**arguments)`` in ``file`` gives the callable that is timed."""

    name: str
    file: str
    function: str
    arguments: dict[str, Any] = field(default_factory=dict)
    python: str = sys.executable  # another interpreter where a peer must not share our environment
    environment: dict[str, str] = field(default_factory=dict)


@dataclass
class Lane:
    """What a contender did, round by round."""

    name: str
    seconds: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    ready_s: float = 0.0  # loading, not timed as work
    peak_mib: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)  # of the last round
    fault: str | None = None  # why the contender did not run

    @property
    def median_s(self) -> float:
        """Median seconds of a round."""
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class Ratio:
    """How many times one lane is as fast as another: median, least and largest over the rounds."""

    median: float
    least: float
    most: float

    def __str__(self) -> str:
        return "–" if math.isnan(self.median) else f"{self.median:.2f}× ({self.least:.2f}–{self.most:.2f})"


class _Process:
    def __init__(self, contender: Contender, output: Path) -> None:
        self.lane = Lane(contender.name)
        # a folder of compiled or tuned things must not leak from one contender to another by chance: same for all
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true", "SENTEMB_QUIET": "1",
                       "SENTEMB_BENCH_OUT": str(output), **contender.environment}
        self._process = subprocess.Popen(
            [contender.python, str(_WORKER), contender.file, contender.function, json.dumps(contender.arguments)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        )

    def wait_ready(self) -> None:
        answer = self._answer()
        if answer is not None:
            self.lane.ready_s = answer["ready_s"]

    def run(self, *, timed: bool) -> None:
        if self.lane.fault is not None:
            return
        assert self._process.stdin is not None
        try:
            self._process.stdin.write("run\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the reason is on stderr: _answer reads it
        answer = self._answer()
        if answer is None:
            return
        self.lane.peak_mib, self.lane.facts = answer["peak_mib"], answer["facts"]
        if timed:
            self.lane.seconds.append(answer["seconds"])
            self.lane.cpu_s.append(answer["cpu_s"])

    def _answer(self) -> dict[str, Any] | None:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            value: dict[str, Any] = json.loads(line)
            return value
        assert self._process.stderr is not None
        said = self._process.stderr.read().strip().splitlines()
        self.lane.fault = said[-1] if said else f"ended with code {self._process.wait()}"
        return None

    def close(self) -> None:
        # communicate() closes stdin, which ends the worker's loop
        self._process.communicate()


def race(
    contenders: Sequence[Contender], *, rounds: int = 3, warmups: int = 1, verbose: bool = True
) -> dict[str, Lane]:
    """Run all contenders round by round (the starting one moves on every round); lanes by name.

    A contender that fails (a peer that is not installed) keeps its ``fault`` and no seconds. Where a contender gives
    an "array", its last one lies in the file that ``facts["array"]`` names, until this process ends.
    """
    # loaded one after the other, so that loading times mean something
    processes = []
    folder = Path(tempfile.mkdtemp(prefix="sentemb-bench-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for number, contender in enumerate(contenders):
        process = _Process(contender, folder / f"{number}.npy")
        process.wait_ready()
        if verbose:
            state = process.lane.fault or f"ready in {process.lane.ready_s:.1f} s"
            print(f"  {contender.name}: {state}", file=sys.stderr, flush=True)
        processes.append(process)
    try:
        for round_ in range(-warmups, rounds):
            shift = round_ % len(processes)
            for process in processes[shift:] + processes[:shift]:
                process.run(timed=round_ >= 0)
            if verbose and round_ >= 0:
                seconds = "  ".join(f"{p.lane.name} {p.lane.seconds[-1]:.2f}" for p in processes if p.lane.seconds)
                print(f"  round {round_ + 1}: {seconds}", file=sys.stderr, flush=True)
    finally:
        for process in processes:
            process.close()
    return {process.lane.name: process.lane for process in processes}


def ratio(slow: Lane, fast: Lane) -> Ratio:
    """How many times ``fast`` is as fast as ``slow``, within each round; no numbers where one of them did not run."""
    if slow.fault or fast.fault:
        return Ratio(math.nan, math.nan, math.nan)
    values = [a / b for a, b in zip(slow.seconds, fast.seconds, strict=True)]
    return Ratio(statistics.median(values), min(values), max(values))


# ------------------------------------------------------------------------------------------------ the machine
def machine() -> dict[str, Any]:
    """What a reader must know of the machine and the software to output a number."""
    import torch

    facts: dict[str, Any] = {
        "cpu": _cpu_model(), "cores": len(os.sched_getaffinity(0)), "memory_gib": round(_memory_gib(), 1),
        "units": [unit for unit in ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8")
                  if unit in _cpu_flags()],
        "amx_in_torch": bool(torch.cpu._is_amx_tile_supported()),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        "system": platform.platform(), "python": platform.python_version(), "torch": torch.__version__,
        "load_average": round(os.getloadavg()[0], 2), "date": time.strftime("%Y-%m-%d %H:%M"),
    }
    from sentemb.provenance import installed_versions

    versions, packages = installed_versions(), ("sentemb", "transformers", "sentence-transformers", "faiss-cpu", "mteb")
    facts |= {name: versions.get(name) for name in packages}
    facts["commit"] = _commit()
    return facts


def matmul_peak(dtype: str = "bfloat16", seconds: float = 1.0, size: int = 2048) -> Any:
    """A contender's work: square matrix products for ``seconds``; facts hold the best GFLOP/s."""
    import torch

    left, right = (torch.randn(size, size).to(getattr(torch, dtype)) for _ in range(2))
    out = left @ right

    def work() -> dict[str, float]:
        best, end = 0.0, time.perf_counter() + seconds
        while time.perf_counter() < end:
            start = time.perf_counter()
            torch.mm(left, right, out=out)
            best = max(best, 2 * size**3 / (time.perf_counter() - start) / 1e9)
        return {"gflops": best}

    return work


def _cpu_flags() -> set[str]:
    return set(_cpuinfo("flags").split())


def _cpu_model() -> str:
    return _cpuinfo("model name") or platform.processor()


def _cpuinfo(key: str) -> str:
    path = Path("/proc/cpuinfo")
    if path.is_file():
        for line in path.read_text().splitlines():
            if line.startswith(key):
                return line.split(":", 1)[1].strip()
    return ""


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def _commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


# ------------------------------------------------------------------------------------------------- reports
def data() -> Path:
    """The folder SENTEMB_DATA with the real data."""
    return Path(os.environ["SENTEMB_DATA"])


def lines(path: Path) -> list[dict[str, Any]]:
    """Rows of a jsonl file."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Rows as a jsonl file, whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    part.replace(path)


def mean_and_half(differences: Sequence[float]) -> tuple[float, float]:
    """The mean of paired differences, and half the width of its 95 % t-interval."""
    from scipy.stats import t

    n = len(differences)
    half = float(t.ppf(0.975, n - 1)) * statistics.stdev(differences) / n**0.5
    return statistics.fmean(differences), half


def signed(mean: float, half: float) -> str:
    """A difference with its interval."""
    return f"{mean:+.2f} ± {half:.2f}"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; the first column is text, the others align right; short rows are filled up."""
    lines = ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
    filled = ([*row, *[""] * (len(header) - len(row))] for row in rows)
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in filled]
    return "\n".join(lines) + "\n"


def lanes_table(header: Sequence[str], lanes: dict[str, Lane], cells: Callable[[Lane], Sequence[object]]) -> str:
    """A row a lane: its name and its cells, or why it did not run."""
    rows = ([name, *([f"did not run: {lane.fault}"] if lane.fault else cells(lane))] for name, lane in lanes.items())
    return markdown_table(header, rows)


def write_report(
    name: str, title: str, text: str, facts: dict[str, Any], races: dict[str, dict[str, Lane]]
) -> None:
    """Print ``NAME.md`` and write it with ``NAME.json`` (every round of every lane of every race) into eval/results.

    Args:
        facts: of the machine (``machine()``, called before the first race), and whatever else belongs to the numbers.
    """
    RESULTS.mkdir(parents=True, exist_ok=True)
    markdown = f"# {title}\n\n{_machine_line(facts)}\n\n{text}"
    (RESULTS / f"{name}.md").write_text(markdown, encoding="utf-8")
    rounds = {title: {key: asdict(lane) for key, lane in lanes.items()} for title, lanes in races.items()}
    content = json.dumps({**facts, "races": rounds}, indent=1)
    (RESULTS / f"{name}.json").write_text(content + "\n", encoding="utf-8")
    print(f"{markdown}\nwritten to {RESULTS / name}.md and .json")


def _machine_line(facts: dict[str, Any]) -> str:
    return (f"{facts['cpu']}, {facts['cores']} cores, {', '.join(facts['units'])}; {facts['memory_gib']} GiB; "
            f"torch {facts['torch']}, transformers {facts['transformers']}, sentence-transformers "
            f"{facts['sentence-transformers']}; {facts['date']}, commit {facts['commit']}, "
            f"load average at the start {facts['load_average']}")
