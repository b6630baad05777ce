"""Model cards, and sending a model to a hub that stands here for huggingface.co."""

from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sentemb import Encoder, Recipe, train
from sentemb.cli import main
from sentemb.errors import ModelError
from sentemb.evaluate import Sts, evaluate_model
from sentemb.evaluate.results import write_results
from sentemb.recipe.card import push, write_card


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory, tiny_bert):
    folder = tmp_path_factory.mktemp("card")
    (folder / "texts.txt").write_text("\n".join(f"the cat and the dog {i}" for i in range(20)))
    overrides = [f"encoder.backbone={tiny_bert}", f"data.path={folder / 'texts.txt'}", "train.max_steps=2",
                 "train.batch_size=4"]  # fmt: skip
    train(Recipe.load("simcse-unsup-minilm", overrides), output=folder / "mine")
    return folder / "mine"


@pytest.fixture(scope="module")
def results(run_dir):
    """Scores of that model on three pairs."""
    pairs = [("a", "b", 0.1), ("the cat", "the cats", 0.9), ("red", "blue", 0.4)]
    (run_dir / "sts.tsv").write_text(
        "sentence1\tsentence2\tscore\n" + "".join(f"{one}\t{two}\t{score}\n" for one, two, score in pairs)
    )
    found = evaluate_model(Encoder.load(run_dir / "model"), [Sts(path=str(run_dir / "sts.tsv"))])
    write_results(run_dir / "scores.json", found)
    return run_dir / "scores.json"


def front(card: str) -> dict:
    """The hub's table: YAML whose values are JSON."""
    _, table, _ = card.split("---\n", 2)
    return {key: json.loads(value) for key, value in (line.split(": ", 1) for line in table.splitlines())}


def test_training_leaves_a_card_that_says_how_it_was_made(run_dir, tiny_bert):
    card = (run_dir / "model" / "README.md").read_text()
    assert front(card)["library_name"] == "sentence-transformers"
    assert "base_model" not in front(card)  # a folder of this machine is nothing that the hub knows
    assert str(tiny_bert) not in card.split("## Training")[0]
    said = ["# mine", "Recipe `simcse-unsup-minilm`", "20 rows", "2 steps of 4", 'use = "info_nce"',
            "Gao, Yao & Chen 2021", "SentenceTransformer("]  # fmt: skip
    for part in [*said, f"{Encoder.load(run_dir / 'model').width} numbers"]:
        assert part in card, part


def test_the_use_that_a_card_shows_works(run_dir):
    card = (run_dir / "model" / "README.md").read_text()
    for code in card.split("```python\n")[1:]:
        names: dict = {}
        exec(code.split("```")[0], names)
        assert len(names["vectors"]) == 2


def test_every_save_has_a_card(tiny_bert, tmp_path):
    Encoder.load(tiny_bert, prompts={"query": "find: "}).save(tmp_path / "m")
    card = (tmp_path / "m" / "README.md").read_text()
    assert '`"find: "` (query)' in card
    assert "## Training" not in card


def test_licence_base_and_origin_are_handed_on(tiny_bert, tmp_path):
    from huggingface_hub import metadata_load

    from sentemb import distil, merge

    first = Encoder.load(tiny_bert).save(tmp_path / "first")
    assert "Licence: not stated" in (first / "README.md").read_text()
    card = "---\nlicense: mit\nbase_model:\n- org/base\nmodel-index: []\n---\n# theirs\n"
    (first / "README.md").write_text(card)
    Encoder.load(first).save(tmp_path / "second")
    merge([first, tmp_path / "second"]).save(tmp_path / "merged")
    distil(Encoder.load(tmp_path / "merged"), width=4).save(tmp_path / "static")
    write_card(tmp_path / "static", facts={"language": "en"})  # as push does
    for name, said in (("second", "Licence: mit, that of the model"), ("merged", "One model of `first`, `second`"),
                       ("static", "A static model: every token has one vector, what `merged` makes")):  # fmt: skip
        stated = metadata_load(tmp_path / name / "README.md")
        assert (stated["license"], stated["base_model"]) == ("mit", ["org/base"])
        assert said in (tmp_path / name / "README.md").read_text()
        assert "model-index" not in stated
    assert Encoder.load(tmp_path / "merged").origin == merge([first, tmp_path / "second"]).origin


