from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from sentemb.errors import DataError
from sentemb.quickstart.corpus import default_roots, docstrings_of, in_words, read_docstrings, summary_of

MODULE = '''
"""A module's own docstring is about the module, not about an object."""
raise RuntimeError("a source file is never run")

def read_rows(path):
    """Read all rows of a table file.

    More about it.
    """
    def inner():
        """Nobody can call this one from outside."""

def _hidden():
    """Private functions are not part of it."""

def undocumented(): ...

async def fetch_URL2(url):
    """Fetch one page of the :class:`~web.Site` by ``url``."""

class HTTPServer(Base):
    """Serve files of a folder over HTTP."""

    def close(self):
        """Stop serving and free the port."""

    def __init__(self):
        """Initialise the server with its defaults."""

    class Handler:
        """Answer one single request at a time."""

class _Hidden:
    def visible(self):
        """The class around it is private."""
'''


@pytest.fixture
def root(tmp_path: Path) -> Path:
    package = tmp_path / "site" / "web"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text('def serve():\n    """Serve the current folder at once."""\n')
    (package / "table.py").write_text(MODULE)
    return tmp_path / "site"


def test_public_objects_of_a_file_that_is_not_run(root):
    found = {doc.name: (doc.query, doc.text) for doc in docstrings_of("web.table", root / "web" / "table.py")}
    assert found == {
        "web.table.read_rows": ("read rows", "Read all rows of a table file."),
        "web.table.fetch_URL2": ("fetch url 2", "Fetch one page of the web.Site by url."),
        "web.table.HTTPServer": ("http server", "Serve files of a folder over HTTP."),
        "web.table.HTTPServer.close": ("http server close", "Stop serving and free the port."),
        "web.table.HTTPServer.Handler": ("http server handler", "Answer one single request at a time."),
    }


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("LinearSVC.fit_more", "linear svc fit more"),
        ("HTTPServer", "http server"),
        ("conv2d", "conv 2 d"),
        ("Node.node_id", "node id"),
        ("__", ""),
        ("Größe", "gr e"),
    ],
)
def test_names_in_words(name, words):
    assert in_words(name) == words


@pytest.mark.parametrize(
    "docstring",
    [None, "", "  \n ", "Too few words", ">>> print('an example is no description')", ":param one: of many others here",
     "1 2 3 4 5 6", "bell \x07 in the middle of it", "word " * 100, "\n\n   x\n"],
)  # fmt: skip
def test_first_lines_that_describe_nothing(docstring):
    assert summary_of(docstring) == ""


@pytest.mark.parametrize(
    "content",
    [
        b"def broken(:\n", b"\x00\x01\x02", b"\xff\xfe\x00 not utf 8", b"# coding: no-such-codec\nx = 1\n",
        b"print 'two'\n", b"(" * 100_000, b"",
    ],
    ids=["syntax", "nul", "bytes", "codec", "python2", "nested", "empty"],
)  # fmt: skip
def test_files_that_python_cannot_read_are_passed_over(root, content):
    (root / "web" / "broken.py").write_bytes(content)
    assert docstrings_of("web.broken", root / "web" / "broken.py") == []
    assert {doc.module for doc in read_docstrings(100, [root])} == {"web", "web.table"}


def test_declared_encodings_and_byte_order_marks_are_kept_to(root):
    source = 'def f():\n    """Größer als alle anderen hier."""\n'
    (root / "web" / "a.py").write_bytes(b"# -*- coding: latin-1 -*-\n" + source.encode("latin-1"))
    (root / "web" / "b.py").write_bytes(b"\xef\xbb\xbf" + source.encode())
    for name in "ab":
        assert docstrings_of(name, root / "web" / f"{name}.py")[0].text == "Größer als alle anderen hier."


def test_neither_a_query_nor_a_text_recurs(root):
    for name in ("one", "two"):
        (root / f"{name}.py").write_text(
            f'def same_name():\n    """Described in other words by {name}."""\n'
            f'def name_{name}():\n    """described in the very SAME words"""\n'
        )
    docs = read_docstrings(100, [root])
    assert len({doc.query for doc in docs}) == len(docs)
    assert [doc.text.lower() for doc in docs].count("described in the very same words") == 1
    assert sum(doc.query == "same name" for doc in docs) == 1


def test_what_is_no_module_of_the_user_is_left_out(root):
    text = 'def left_out():\n    """This one must not come up."""\n'
    for path in ("web/tests/a.py", "web/_vendor/b.py", "web/test_c.py", "conftest.py", "not-a-module/d.py", "e-f.py",
                 "sentemb/g.py", "web/__pycache__/h.py"):  # fmt: skip
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    (root / "web" / "huge.py").write_text(text + "#" * 400_001)
    assert all(doc.query != "left out" for doc in read_docstrings(100, [root]))


def test_no_docstrings_at_all(tmp_path):
    with pytest.raises(DataError, match="no docstrings in"):
        read_docstrings(10, [tmp_path])


def test_the_number_of_processes_changes_nothing():
    roots = [Path(ast.__file__).parent]  # the standard library
    one, two = (read_docstrings(800, roots, workers=workers) for workers in (1, 2))
    assert one == two
    assert len(one) >= 800
    assert len({doc.module.split(".")[0] for doc in one}) > 20


def test_a_module_of_the_users_own_folder_is_not_run(tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("raise RuntimeError('this is not Python own json')")
    monkeypatch.chdir(tmp_path)
    assert len(read_docstrings(800, [Path(ast.__file__).parent], workers=2)) >= 800


def test_this_interpreter_has_packages():
    assert Path(sys.modules["pytest"].__file__).parents[1] in default_roots()
