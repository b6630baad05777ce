"""Long documents: how they are cut, and that hits, ids and changes are those of documents."""

from __future__ import annotations

import json
import random
import re
from itertools import pairwise

import numpy as np
import pytest

from sentemb import Encoder
from sentemb.cli import main
from sentemb.errors import DataError, SearchError
from sentemb.search import Passages, SearchIndex
from sentemb.search.store.passages import Splitter, splitter

WORDS = "cat dog river city music guitar red blue house book film year school time people".split()


@pytest.fixture(scope="module")
def encoder(tiny_bert):
    return Encoder.load(tiny_bert, precision="fp32")


@pytest.fixture(scope="module")
def cut(encoder):
    def make(tokens: int, overlap: int = 0) -> Splitter:
        return splitter(Passages(tokens=tokens, overlap=overlap), encoder, "")

    return make


def text_of(seed: int, sentences: int) -> str:
    """Sentences of three to nine words, now and then a paragraph or a heading."""
    draw = random.Random(seed)
    parts = []
    for _ in range(sentences):
        sentence = " ".join(draw.choices(WORDS, k=draw.randint(3, 9))) + ". "
        parts.append(draw.choice(["", "", "", "\n\n", "\n# house book\n"]) + sentence)
    return "".join(parts)


def documents(count: int = 12):
    return [{"id": f"d{i}", "text": text_of(i, 1 + 2 * i), "even": i % 2 == 0} for i in range(count)]


# ------------------------------------------------------------------------------------------------ cutting
@pytest.mark.parametrize(("tokens", "overlap"), [(8, 0), (20, 0), (20, 6), (21, 10), (100, 0)])
def test_spans_cover_the_text_and_keep_to_their_size(cut, encoder, tokens, overlap):
    for seed in range(20):
        text = text_of(seed, seed * 2)
        spans = cut(tokens, overlap).spans(text)
        assert spans[0][0] == 0
        assert spans[-1][1] == len(text)
        for (start, end), (following, _) in pairwise(spans):
            assert start < following <= end  # they go on, and leave nothing out
            shared = encoder.tokenise([text[following:end]]).lengths[0] - 2
            assert shared <= overlap
        for start, end in spans:
            assert encoder.tokenise([text[start:end]]).lengths[0] - 2 <= tokens


def test_a_cut_is_at_a_heading_else_a_paragraph_else_a_sentence_else_a_token(cut):
    head, body = "cat dog. river city. music red\n", "blue house. book film year. school time people"
    assert cut(12).spans(f"{head}# cat\n{body}")[0][1] == len(head)
    assert cut(12).spans(f"{head}\n{body}")[0][1] == len(head) + 1
    text = "cat dog river. city music guitar red. blue house book film"
    assert text[: cut(10).spans(text)[0][1]] == "cat dog river. city music guitar red. "
    assert cut(8).spans("cat " * 20)[0] == (0, 32)


def test_the_next_passage_begins_at_the_first_sentence_of_what_is_shared(cut):
    text = "cat dog river. city music. guitar red. blue house book film year. school time people."
    spans = cut(12, 5).spans(text)
    assert text[spans[1][0] :].startswith("guitar red. blue")


# ----------------------------------------------------------------------------------------------- searching
@pytest.fixture(scope="module")
def index(tmp_path_factory, encoder):
    folder = tmp_path_factory.mktemp("passages") / "index"
    with SearchIndex.build(folder, documents(), encoder=encoder, passages=Passages(tokens=20, overlap=6)) as made:
        yield made


def by_hand(index, encoder, query: str) -> list[tuple[str, float]]:
    """Every document's best passage, by a loop."""
    cutter = splitter(Passages(tokens=20, overlap=6), encoder, "")
    vector, best = encoder.encode(query, normalise=True), {}
    for document in documents():
        text = document["text"]
        vectors = encoder.encode([text[start:end] for start, end in cutter.spans(text)], normalise=True)
        best[document["id"]] = float((vectors @ vector).max())
    return sorted(best.items(), key=lambda pair: -pair[1])


def test_a_hit_is_a_document_with_its_best_passage(index, encoder):
    for query in ("cat dog", "a red house", "music in the city"):
        hits = index.search(query, 7)
        expected = by_hand(index, encoder, query)[:7]
        np.testing.assert_allclose([hit.score for hit in hits], [score for _, score in expected], atol=1e-5)
        assert len({hit.id for hit in hits}) == 7
        for hit in hits:
            place = hit.metadata["passage"]
            whole = next(document["text"] for document in documents() if document["id"] == hit.id)
            assert hit.text == whole[place["start"] : place["end"]]


