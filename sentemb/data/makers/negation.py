"""The negation of a plain English clause, and of a negated one the clause itself."""

from __future__ import annotations

from collections.abc import Mapping

_BE_AND_MODALS = frozenset({
    "is", "are", "was", "were", "am", "can", "could", "will", "would", "shall", "should", "must", "may", "might"
})
_HAVE = frozenset({"has", "have", "had"})
_DO = {"does": 1, "did": 2, "do": 0}  # which form of a verb it stands for: base, third person, past
# over these a negation's scope is not clear, or the verb that would be negated is not the clause's own
_UNCLEAR = frozenset({
    "all", "every", "each", "no", "none", "nobody", "nothing", "nowhere", "some", "somebody", "someone", "something",
    "any", "anybody", "anyone", "anything", "few", "many", "most", "much", "only", "both", "either", "neither", "nor",
    "never", "hardly", "barely", "rarely", "seldom", "always", "or", "but", "because", "unless", "until", "although",
    "though", "while", "when", "where", "whether", "who", "whom", "whose", "which", "what", "that", "if", "so",
    "than", "too", "already", "still", "yet", "everybody", "everyone", "everything", "cannot", "and"
})
_SINGULAR_IN_S = frozenset({"this", "his", "its"})
_PLURAL = frozenset({"they", "we", "you", "i", "people", "men", "women", "children"})

# base, third person, past; where past and base are alike the past is not told apart and the verb is left out
_VERBS = """
play plays played|walk walks walked|talk talks talked|jump jumps jumped|work works worked|live lives lived|
love loves loved|like likes liked|want wants wanted|need needs needed|use uses used|look looks looked|
watch watches watched|wait waits waited|help helps helped|open opens opened|close closes closed|start starts started|
stop stops stopped|rain rains rained|snow snows snowed|climb climbs climbed|cook cooks cooked|dance dances danced|
learn learns learned|listen listens listened|move moves moved|paint paints painted|pass passes passed|
pull pulls pulled|push pushes pushed|serve serves served|show shows showed|smile smiles smiled|stay stays stayed|
study studies studied|carry carries carried|try tries tried|cry cries cried|travel travels travelled|
visit visits visited|wash washes washed|belong belongs belonged|contain contains contained|cause causes caused|
include includes included|produce produces produced|require requires required|receive receives received|
remain remains remained|reach reaches reached|become becomes became|begin begins began|break breaks broke|
bring brings brought|build builds built|buy buys bought|catch catches caught|come comes came|drink drinks drank|
drive drives drove|eat eats ate|fall falls fell|feel feels felt|find finds found|fly flies flew|get gets got|
give gives gave|go goes went|grow grows grew|have has had|hear hears heard|hold holds held|keep keeps kept|
know knows knew|lose loses lost|make makes made|meet meets met|ride rides rode|run runs ran|
say says said|see sees saw|sell sells sold|sing sings sang|sit sits sat|sleep sleeps slept|speak speaks spoke|
spend spends spent|stand stands stood|swim swims swam|take takes took|teach teaches taught|tell tells told|
think thinks thought|throw throws threw|understand understands understood|wear wears wore|win wins won|
write writes wrote
"""
_FORMS: tuple[tuple[str, str, str], ...] = tuple(
    (base, third, past) for base, third, past in (entry.split() for entry in _VERBS.replace("\n", "").split("|"))
)
_BY_BASE: Mapping[str, tuple[str, str, str]] = {forms[0]: forms for forms in _FORMS}
_BASE_OF: Mapping[str, tuple[str, str]] = {
    form: (forms[0], do) for forms in _FORMS for form, do in ((forms[1], "does"), (forms[2], "did"))
}


def denied(clause: str) -> str | None:
    """The clause with its polarity turned round, so that ``denied(denied(c)) == c``; None where no rule fits.

    >>> denied("The dog runs"), denied("It was not cold"), denied("Every dog runs")
    ('The dog does not run', 'It was cold', None)
    """
    words = clause.split()
    plain = [word.lower().strip(",") for word in words]
    if _UNCLEAR.intersection(plain) or any("n't" in word or "n’t" in word for word in plain):
        return None
    for i in range(1, len(words)):
        is_auxiliary = plain[i] in _BE_AND_MODALS or (plain[i] in _HAVE and _is_perfect(plain[i + 1 :]))
        if is_auxiliary:
            rest = words[i + 2 :] if plain[i + 1 : i + 2] == ["not"] else ["not", *words[i + 1 :]]
            return " ".join([*words[: i + 1], *rest])
        if plain[i] in _DO and plain[i + 1 : i + 2] == ["not"]:
            forms = _BY_BASE.get(plain[i + 2]) if i + 2 < len(words) else None
            return forms and " ".join([*words[:i], forms[_DO[plain[i]]], *words[i + 3 :]])
        if words[i] in _BASE_OF:  # no name, which has a capital
            base, do = _BASE_OF[plain[i]]
            if plain[i + 1 : i + 2] == ["by"] or _BE_AND_MODALS.intersection(plain[i + 1 :]):
                return None  # "The house built by him is old": the clause's verb comes later
            if do == "does" and any(word.endswith("s") and word not in _SINGULAR_IN_S for word in plain[:i]):
                return None  # "The boy reads plays": an earlier word may be the verb, and this one a noun
            return " ".join([*words[:i], do, "not", base, *words[i + 1 :]])
        if plain[i] in _BY_BASE and (plain[i - 1] in _PLURAL or plain[i - 1].endswith("s")):
            return " ".join([*words[:i], "do", "not", *words[i:]])
    return None


def _is_perfect(following: list[str]) -> bool:
    """Whether "has" helps another verb ("has been", "has not gone") instead of saying what is owned."""
    after = following[1:] if following[:1] == ["not"] else following
    is_past = after[:1] and _BASE_OF.get(after[0], ("", ""))[1] == "did"
    return bool(after) and (is_past or after[0].endswith(("ed", "en", "ne", "wn")))