def test_scores_stand_in_the_text_and_in_the_hubs_index(run_dir, results):
    write_card(run_dir / "model", results=[results], facts={"license": "mit"})
    card = (run_dir / "model" / "README.md").read_text()
    assert front(card)["license"] == "mit"
    (entry,) = front(card)["model-index"][0]["results"]
    assert entry["metrics"][0]["value"] == pytest.approx(json.loads(results.read_text())["tasks"][0]["main"], abs=1e-3)
    assert "| sts | " in card.lower()


def test_scores_of_another_model_are_refused(results, tiny_bert, tmp_path):
    Encoder.load(tiny_bert).save(tmp_path / "other")
    with pytest.raises(ModelError, match="scores of another model"):
        write_card(tmp_path / "other", results=[results])


class FakeHub(BaseHTTPRequestHandler):
    """As much of the hub's interface as an upload of small files takes."""

    def do_GET(self):
        self._answer(200, {"id": "me/m", "sha": "0" * 40, "siblings": []})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.calls.append((self.path, self.headers.get("authorization"), body))
        if self.headers.get("authorization") != "Bearer good":
            self._answer(401, {"error": "Invalid username or password."})
        elif self.path == "/api/repos/create":
            self._answer(200, {"url": f"http://{self.headers['host']}/me/m", "name": "me/m"})
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            self._answer(200, {"files": [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in files
            ]})  # fmt: skip
        elif "/commit/" in self.path:
            self._answer(200, {"success": True, "commitOid": "1" * 40, "commitUrl": f"http://{self.headers['host']}/c/1",
                               "hookOutput": "", "pullRequestUrl": None})  # fmt: skip
        else:
            self._answer(200, {})

    def _answer(self, status, value):
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), FakeHub)
    server.calls = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    import huggingface_hub.constants as constants
    import huggingface_hub.hf_api as hf_api

    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hf_api, "is_xet_available", lambda: False, raising=False)
    monkeypatch.setenv("HF_TOKEN", "good")
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_push_sends_what_loading_reads_and_the_card(run_dir, results, hub, capsys):
    (run_dir / "model" / "secret.bin").write_bytes(b"never")
    (run_dir / "model" / "code.py").write_text("never")
    with pytest.raises(SystemExit) as stop:
        main(["push", str(run_dir / "model"), "me/m", "--results", str(results), "--license", "apache-2.0"])
    assert stop.value.code == 0
    assert "/c/1" in capsys.readouterr().out
    (commit,) = [body for path, _, body in hub.calls if "/commit/" in path]
    sent = {}
    for line in commit.decode().splitlines():
        entry = json.loads(line)
        if entry["key"] == "file":
            sent[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
    kept = {str(file.relative_to(run_dir / "model")) for file in (run_dir / "model").rglob("*") if file.is_file()}
    assert set(sent) == kept - {"secret.bin", "code.py"}
    assert front(sent["README.md"].decode())["license"] == "apache-2.0"
    assert 'Encoder.load("me/m")' in sent["README.md"].decode()
    assert sent["model.safetensors"] == (run_dir / "model" / "model.safetensors").read_bytes()


def test_push_sends_an_exported_graph_with_its_own_card(hub, tmp_path, capsys):
    for name, text in (("model.onnx", "graph"), ("export.json", "{}"), ("README.md", "# mine"), ("x.bin", "never")):
        (tmp_path / name).write_text(text)
    assert push(tmp_path, "me/m").endswith("/c/1")
    (commit,) = [body for path, _, body in hub.calls if "/commit/" in path]
    for name, is_sent in (("model.onnx", True), ("README.md", True), ("x.bin", False)):
        assert (f'"path":"{name}"' in commit.decode().replace(": ", ":")) == is_sent
    with pytest.raises(ModelError, match="sent as it is"):
        push(tmp_path, "me/m", facts={"license": "mit"})


def test_a_refusal_of_the_hub_is_one_sentence(run_dir, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "bad")
    with pytest.raises(ModelError, match=r"me/m: the hub did not take the model .*hf auth login"):
        push(run_dir / "model", "me/m")


@pytest.mark.parametrize("repository", ["no spaces allowed", "a/b/c"])
def test_a_wrong_repository_is_told(run_dir, hub, repository):
    with pytest.raises(ModelError, match="the hub did not take the model"):
        push(run_dir / "model", repository)


def test_a_folder_without_a_model_is_told(tmp_path):
    with pytest.raises(ModelError, match="no saved model"):
        push(tmp_path, "me/m")
