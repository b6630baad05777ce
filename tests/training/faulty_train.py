"""``torchrun … faulty_train.py TREE.json OUTPUT MARK``: trains; the second process kills itself once, at step 5."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from sentemb.recipe.recipe import validate
from sentemb.recipe.run import train
from sentemb.training.run import Run


def main() -> None:
    tree, output, mark = map(Path, sys.argv[1:])
    account = Run._account

    def step(self: Run, *arguments: Any) -> None:
        account(self, *arguments)
        if self.state.step == 5 and os.environ["RANK"] == "1" and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    Run._account = step  # type: ignore[method-assign]
    train(validate(json.loads(tree.read_text()), Path("test.toml")), output=output, resume=True)


if __name__ == "__main__":
    main()
