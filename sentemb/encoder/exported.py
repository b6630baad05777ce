"""A model that was exported as one graph, opened and run by ONNX Runtime or OpenVINO."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from sentemb.data.tokens import pad
from sentemb.encoder.backbone import read_json, refused
from sentemb.encoder.encode import BATCH_TOKENS, budget_batches, encode_texts, length_order, progress_bar, rows_of
from sentemb.encoder.prompting import Prompting, template_of
from sentemb.encoder.tokeniser import Tokeniser
from sentemb.errors import ModelError, did_you_mean, first_line, needs_extra
from sentemb.files import sha256_of
from sentemb.types import Similarity, TokenColumn, Vectors, Vocabulary

Format = Literal["onnx", "openvino"]
FACTS, OUTPUT = "export.json", "sentence_embedding"
GRAPHS: dict[Format, str] = {"onnx": "model.onnx", "openvino": "openvino_model.xml"}
Run = Callable[[NDArray[np.int64], NDArray[np.int64]], Vectors]  # token ids and attention mask, (rows, tokens)


@dataclass(frozen=True, kw_only=True)
class ExportFacts:
    """What ``export.json`` says beside a graph: what it was made of, how to feed it, how near it is to the model."""

    sentemb: str  # version
    format: Format
    opset: int  # of ONNX
    model: str  # digest of the model
    width: int
    max_tokens: int
    is_normalised: bool
    similarity: Similarity
    prompts: Mapping[str, str]
    default_prompt: str | None
    reads_mask_token: bool  # then every text stands in a template with one
    vocabulary: Mapping[str, Any]  # size, pad, mask, special
    dropped: int | None  # a token that the graph leaves out
    compared_texts: int = 0
    largest_difference: float = 0.0  # of an entry, in units of the vector's length
    least_cosine: float = 1.0

    @classmethod
    def read(cls, folder: Path) -> ExportFacts:
        """Raises ``ModelError`` where the folder holds no export, or a damaged one."""
        if not (folder / FACTS).is_file():
            raise ModelError(f"{folder}: no {FACTS}; an exported model is a folder that sentemb export wrote")
        try:
            facts = cls(**read_json(folder / FACTS))
        except TypeError as error:
            raise ModelError(f"{folder / FACTS}: not what sentemb export writes ({first_line(error)}); export the "
                             "model again") from None
        if facts.format not in GRAPHS:
            raise ModelError(f'{folder / FACTS}: format = "{facts.format}"{did_you_mean(facts.format, GRAPHS)}')
        return facts


class ExportedModel:
    """An exported model, which turns texts into vectors; made with ``ExportedModel.load``. On the CPU, in float32.

    Attributes:
        source: its folder.
        facts: what ``export.json`` says.
        prompts: the model's named prompts and templates.
    """

    def __init__(self, folder: Path, facts: ExportFacts, tokeniser: Tokeniser, run: Run) -> None:
        self.source, self.facts, self.prompts = str(folder), facts, facts.prompts
        self.tokeniser, self._folder, self._graph = tokeniser, folder, run

    @classmethod
    def load(cls, folder: str | Path) -> ExportedModel:
        """Open a folder that ``sentemb export`` wrote.

        Raises:
            ModelError: there is none, or a file is damaged.
            MissingExtra: the graph's runtime is not installed.
        """
        from tokenizers import Tokenizer

        where = Path(folder).expanduser()
        facts = ExportFacts.read(where)
        path, known = where / "tokenizer.json", facts.vocabulary
        try:
            fast = Tokenizer.from_file(str(path))
        except Exception as error:  # the library has no kinds of its own
            raise ModelError(f"{path}: no tokenizer ({first_line(error)}); export the model again") from None
        with refused(where / FACTS):
            vocabulary = Vocabulary(size=known["size"], pad=known["pad"], mask=known["mask"],
                                    special=frozenset(known["special"]))
        tokeniser = Tokeniser(fast, vocabulary, facts.max_tokens, _no_hub, dropped=facts.dropped)
        opener = _open_onnx if facts.format == "onnx" else _open_openvino
        return cls(where, facts, tokeniser, opener(where / GRAPHS[facts.format]))

    @property
    def width(self) -> int:
        """Dimensions of the vectors."""
        return self.facts.width

    def digest(self) -> str:
        """SHA-256 over everything that decides a vector."""
        graphs = ("model.onnx", "openvino_model")
        files = sorted(path for path in self._folder.iterdir() if path.name.startswith(graphs))
        total = hashlib.sha256()
        for path in (*files, self._folder / "tokenizer.json", self._folder / FACTS):
            total.update(f"{path.name} {sha256_of(path)};".encode())
        return total.hexdigest()

    def encode(
        self, texts: str | Sequence[str], *, prompt: str | None = None, prompt_name: str | None = None
    ) -> Vectors:
        """Embeddings in the order of the texts, (texts, d) float32; one text alone gives (d,). See ``Encoder.encode``.

        Raises: ModelError: an unknown prompt, a template that cannot be used, or an entry that is no string.
        """
        facts = self.facts
        prompting = Prompting(prompts=facts.prompts, default_prompt=facts.default_prompt)
        template = template_of(prompt, prompt_name, prompting, self.source, reads_mask_token=facts.reads_mask_token)
        rows = rows_of(texts)
        with progress_bar(None, len(rows)) as bar:
            def encode(column: TokenColumn, **_: Any) -> Vectors:
                vectors = np.empty((len(column), self.width), dtype=np.float32)
                order = length_order(column.lengths)
                for begin, end in budget_batches(column.lengths[order], BATCH_TOKENS["cpu"]):
                    batch = order[begin:end]
                    tokens = pad(column.take(batch), self.tokeniser.vocabulary.pad)
                    vectors[batch] = self._graph(tokens.input_ids.numpy(), tokens.attention_mask.numpy())
                    bar.advance(len(batch))
                return vectors

            vectors = encode_texts(rows, encode, self.tokeniser, template=template, empty=None, width=self.width,
                                   bar=bar)
        return vectors[0] if isinstance(texts, str) else vectors


def _open_onnx(path: Path) -> Run:
    needs_extra("onnxruntime", "export")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # what it optimises is no warning for a user
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the library's own kinds have no common base
        raise ModelError(f"{path}: ONNX Runtime cannot open it ({first_line(error)}); export the model again") from None
    return lambda ids, mask: session.run([OUTPUT], {"input_ids": ids, "attention_mask": mask})[0]


def _open_openvino(path: Path) -> Run:
    needs_extra("openvino", "openvino")
    import openvino

    # a processor with bf16 products would round to them otherwise
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    try:
        compiled = openvino.Core().compile_model(path, "CPU", settings)
    except RuntimeError as error:
        raise ModelError(f"{path}: OpenVINO cannot open it ({first_line(error)}); export the model again") from None
    return lambda ids, mask: compiled({"input_ids": ids, "attention_mask": mask})[OUTPUT]


def _no_hub() -> Any:
    raise ModelError("an exported model has no tokenizer of transformers; load the model itself")