def test_every_way_of_searching_gives_documents(index):
    ways = [
        index.by_words(["cat music"], 6)[0], index.hybrid(["cat music"], 6)[0], index.diverse(["cat"], 6)[0],
        index.similar_to(["d9"], 6)[0], index.combined(["cat", "dog"], ["film"], 6),
        index.within(["cat"], -1.0)[0], index.search("cat", 6, where="even = true"),
    ]  # fmt: skip
    for hits in ways:
        names = [hit.id for hit in hits]
        assert len(names) == len(set(names)) >= 6
        assert set(names) <= {f"d{i}" for i in range(12)}
    assert "d9" not in [hit.id for hit in ways[3]]


def test_more_results_than_there_are_documents_gives_all(index):
    assert len(index.search("cat", 50)) == 12


def test_documents_of_a_filter_are_whole(index):
    wanted = {one["id"]: one["text"] for one in documents() if one["even"]}
    assert {one.id: one.text for one in index.documents("even = true")} == wanted


def test_get_gives_whole_documents(index):
    for document in documents():
        found = index.get([document["id"]])[document["id"]]
        assert (found.text, found.metadata) == (document["text"], {"even": document["even"]})
    assert "d3" in index
    assert "d3#0" not in index


# ------------------------------------------------------------------------------------------------- changes
@pytest.fixture
def fresh(tmp_path, encoder):
    with SearchIndex.build(tmp_path / "i", documents(), encoder=encoder, passages=Passages(tokens=20)) as made:
        yield made


def test_an_upsert_replaces_all_passages_of_a_document(fresh):
    assert fresh.upsert([{"id": "d11", "text": "a cat"}, {"id": "new", "text": text_of(3, 9)}]) == 2
    assert fresh.get(["d11"])["d11"].text == "a cat"
    assert fresh.search("a cat", 1)[0].id == "d11"
    assert len(fresh.get(["new"])["new"].text) == len(text_of(3, 9))
    with pytest.raises(DataError, match="is in the index already"):
        fresh.add([{"id": "d11", "text": "again"}])
    with pytest.raises(DataError, match="occurs twice"):
        fresh.upsert([{"id": "x", "text": "cat"}, {"id": "x", "text": "dog"}])
    fresh.verify()


def test_deleting_counts_documents_and_leaves_no_passage(fresh):
    assert fresh.delete(["d11", "d0", "absent"]) == 2
    assert "d11" not in {hit.id for hit in fresh.search("cat", 50)}
    fresh.compact()
    assert sorted(map(str, fresh.generation.names())) == sorted(f"d{i}" for i in range(1, 11))
    assert fresh.get(["d10"])["d10"].text == documents()[10]["text"]


def test_merging_wants_the_same_passages(fresh, tmp_path, encoder):
    other = [{"id": "o", "text": text_of(5, 20)}]
    with SearchIndex.build(tmp_path / "o", other, encoder=encoder, passages=Passages(tokens=20)) as same:
        fresh.merge([same])
        assert fresh.get(["o"])["o"].text == other[0]["text"]
        with pytest.raises(SearchError, match="cannot be renumbered"):
            fresh.merge([same], renumber=True)
    with (
        SearchIndex.build(tmp_path / "p", [{"id": "p", "text": "cat"}], encoder=encoder) as plain,
        pytest.raises(SearchError, match="its passages is None"),
    ):
        fresh.merge([plain])


def test_a_build_that_was_stopped_goes_on(tmp_path, encoder):
    class Stopping:
        """The encoder, which fails in its second call."""

        def __init__(self):
            self.calls, self.tokeniser = 0, encoder.tokeniser
            self.source, self.prompts, self.digest = encoder.source, encoder.prompts, encoder.digest

        def encode(self, texts, /, *, prompt=None):
            self.calls += 1
            if self.calls == 2:
                raise KeyboardInterrupt
            return encoder.encode(texts, prompt=prompt)

    many = [{"id": f"m{i}", "text": text_of(i % 7, 60)} for i in range(400)]
    options = {"passages": Passages(tokens=20)}
    with pytest.raises(KeyboardInterrupt):
        SearchIndex.build(tmp_path / "i", many, encoder=Stopping(), **options)
    with pytest.raises(SearchError, match="passages"):
        SearchIndex.build(tmp_path / "i", many, encoder=encoder, passages=Passages(tokens=30), resume=True)
    with SearchIndex.build(tmp_path / "i", many, encoder=encoder, resume=True, **options) as made:
        assert made.get(["m399"])["m399"].text == many[399]["text"]
        assert len(made.generation.names()) == 400


