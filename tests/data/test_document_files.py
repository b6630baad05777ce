"""Files that are one document each."""

from __future__ import annotations

import pytest

from sentemb.data.document_files import iter_files
from sentemb.data.faults import Faults
from sentemb.errors import DataError


def _pdf(text: str) -> bytes:
    """The smallest PDF with a line of text."""
    stream = f"BT /F 12 Tf 20 100 Td ({text}) Tj ET".encode()
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 200]/Contents 4 0 R/Resources<</Font<</F 5 0 R>>>>>>",
        b"<</Length %d>>stream\n%b\nendstream" % (len(stream), stream),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]  # fmt: skip
    out, places = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, start=1):
        places.append(len(out))
        out += b"%d 0 obj%b endobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    trailer = b"trailer<</Root 1 0 R/Size 6>>\nstartxref\n%d\n%%%%EOF" % len(out)
    return out + b"xref\n0 6\n0000000000 65535 f \n" + table + trailer


HTML = """<html><head><title>Cats</title><style>p {}</style></head><body><h1>About <b>cats</b></h1>
<p>First &amp; last.</p><script>alert()</script><ul><li>one<li>two</ul></body></html>"""


@pytest.fixture
def folder(tmp_path):
    docx = pytest.importorskip("docx")
    (tmp_path / "sub").mkdir()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "x.txt").write_text("never")
    (tmp_path / "image.png").write_bytes(b"never")
    (tmp_path / "a.txt").write_text("two\nlines")
    (tmp_path / "sub" / "b.md").write_text("intro\n\n# Title #\n\ntext")
    (tmp_path / "c.html").write_text(HTML)
    (tmp_path / "d.pdf").write_bytes(_pdf("A cat on a page"))
    made = docx.Document()
    made.core_properties.title = "Report"
    made.add_heading("Part", 2)
    made.add_paragraph("A paragraph.")
    made.save(str(tmp_path / "e.docx"))
    return tmp_path


@pytest.mark.filterwarnings("ignore")
def test_every_kind_gives_its_text_and_title(folder):
    found = {record.fields["id"]: record.fields for record in iter_files(folder)}
    assert list(found) == ["a.txt", "c.html", "d.pdf", "e.docx", "sub/b.md"]
    assert found["a.txt"] == {"id": "a.txt", "text": "two\nlines", "kind": "txt"}
    assert found["sub/b.md"]["heading"] == "Title"
    assert found["c.html"]["heading"] == "Cats"
    assert found["c.html"]["text"].splitlines()[0] == "# About cats"
    assert "First & last." in found["c.html"]["text"]
    assert "alert" not in found["c.html"]["text"]
    assert found["d.pdf"]["text"].strip() == "A cat on a page"
    assert found["e.docx"]["text"] == "## Part\n\nA paragraph."
    assert found["e.docx"]["heading"] == "Report"


def test_one_file_is_one_document(folder):
    (record,) = iter_files(folder / "a.txt")
    assert record.fields["id"] == "a.txt"


@pytest.mark.parametrize("name", ["bad.txt", "bad.pdf", "bad.docx", "empty.md"])
@pytest.mark.filterwarnings("ignore")
def test_a_file_that_cannot_be_read_is_named_or_left_out(folder, name):
    (folder / name).write_bytes(b"" if name == "empty.md" else b"\xff\xfe\x00broken")
    with pytest.raises(DataError, match=f"{name}: .*correct it"):
        list(iter_files(folder))
    skipped = Faults()
    assert len(list(iter_files(folder, skipped=skipped))) == 5
    assert skipped.count == 1


def test_nothing_there_is_told(tmp_path):
    with pytest.raises(DataError, match="no document"):
        list(iter_files(tmp_path))
    with pytest.raises(DataError, match="no such file"):
        list(iter_files(tmp_path / "x"))
