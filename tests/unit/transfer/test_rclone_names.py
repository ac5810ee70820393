"""Names that rclone's encoders would change are known beforehand."""

from __future__ import annotations

import pytest

from services.sync_engine.transfer.rclone_names import altered_names, as_listed

SMB = "Slash,LtGt,DoubleQuote,Colon,Question,Asterisk,Pipe,BackSlash,Ctl,RightSpace,RightPeriod,InvalidUtf8,Dot"


@pytest.mark.parametrize(
    "name", ["a:b", "a<", 'a"', "a?", "a*", "a|", "a\\b", "a\nb", "a ", "a.", "CON", "con.txt", "a\uff1a"]
)
def test_names_that_smb_alters(name: str) -> None:
    assert altered_names(SMB).search(name)


@pytest.mark.parametrize(
    "name", ["plain", " a", ".hidden", "a.b", "ünï", "a b", "$(x)", "CONFOCAL", "-rf", "%s{}[]~!#"]
)
def test_names_that_smb_keeps(name: str) -> None:
    assert not altered_names(SMB).search(name)


@pytest.mark.parametrize("name", ["\u240a", "\u2421", "\u201bx", "\uff0f"])
def test_look_alikes_are_altered_everywhere(name: str) -> None:
    assert altered_names("").search(name)


def test_a_backend_without_encoding_keeps_the_rest() -> None:
    assert not altered_names("Slash,Dot").search('a:b<>"|?* .\n')


def test_what_a_listing_stands_for() -> None:
    assert as_listed("a\u240ab\u2421") == b"a\nb\x7f"
