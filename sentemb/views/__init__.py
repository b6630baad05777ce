"""View makers: what is encoded for one example.

``PARTS`` holds the makers (``[views] use``), called ``maker(examples, context) -> Views``. ``COPIES`` holds the copy
makers (``[views] copies``), called in the recipe's order after the maker, ``copy(views, context) -> Views``; they
return only the views that they add (``makes`` names them) and leave the given ones as they are.
"""

from sentemb.views.by_source import BySource
from sentemb.views.columns import Columns
from sentemb.views.edited import Edited
from sentemb.views.fields import Fields
from sentemb.views.halves import Halves
from sentemb.views.masked import Masked
from sentemb.views.mined import MinedViews
from sentemb.views.prompted import Prompted
from sentemb.views.propensity_positives import PropensityPositives
from sentemb.views.repeat import Repeat
from sentemb.views.shuffled import ShuffledWords
from sentemb.views.twice import Twice
from sentemb.views.view import ViewCopy, ViewMaker

PARTS: dict[str, type[ViewMaker]] = {
    "by_source": BySource,
    "columns": Columns,
    "edited": Edited,
    "fields": Fields,
    "halves": Halves,
    "prompted": Prompted,
    "propensity_positives": PropensityPositives,
    "repeat": Repeat,
    "twice": Twice,
}

COPIES: dict[str, type[ViewCopy]] = {
    "masked": Masked,
    "mined": MinedViews,
    "shuffled": ShuffledWords,
}

__all__ = [
    "COPIES", "PARTS", "BySource", "Columns", "Edited", "Fields", "Halves", "Masked", "MinedViews", "Prompted",
    "PropensityPositives", "Repeat", "ShuffledWords", "Twice", "ViewCopy", "ViewMaker",
]  # fmt: skip
