"""One contender of a race, in its own process: `python worker.py FILE FUNCTION JSON` (started by harness.py).

FUNCTION(**JSON) prepares the work (loads models, reads texts) and gives a callable without arguments; every "run"
line on stdin calls it once and answers one JSON line: seconds, peak memory, facts. Only the call is timed. It may
return a dict of facts; an array under "array" is saved (untimed) where SENTEMB_BENCH_OUT says, for comparisons.
Where the callable has a `close`, it is called at the end (a peer's threads may keep the process from ending).
"""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any


def _load(file: str, function: str) -> Any:
    sys.path.insert(0, str(Path(file).parent))
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return getattr(module, function)


def peak_mib() -> float:
    """Largest resident memory of this process so far, MiB.

    Linux's ``ru_maxrss`` starts with what the parent held when it forked; the address space's high-water mark
    does not.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _without_array(facts: dict[str, Any]) -> dict[str, Any]:
    array, output = facts.pop("array", None), os.environ.get("SENTEMB_BENCH_OUT")
    if array is not None and output:
        import numpy as np

        np.save(output, array)
        facts["array"] = output
    return facts


def main() -> None:
    # answers go to a private copy of stdout: libraries may print what they like
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    file, function, arguments = sys.argv[1:4]

    def answer(value: dict[str, Any]) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    start = time.perf_counter()
    work = _load(file, function)(**json.loads(arguments))
    answer({"ready_s": time.perf_counter() - start, "ready_mib": peak_mib()})
    for line in sys.stdin:
        if line.strip() != "run":
            break
        start, cpu = time.perf_counter(), time.process_time()
        facts = work()
        seconds, cpu_s = time.perf_counter() - start, time.process_time() - cpu
        answer({"seconds": seconds, "cpu_s": cpu_s, "peak_mib": peak_mib(), "facts": _without_array(facts or {})})
    if hasattr(work, "close"):
        work.close()


if __name__ == "__main__":
    main()
