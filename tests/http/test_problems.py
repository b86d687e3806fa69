"""The table of problems: each kind once, and true of the answers."""

from __future__ import annotations

import http
import re
from pathlib import Path

import pytest

from gatewayx.http import problems
from gatewayx.http.problems import PROBLEMS, Problem, RequestError, Retry

SOURCES = Path(__file__).parents[2] / "src" / "gatewayx"


def name_of(problem: Problem) -> str:
    """The constant that holds it."""
    return next(name for name, value in vars(problems).items() if value is problem)


class TestProblems:
    def test_each_kind_stands_once(self):
        kinds = [problem.kind for problem in PROBLEMS]
        assert len(set(kinds)) == len(kinds)

    @pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.kind)
    def test_each_is_whole(self, problem):
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", problem.kind)
        assert problem.status in {status.value for status in http.HTTPStatus if status >= 400}
        assert problem.when
        assert problem.detail.isascii()
        assert problem.detail.isprintable()
        assert problem.headers is None or problem.headers.endswith(b"\r\n")

    @pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.kind)
    def test_retry_after_is_for_what_may_be_sent_again(self, problem):
        # RFC 9110 15.6.4 and RFC 6585 4: with these two the answer says when to come again.
        if problem.status in (429, 503):
            assert problem.retry is Retry.YES

    @pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.kind)
    def test_each_is_used(self, problem):
        name = name_of(problem)
        uses = [
            path
            for path in SOURCES.rglob("*.py*")
            if path.suffix in (".py", ".pyx")
            and path.name not in ("problems.py", "operations.py")
            and re.search(rf"\b{name}\b", path.read_text())
        ]
        assert uses

    def test_no_kind_is_written_anywhere_else(self):
        paths = list(SOURCES.rglob("*.pyx"))
        assert paths
        for path in paths:
            text = path.read_text()
            for problem in PROBLEMS:
                assert f'"{problem.kind}"' not in text, f"{path.name} writes {problem.kind} by hand"

    def test_a_request_error_has_the_words_of_its_problem_unless_it_knows_more(self):
        assert RequestError(problems.NO_FUNCTION).detail == problems.NO_FUNCTION.detail
        assert str(RequestError(problems.NO_FUNCTION, "more")) == "more"
