"""One small recipe for every part of the catalogue: what the exactness matrix runs.

A new part is covered by being listed in its room's ``PARTS``; it needs an entry here only where it has required
parameters or needs other parts beside it. ``test_matrix`` fails for a part that neither builds bare nor has one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

INFO_NCE = {"use": "info_nce", "temperature": 0.1}
MASKED = {"use": "masked", "of": ["anchor", "positive"], "probability": 0.4}
DETECTOR = {"use": "detector", "generator": "BACKBONE"}

CLUSTERS = {"use": "clusters", "count": 3, "start_below": 1.0, "rate": 0.1}
GUIDED: dict[str, Any] = {
    "companions": [{"use": "layers"}],
    "encoder": {"heads": [{"use": "dense", "out_features": 12, "activation": "gelu", "train_only": True}]},
}
MINED: dict[str, Any] = {
    "views": {"use": "columns", "copies": [{"use": "mined"}]}, "edits": [{"use": "mined", "threshold": 0.9}],
    "companions": [{"use": "neighbours", "count": 4}],
}

EDITED: dict[str, Any] = {
    "views": {
        "use": "edited", "first": ["delete_words", "swap_spans"], "second": ["delete_spans", "substitute"],
        "delete_share": 0.3, "span_share": 0.1, "marker": True,
    },
    "companions": [{"use": "similar_words", "count": 3}],
}

TOGETHER = {
    "use": "table", "path": "PAIRS", "columns": {"anchor": "anchor", "positive": "positive", "score": "together"},
}
CLASSES = ["music", "dog", "red house", "school"]
TEMPLATES = ['the song : "{text}" means {mask} .', "{text} , by name {mask} ."]
PROMPTED: dict[str, Any] = {
    "views": {"use": "prompted", "templates": TEMPLATES, "subtract": True},
    "encoder": {"pooling": "mask", "prompts": {"song": TEMPLATES[0]}, "default_prompt": "song"},
}

# (room, name) -> tables that replace the recipe's
EXAMPLES: dict[tuple[str, str], dict[str, Any]] = {
    ("terms", "masked_lm"): {
        "terms": [INFO_NCE, {"use": "masked_lm", "weight": 0.5, "of": ["anchor", "positive"]}],
        "views": {"use": "columns", "copies": [MASKED]},
    },
    ("terms", "replaced_token_detection"): {
        "terms": [INFO_NCE, {"use": "replaced_token_detection", "weight": 0.5}],
        "views": {"use": "columns", "copies": [MASKED]}, "companions": [DETECTOR],
    },
    ("terms", "contrastive"): {"terms": [{"use": "contrastive"}], "data": TOGETHER},
    ("terms", "online_contrastive"): {"terms": [{"use": "online_contrastive"}], "data": TOGETHER},
    ("terms", "softmax_nli"): {"terms": [{"use": "softmax_nli", "classes": 4}]},
    ("terms", "reconstruction"): {
        "terms": [INFO_NCE, {"use": "reconstruction", "weight": 0.5}],
        "views": {"use": "edited", "first": ["delete_words"], "second": []},
    },
    ("terms", "local"): {"terms": [INFO_NCE, {"use": "local", "weight": 0.5}]},
    ("terms", "attention_agreement"): {"terms": [INFO_NCE, {"use": "attention_agreement", "layers": [0, 2]}]},
    ("terms", "self_guided"): {"terms": [{"use": "self_guided", "temperature": 0.1}], **GUIDED},
    ("companions", "layers"): {
        "terms": [INFO_NCE, {"use": "self_guided", "temperature": 0.5}],
        "companions": [{"use": "layers", "first": 1}], "encoder": {"heads": [{"use": "mlp"}]},
    },
    ("terms", "stay_near"): {"terms": [INFO_NCE, {"use": "stay_near", "weight": 0.1}]},
    ("terms", "token_contrast"): {"terms": [INFO_NCE, {"use": "token_contrast", "margin": 0.9}]},
    ("terms", "words"): {"terms": [INFO_NCE, {"use": "words", "vocabulary": 12, "weight": 0.1}]},
    ("terms", "label_words"): {
        "views": {"use": "prompted", "templates": TEMPLATES, "draw": True, "demonstrations": 1, "words": CLASSES},
        "terms": [INFO_NCE, {"use": "label_words", "words": CLASSES, "weight": 0.5}],
        "encoder": PROMPTED["encoder"],
    },
    ("terms", "denoise"): {
        "terms": [INFO_NCE, {"use": "denoise", "layers": 2, "heads": 4, "dropout": 0.0, "weight": 0.5}],
    },
    ("terms", "distill"): {
        "terms": [
            {"use": "distill", "temperature": 0.1},
            {"use": "distill", "temperature": 0.1, "companion": "momentum", "name": "self"},
        ],
        "edits": [{"use": "queue"}],
        "companions": [
            {"use": "reference"}, {"use": "momentum", "momentum": 0.5, "queue_size": 15, "keys": True},
        ],
    },
    ("terms", "mse"): {
        "terms": [
            INFO_NCE, {"use": "mse", "of": ["anchor", "negative_1"]},
            {"use": "mse", "of": ["positive"], "toward": "anchor", "companion": "narrow", "name": "across"},
        ],
        "companions": [
            {"use": "reference", "precompute": True},
            {"use": "reference", "name": "narrow", "precompute": True, "columns": ["anchor"], "width": 5},
        ],
    },
    ("terms", "supervised_contrast"): {
        "terms": [
            {"use": "supervised_contrast", "temperature": 0.1},
            {"use": "supervised_contrast", "temperature": 0.1, "row_weight": "weight", "name": "weighted"},
        ],
        "edits": [{"use": "same_label"}],
    },
    ("terms", "label_cosine"): {"terms": [{"use": "label_cosine"}], "edits": [{"use": "same_label"}]},
    ("terms", "sigmoid_contrast"): {
        "terms": [{"use": "sigmoid_contrast", "learn": True}], "edits": [{"use": "same_label"}],
    },
    ("terms", "list_net"): {"terms": [{"use": "list_net", "temperature": 0.1}], "edits": [{"use": "given"}]},
    ("terms", "wasserstein_lists"): {
        "terms": [{"use": "wasserstein_lists", "temperature": 0.1}], "edits": [{"use": "given"}],
    },
    ("terms", "info_nce"): {
        "terms": [
            {**INFO_NCE, "directions": "both", "learnable_temperature": True},
            {**INFO_NCE, "row_weight": "score", "name": "scored"},
            {**INFO_NCE, "row_weight": "weight", "positives": "apart", "name": "weighted"},
        ],
        "edits": [{"use": "given"}],
    },
    ("edits", "queue"): {
        "edits": [{"use": "queue"}, {"use": "false_negative"}],
        "companions": [{"use": "momentum", "momentum": 0.5, "queue_size": 15}],
    },
    ("edits", "mixed"): {"edits": [{"use": "given"}, {"use": "mixed", "count": 3, "with_anchor": 2}]},
    ("edits", "mixed_partners"): {
        "edits": [{"use": "mixed_partners"}],
        "terms": [{"use": "supervised_contrast"}, {**INFO_NCE, "without": ["mixed_partners"]}],
    },
    ("edits", "mixed_hard_pair"): {
        "edits": [{"use": "same_label"}, {"use": "mixed_hard_pair"}],
        "terms": [{"use": "supervised_contrast", "focus": 1.0}],
    },
    ("edits", "mixed_ordered"): {
        "edits": [{"use": "mixed_ordered", "count": 2}], "terms": [{"use": "supervised_contrast"}],
    },
    ("edits", "moved"): {
        "edits": [{"use": "moved", "centre": True, "noise": 0.1}], "companions": [{"use": "centre"}],
    },
    ("companions", "centre"): {
        "edits": [{"use": "moved", "centre": True}], "companions": [{"use": "centre", "column": "positive"}],
    },
    ("companions", "clusters"): {
        "edits": [{"use": "cluster_negatives"}], "terms": [INFO_NCE, {"use": "bidirectional_margin"}],
        "companions": [CLUSTERS],
    },
    ("edits", "cluster_negatives"): {"edits": [{"use": "cluster_negatives"}], "companions": [CLUSTERS]},
    ("terms", "bidirectional_margin"): {
        "terms": [INFO_NCE, {"use": "bidirectional_margin", "inner": 0.1, "outer": 0.15}], "companions": [CLUSTERS],
    },
    ("edits", "noise"): {"edits": [{"use": "noise", "count": 7, "steps": 2}]},
    ("edits", "false_negative"): {
        "edits": [
            {"use": "false_negative", "by": ["ids", "text", "reference"], "threshold": 0.97}, {"use": "given"},
            {"use": "false_negative", "by": ["reference"], "margin": 0.1, "name": "guided"},
        ],
        "companions": [{"use": "reference", "precompute": True}],
    },
    ("edits", "hardness"): {"edits": [{"use": "given", "weight": 2.0}, {"use": "hardness", "class_prior": 0.05}]},
    ("edits", "attraction"): {
        "edits": [{"use": "given"}, {"use": "same_label"}, {"use": "attraction", "sharpness": 2.0}],
        "terms": [{"use": "decoupled", "temperature": 0.1, "sigma": 0.5}],
    },
    ("edits", "nearest"): {
        "edits": [
            {"use": "nearest", "place": "candidate", "name": "candidate"}, {"use": "queue"},
            {"use": "nearest", "place": "extra", "count": 2, "of": "anchor", "threshold": -0.5},
            {"use": "false_negative"},
        ],
        "companions": [{"use": "momentum", "momentum": 0.5, "queue_size": 15, "of": "positive"}],
    },
    ("edits", "soften"): {
        "edits": [{"use": "queue", "keys": True}, {"use": "soften"}],
        "terms": [{"use": "supervised_contrast", "temperature": 0.1}],
        "companions": [{"use": "momentum", "momentum": 0.5, "queue_size": 15, "of": "positive", "keys": True}],
    },
    ("edits", "margin"): {"edits": [{"use": "margin", "temperature": 0.1}]},
    ("edits", "temperature"): {"edits": [{"use": "temperature", "policy": "spread", "rho": 0.2, "temperature": 0.1}]},
    ("terms", "multi_view"): {
        "views": {"use": "repeat", "count": 3}, "terms": [{"use": "multi_view", "kind": "arithmetic"}],
    },
    ("terms", "grounded_contrast"): {
        "terms": [INFO_NCE, {"use": "grounded_contrast", "path": "VECTORS", "width": 5, "temperature": 0.2}],
        "encoder": {"heads": [{"use": "dense", "out_features": 12, "train_only": True}]},
    },
    ("terms", "view_contrast"): {
        "views": {"use": "repeat", "count": 3},
        "terms": [{"use": "view_contrast", "of": ["positive", "positive_2"], "temperature": 0.1}],
    },
    ("terms", "all_views_contrast"): {
        "views": {"use": "repeat", "count": 3},
        "terms": [
            {"use": "all_views_contrast"}, {"use": "all_views_contrast", "same_label": False, "name": "examples"},
        ],
    },
    ("views", "fields"): {
        "data": {
            "use": "table", "path": "PAIRS",
            "columns": {"anchor": "anchor", "anchor_2": "negative_2", "positive": "positive",
                        "positive_2": "negative_1", "negative_1": "negative_2"},
        },
        "views": {
            "use": "fields",
            "weights": {"anchor": {"anchor": 0.9, "anchor_2": 0.3}, "positive": {"positive": 0.3, "positive_2": 0.7}},
        },
        "edits": [{"use": "given"}],
    },
    ("views", "prompted"): PROMPTED,
    ("views", "repeat"): {
        "views": {"use": "repeat", "count": 3, "dropouts": [0.0, 0, 0.0]}, "edits": [{"use": "given"}],
        "terms": [{"use": "supervised_contrast"}],
    },
    ("edits", "groups"): {
        "edits": [
            {"use": "groups", "rule": "apart", "by": "clusters"}, {"use": "groups", "rule": "balance", "prior": "data"}
        ],
        "companions": [
            {"use": "prototypes", "name": "clusters", "count": 3, "clusterings": 2, "update": "average"}
        ],
    },
    ("terms", "prototypes"): {
        "terms": [
            {"use": "prototypes", "companion": "learned", "name": "swapped"},
            {"use": "prototypes", "target": "label", "prior": "data"},
        ],
        "companions": [
            {"use": "prototypes"}, {"use": "prototypes", "name": "learned", "count": 5, "history": 9, "freeze_steps": 1}
        ],
    },
    ("companions", "prototypes"): {
        "terms": [INFO_NCE, {"use": "prototypes", "target": "assigned", "prior": "data"}],
        "companions": [
            {"use": "prototypes", "count": 4, "clusterings": 2, "update": "average", "momentum": 0.5, "history": 8}
        ],
    },
    ("edits", "composed"): {
        "views": {"use": "halves"}, "edits": [{"use": "composed"}, {"use": "queue"}, {"use": "false_negative"}],
        "companions": [{"use": "momentum", "momentum": 0.5, "queue_size": 15}],
        "encoder": {"heads": [{"use": "dense", "out_features": 12, "train_only": True}]},
    },
    ("edits", "given"): {"edits": [{"use": "given", "weight": 3.0}]},
    ("edits", "propensity"): {
        "edits": [{"use": "propensity"}], "companions": [{"use": "propensity", "neighbours": 3, "random": 3}],
    },
    ("companions", "detector"): {
        "terms": [INFO_NCE, {"use": "replaced_token_detection"}],
        "views": {"use": "columns", "copies": [MASKED]}, "companions": [DETECTOR],
        "encoder": {"heads": [{"use": "projector"}]},
    },
    ("companions", "momentum"): {
        "edits": [{"use": "queue"}], "companions": [{"use": "momentum", "momentum": 0.9, "queue_size": 7}],
        "encoder": {"heads": [{"use": "mlp", "train_only": True}]},
    },
    ("companions", "per_example"): {
        "edits": [{"use": "given"}, {"use": "temperature", "policy": "memory"}],
        "terms": [{"use": "decoupled", "units": "similarity", "memory": True}],
        "companions": [{"use": "per_example", "rate": 0.2, "velocity": 1.0}],
    },
    ("companions", "propensity"): {
        "views": {"use": "propensity_positives"}, "edits": [{"use": "propensity"}],
        "companions": [
            {"use": "propensity", "neighbours": 3, "random": 3, "positive_threshold": 0.5, "negative_threshold": 0.5}
        ],
    },
    ("companions", "reference"): {
        "terms": [{"use": "distill", "temperature": 0.1}], "edits": [{"use": "given"}],
        "companions": [{"use": "reference", "precompute": True}],
    },
    ("edits", "mined"): MINED,
    ("views", "mined"): MINED,
    ("companions", "neighbours"): {
        **MINED, "companions": [{"use": "neighbours", "column": "positive", "count": 3, "skip": 1}],
    },
    ("views", "masked"): {
        "terms": [INFO_NCE, {"use": "masked_lm", "of": ["anchor"]}],
        "views": {"use": "twice", "copies": [{"use": "masked", "of": ["anchor"]}]},
    },
    ("views", "propensity_positives"): {
        "views": {"use": "propensity_positives"},
        "companions": [
            {"use": "propensity", "neighbours": 3, "random": 3, "positive_threshold": 0.5, "negative_threshold": 0.5}
        ],
    },
    ("edits", "neighbours_in_text"): {
        "edits": [{"use": "neighbours_in_text", "window": 4}], "terms": [{"use": "supervised_contrast"}],
        "train": {"batches": "contiguous"},
    },
    ("views", "by_source"): {
        "data": {
            "use": "mixture",
            "parts": [
                {"use": "lines", "path": "PAIRS", "columns": {"anchor": "anchor"}, "max_rows": 12, "name": "wiki"},
                {"use": "table", "path": "PAIRS", "name": "pairs", "batch_size": 5},
            ],
        },
        "views": {"use": "by_source", "makers": {"wiki": "twice", "pairs": "columns"}},
        "terms": [INFO_NCE, {"use": "cosent", "only": ["pairs"]}],
        "edits": [{"use": "given", "only": ["pairs"]}, {"use": "queue", "only": ["wiki"]}],
        "companions": [{"use": "momentum", "momentum": 0.5, "queue_size": 9, "only": ["wiki"]}],
    },
    ("views", "edited"): EDITED,
    ("companions", "similar_words"): EDITED,
    ("views", "shuffled"): {
        "views": {"use": "twice", "copies": [{"use": "shuffled"}]}, "edits": [{"use": "given"}],
    },
    ("adapters", "lora"): {
        "encoder": {
            "adapters": [{"use": "lora", "rank": 2, "alpha": 4, "targets": ["query", "dense"]}],
            "heads": [{"use": "mlp"}],
        },
    },
    ("edits", "inner_layer"): {
        "edits": [{"use": "inner_layer", "layer": 1}, {"use": "moved", "noise": 0.2}],
        "encoder": {"heads": [{"use": "mlp"}]},
    },
    ("edits", "regulators"): {
        "edits": [{"use": "regulators", "of": ["first", "second"]}],
        "companions": [
            {"use": "reference", "name": "first"}, {"use": "reference", "name": "second", "precompute": True},
        ],
    },
    ("adapters", "prefix"): {
        "encoder": {"adapters": [{"use": "prefix", "length": 3, "dropout": 0.0}], "heads": [{"use": "mlp"}]},
    },
    ("train", "nested_dims"): {
        "edits": [{"use": "given"}, {"use": "queue"}, {"use": "mixed", "count": 2}],
        "terms": [INFO_NCE, {"use": "uniformity"}], "companions": [{"use": "momentum"}],
    },
    ("heads", "group_whitening"): {
        "encoder": {"heads": [{"use": "group_whitening", "groups": 16}, {"use": "mlp", "train_only": True}]},
        "views": {"use": "repeat", "count": 3},
    },
    ("heads", "dense"): {"encoder": {"heads": [{"use": "dense", "out_features": 12}]}},
}


def tree_of(room: str, name: str, backbone: str, data: str, **train: Any) -> dict[str, Any]:
    """The recipe's tree for a part."""
    bare: dict[str, dict[str, Any]] = {
        "terms": {"terms": [{"use": name}]},
        "edits": {"edits": [{"use": name}]},
        "companions": {"companions": [{"use": name}]},
        "views": {"views": {"use": name}},
        "heads": {"encoder": {"heads": [{"use": name}]}},
    }
    example = EXAMPLES.get((room, name)) or bare[room]
    tree: dict[str, Any] = {
        "data": {"use": "table", "path": data},
        "views": {"use": "columns"},
        "terms": [INFO_NCE],
        **{key: value for key, value in example.items() if key not in ("encoder", "train")},
        "encoder": {"backbone": backbone, "pooling": "mean", **example.get("encoder", {})},
        "train": {
            "batch_size": 7, "precision": "fp32", "batches": "shuffled", "learning_rate": 1e-3,
            **example.get("train", {}), **({"nested_dims": [8, 20]} if room == "train" else {}), **train,
        },
    }
    return _with_files(tree, {"BACKBONE": backbone, "PAIRS": data, "VECTORS": str(Path(data).with_suffix(".npy"))})


def _with_files(value: Any, files: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _with_files(entry, files) for key, entry in value.items()}
    if isinstance(value, list):
        return [_with_files(entry, files) for entry in value]
    return files.get(value, value) if isinstance(value, str) else value
