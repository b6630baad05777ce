"""Loss terms, one a file: ``(table, batch) -> scalar`` of the whole batch, or this device's ``Share``."""

from sentemb.terms.alignment import Alignment
from sentemb.terms.all_views_contrast import AllViewsContrast
from sentemb.terms.angle import Angle
from sentemb.terms.attention_agreement import AttentionAgreement
from sentemb.terms.bidirectional_margin import BidirectionalMargin
from sentemb.terms.causal_lm import CausalLM
from sentemb.terms.cell_entropy import CellEntropy
from sentemb.terms.contrastive import Contrastive
from sentemb.terms.cosent import CoSENT
from sentemb.terms.cosine_error import CosineError
from sentemb.terms.decoupled import Decoupled
from sentemb.terms.denoise import Denoise
from sentemb.terms.distill import Distill
from sentemb.terms.grounded_contrast import GroundedContrast
from sentemb.terms.info_nce import InfoNCE
from sentemb.terms.inter_set import InterSet
from sentemb.terms.label_cosine import LabelCosine
from sentemb.terms.label_words import LabelWords
from sentemb.terms.level_contrast import LevelContrast
from sentemb.terms.list_net import ListNet
from sentemb.terms.local import Local
from sentemb.terms.margin_mse import MarginMSE
from sentemb.terms.masked_lm import MaskedLM
from sentemb.terms.mse import MSE
from sentemb.terms.multi_view import MultiView
from sentemb.terms.online_contrastive import OnlineContrastive
from sentemb.terms.pearson import Pearson
from sentemb.terms.preference_rank import PreferenceRank
from sentemb.terms.prototype_triplet import PrototypeTriplet
from sentemb.terms.prototypes import PrototypeSoftmax
from sentemb.terms.rank_kl import RankKL
from sentemb.terms.reconstruction import Reconstruction
from sentemb.terms.replaced_token_detection import ReplacedTokenDetection
from sentemb.terms.score_kl import ScoreKL
from sentemb.terms.self_guided import SelfGuided
from sentemb.terms.sigmoid_contrast import SigmoidContrast
from sentemb.terms.softmax_nli import SoftmaxNLI
from sentemb.terms.spectral import Spectral
from sentemb.terms.stay_near import StayNear
from sentemb.terms.supervised_contrast import SupervisedContrast
from sentemb.terms.term import Term
from sentemb.terms.token_contrast import TokenContrast
from sentemb.terms.triplet import Triplet
from sentemb.terms.uniformity import Uniformity
from sentemb.terms.view_contrast import ViewContrast
from sentemb.terms.wasserstein_lists import WassersteinLists
from sentemb.terms.words import Words

PARTS: dict[str, type[Term]] = {
    "alignment": Alignment,
    "all_views_contrast": AllViewsContrast,
    "angle": Angle,
    "attention_agreement": AttentionAgreement,
    "bidirectional_margin": BidirectionalMargin,
    "causal_lm": CausalLM,
    "cell_entropy": CellEntropy,
    "contrastive": Contrastive,
    "cosent": CoSENT,
    "cosine_error": CosineError,
    "decoupled": Decoupled,
    "denoise": Denoise,
    "distill": Distill,
    "grounded_contrast": GroundedContrast,
    "info_nce": InfoNCE,
    "inter_set": InterSet,
    "label_cosine": LabelCosine,
    "label_words": LabelWords,
    "level_contrast": LevelContrast,
    "list_net": ListNet,
    "local": Local,
    "margin_mse": MarginMSE,
    "masked_lm": MaskedLM,
    "mse": MSE,
    "multi_view": MultiView,
    "online_contrastive": OnlineContrastive,
    "pearson": Pearson,
    "preference_rank": PreferenceRank,
    "prototype_triplet": PrototypeTriplet,
    "prototypes": PrototypeSoftmax,
    "rank_kl": RankKL,
    "reconstruction": Reconstruction,
    "replaced_token_detection": ReplacedTokenDetection,
    "score_kl": ScoreKL,
    "self_guided": SelfGuided,
    "sigmoid_contrast": SigmoidContrast,
    "softmax_nli": SoftmaxNLI,
    "spectral": Spectral,
    "stay_near": StayNear,
    "supervised_contrast": SupervisedContrast,
    "token_contrast": TokenContrast,
    "triplet": Triplet,
    "uniformity": Uniformity,
    "view_contrast": ViewContrast,
    "wasserstein_lists": WassersteinLists,
    "words": Words,
}

__all__ = [
    "MSE", "PARTS", "Alignment", "AllViewsContrast", "Angle", "AttentionAgreement", "BidirectionalMargin", "CausalLM",
    "CellEntropy", "CoSENT", "Contrastive", "CosineError", "Decoupled", "Denoise", "Distill", "GroundedContrast",
    "InfoNCE", "InterSet", "LabelCosine", "LabelWords", "LevelContrast", "ListNet", "Local", "MarginMSE", "MaskedLM",
    "MultiView", "OnlineContrastive", "Pearson", "PreferenceRank", "PrototypeSoftmax", "PrototypeTriplet", "RankKL",
    "Reconstruction", "ReplacedTokenDetection", "ScoreKL", "SelfGuided", "SigmoidContrast", "SoftmaxNLI", "Spectral",
    "StayNear", "SupervisedContrast", "Term", "TokenContrast", "Triplet", "Uniformity", "ViewContrast",
    "WassersteinLists", "Words",
]  # fmt: skip
