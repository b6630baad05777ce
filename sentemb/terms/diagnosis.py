"""Why a loss is not finite, in words.

Terms stay free of device synchronisation: an anchor that cannot be scored makes the loss infinite, and the train
step, which looks at the loss anyway, then calls ``Term.diagnose``.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool
from torch import Tensor

from sentemb.errors import NumericError
from sentemb.maths.softmax import live_pairs
from sentemb.types import Batch, PairScores

SHOWN_IDS = 8


def name_rows(table: PairScores, rows: Bool[Tensor, " n"]) -> str:
    """``"examples 3, 17, …"`` for the end of a message."""
    ids = table.anchor.ids[rows].tolist()
    shown = ", ".join(str(i) for i in ids[:SHOWN_IDS])
    more = f" and {len(ids) - SHOWN_IDS} more" if len(ids) > SHOWN_IDS else ""
    return f"example{'s' if len(ids) != 1 else ''} {shown}{more}"


def explain_table(part: str, table: PairScores, batch: Batch) -> None:
    """Raise the ``NumericError`` that fits the table; returns where the table is in order.
    Raises: NumericError naming the part, the step and the example ids.
    """
    where = f"{part}, step {batch.step}"
    broken = ~torch.isfinite(table.sim).all(dim=1)
    if bool(broken.any()):
        raise NumericError(
            f"{where}: the similarities of {name_rows(table, broken)} are not finite: the encoder's output is NaN or "
            "infinite; lower learning_rate, set max_grad_norm, or use bf16 or fp32 in place of fp16"
        )
    if table.scale is not None:
        wrong = ~(torch.isfinite(table.scale) & (table.scale > 0))
        if bool(wrong.any()):
            raise NumericError(f"{where}: an edit gave {name_rows(table, wrong)} a temperature that is not above 0")
    nan = torch.isnan(table.log_weight).any(dim=1) | (table.log_weight == torch.inf).any(dim=1)
    if bool(nan.any()):
        raise NumericError(f"{where}: an edit gave {name_rows(table, nan)} a log_weight that is NaN or +inf")
    lonely = ~(table.positive & live_pairs(table)).any(dim=1)
    if bool(lonely.any()):
        raise NumericError(
            f"{where}: every positive of {name_rows(table, lonely)} has been removed by an edit "
            "(log_weight = -inf); loosen the edit's threshold or leave positives out of it"
        )
