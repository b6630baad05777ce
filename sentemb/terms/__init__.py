"""Loss terms, one a file: ``(table, batch) -> scalar`` of the whole batch, or this device's ``Share``."""

from sentemb.terms.alignment import Alignment
from sentemb.terms.cosent import CoSENT
from sentemb.terms.cosine_error import CosineError
from sentemb.terms.decoupled import Decoupled
from sentemb.terms.distill import Distill
from sentemb.terms.info_nce import InfoNCE
from sentemb.terms.masked_lm import MaskedLM
from sentemb.terms.multi_view import MultiView
from sentemb.terms.replaced_token_detection import ReplacedTokenDetection
from sentemb.terms.supervised_contrast import SupervisedContrast
from sentemb.terms.term import Term
from sentemb.terms.triplet import Triplet
from sentemb.terms.uniformity import Uniformity

PARTS: dict[str, type[Term]] = {
    "alignment": Alignment,
    "cosent": CoSENT,
    "cosine_error": CosineError,
    "decoupled": Decoupled,
    "distill": Distill,
    "info_nce": InfoNCE,
    "masked_lm": MaskedLM,
    "multi_view": MultiView,
    "replaced_token_detection": ReplacedTokenDetection,
    "supervised_contrast": SupervisedContrast,
    "triplet": Triplet,
    "uniformity": Uniformity,
}

__all__ = [
    "PARTS", "Alignment", "CoSENT", "CosineError", "Decoupled", "Distill", "InfoNCE", "MaskedLM",
    "MultiView", "ReplacedTokenDetection", "SupervisedContrast", "Term", "Triplet", "Uniformity",
]  # fmt: skip
