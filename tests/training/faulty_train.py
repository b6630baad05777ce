"""``torchrun … faulty_train.py TREE.json OUTPUT MARK``: trains; the second process kills itself once, at step 5."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

from sentemb.recipe.recipe import Recipe
from sentemb.recipe.train import train
from sentemb.training.run import Run


def main() -> None:
    tree, output, mark = map(Path, sys.argv[1:])
    train_step = Run.train_step

    def step(self: Run, *arguments: Any) -> Any:
        result = train_step(self, *arguments)
        if self.state.step == 5 and os.environ["RANK"] == "1" and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    Run.train_step = step  # type: ignore[method-assign]
    logging.basicConfig(level=logging.INFO)
    train(Recipe.from_tree(json.loads(tree.read_text()), "test.toml"), output=output, resume=True)


if __name__ == "__main__":
    main()
