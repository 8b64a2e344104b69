"""Items pass unchanged; a terminal gets a bar, a log a line now and then."""

import io
import itertools
import sys
import time

from medsae.io import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_gets_a_bar(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert list(progress("abc", "Reading")) == ["a", "b", "c"]
    assert "Reading: 100%" in sys.stderr.getvalue() and "3/3" in sys.stderr.getvalue()


def test_a_log_gets_a_line_every_ten_seconds_and_one_at_the_end(monkeypatch, caplog):
    caplog.set_level("INFO", "medsae")
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    for items in ("abcde", iter("abcde")):  # the second does not tell how many there are
        with monkeypatch.context() as patch:
            patch.setattr(time, "monotonic", itertools.count(0, 4).__next__)  # 4 s an item
            assert list(progress(items, "Reading")) == list("abcde")
    assert caplog.messages == [
        "Reading: 3/5 (60%) in 12 s, 8 s left",
        "Reading: 5/5 (100%) in 24 s",
        "Reading: 3 in 12 s",
        "Reading: 5 in 24 s",
    ]
    assert sys.stderr.getvalue() == ""
