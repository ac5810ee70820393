from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.service_kit.errors import InvalidRequestError
from services.lims_gateway.projects.paging import PageKey, ProjectFilter, decode_token, encode_token
from services.lims_gateway.projects.project import ProjectStatus

text = st.text(st.characters(codec="utf-8"))


@given(text, text)
def test_a_token_gives_its_place_back(name: str, uid: str) -> None:
    wanted = ProjectFilter(frozenset({ProjectStatus.ACTIVE}), "cortex")
    assert decode_token(encode_token(PageKey(name, uid), wanted), wanted) == PageKey(name, uid)


@given(text | st.from_regex(r"[A-Za-z0-9_=-]+"))
def test_anything_else_is_refused(token: str) -> None:
    with pytest.raises(InvalidRequestError):
        decode_token(token, ProjectFilter())


def test_a_token_belongs_to_its_filter() -> None:
    token = encode_token(PageKey("a", "b"), ProjectFilter(query="A"))
    assert decode_token(token, ProjectFilter(query="a")) == PageKey("a", "b")
    for other in (ProjectFilter(), ProjectFilter(frozenset({ProjectStatus.ACTIVE}), "a")):
        with pytest.raises(InvalidRequestError):
            decode_token(token, other)