# --------------------------------------------------------------------------------------------------- sync
@pytest.mark.parametrize("passages", [None, Passages(tokens=20)])
def test_a_sync_encodes_what_differs_and_deletes_what_vanished(tmp_path, encoder, passages):
    with SearchIndex.build(tmp_path / "i", documents(), encoder=encoder, passages=passages) as index:
        encoded = []

        class Counting:
            source, prompts, digest, tokeniser = encoder.source, encoder.prompts, encoder.digest, encoder.tokeniser

            def encode(self, texts, /, *, prompt=None):
                encoded.extend(texts)
                return encoder.encode(texts, prompt=prompt)

        index.use(Counting())
        wanted = [dict(document) for document in documents()[2:]] + [{"id": 7, "text": "a new one"}]
        wanted[3] = {"id": "d5", "text": "changed"}
        wanted[4] = {**wanted[4], "even": None}
        done = index.sync(wanted)
        assert (done.added, done.changed, done.unchanged, done.deleted) == (1, 2, 8, 2)
        assert "changed" in encoded
        assert not any(documents()[9]["text"].startswith(text) for text in encoded)
        again = index.sync(wanted)
        assert (again.added, again.changed, again.unchanged, again.deleted) == (0, 0, 11, 0)
        with pytest.raises(DataError, match="no id"):
            index.sync(["a text"])
        index.verify()


def test_the_command_syncs_a_folder_of_files(tmp_path, tiny_bert, capsys):
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "a.md").write_text("# House\n" + text_of(1, 30))
    (notes / "b.txt").write_text("cat and dog")

    def run(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as stop:
            main([*arguments])
        caught = capsys.readouterr()
        return stop.value.code, caught.out + caught.err

    index = str(tmp_path / "i")
    code, said = run("index", "build", str(notes), "-o", index, "-m", str(tiny_bert), "--files", "--chunk-tokens", "30",
                     "--overlap", "5")  # fmt: skip
    assert code == 0
    assert "passages of at most 30 tokens" in said
    (notes / "b.txt").unlink()
    (notes / "c.md").write_text("# Film\nA film.")
    assert run("index", "sync", str(notes), index, "--files") == (
        0, f"{index}: 1 added, 0 changed, 1 unchanged, 1 deleted\n"
    )  # fmt: skip
    code, said = run("search", index, "film", "-k", "1", "--json")
    assert json.loads(said)["hits"][0]["id"] in ("a.md", "c.md")
    assert run("index", "sync", index)[0] == 2


# -------------------------------------------------------------------------------------------------- faults
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"passages": Passages(tokens=5)}, "passages of 5 tokens; this model reads 8 to"),
        ({"passages": Passages(tokens=100_000)}, "passages of 100000 tokens; this model reads 8 to"),
    ],
)
def test_sizes_that_the_model_cannot_read_are_refused(tmp_path, encoder, options, message):
    with pytest.raises(SearchError, match=re.escape(message)):
        SearchIndex.build(tmp_path / "i", documents(), encoder=encoder, **options)
    assert not (tmp_path / "i" / "manifest.json").exists()


def test_more_than_half_cannot_be_shared():
    with pytest.raises(ValueError, match="at most half"):
        Passages(tokens=20, overlap=11)


def test_what_cannot_be_cut_is_refused(tmp_path, encoder):
    class Foreign:
        def encode(self, texts, /):
            return np.ones((len(texts), 4), dtype=np.float32)

    rule = Passages(tokens=20)
    with pytest.raises(SearchError, match="no tokenizer"):
        SearchIndex.build(tmp_path / "a", ["cat"], encoder=Foreign(), passages=rule)
    with pytest.raises(SearchError, match="give no vectors"):
        SearchIndex.build(tmp_path / "b", ["cat"], vectors=np.ones((1, 4), dtype=np.float32), passages=rule)
    with pytest.raises(DataError, match='its field "passage" is needed'):
        SearchIndex.build(tmp_path / "c", [{"text": "cat", "passage": 1}], encoder=encoder, passages=rule)
