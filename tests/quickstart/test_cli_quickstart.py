from __future__ import annotations

import pytest

from sentemb.cli import main


def test_a_folder_of_something_else_is_one_message(tmp_path, capsys, minilm):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(SystemExit) as end:
        main(["quickstart", "--output", str(tmp_path)])
    assert end.value.code == 2
    told = capsys.readouterr()
    what = "holds something else than a quickstart; choose another folder with --output"
    assert told.err == f"sentemb: {tmp_path} {what}\n"
    assert told.out == ""


def test_options_are_checked(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main(["quickstart", "--output", str(tmp_path), "--pairs", "3"])
    assert end.value.code == 2
    assert "--pairs" in capsys.readouterr().err
