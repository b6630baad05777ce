"""One pickled file of weights as safetensors. Run as a program of its own, so that nothing of sentemb is in reach:

    python -I unpickle.py SOURCE TARGET        prints {"tensors": {name: [dtype, shape]}} or {"error": "…"}

torch's reader of weights alone knows tensors and plain containers, and refuses every other class or function that a
pickle names. Tensors that share memory are written once for each name.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping


def unpickled(source: str, target: str) -> dict[str, object]:
    """What is printed: the tensors that were written, compared bit by bit with what was read, or why not."""
    import torch
    from safetensors.torch import load_file, save_file

    try:
        state = torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:  # a pickle can make the reader raise anything
        return {"error": " ".join(str(error).split())[:2000] or type(error).__name__}
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):  # as training frameworks save it
        state = state["state_dict"]
    if not isinstance(state, Mapping) or not state:
        return {"error": f"it holds {type(state).__name__}, no tensors by name"}
    others = [str(name) for name, value in state.items() if not isinstance(value, torch.Tensor) or value.is_sparse]
    if others:
        return {"error": f"its entries {', '.join(others[:3])} are no dense tensors"}
    # clones: the format refuses tensors that share memory
    tensors = {str(name): value.detach().clone(memory_format=torch.contiguous_format) for name, value in state.items()}
    save_file(tensors, target, metadata={"format": "pt"})
    written = load_file(target)
    if written.keys() != tensors.keys() or not all(
        written[name].dtype == value.dtype and written[name].shape == value.shape
        and torch.equal(written[name].flatten().view(torch.uint8), value.flatten().view(torch.uint8))  # NaN, too
        for name, value in tensors.items()
    ):
        return {"error": "what was written is not what was read"}
    return {"tensors": {name: [str(value.dtype), list(value.shape)] for name, value in tensors.items()}}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(unpickled(*sys.argv[1:3])))
