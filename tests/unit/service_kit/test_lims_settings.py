from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from libs.service_kit.lims_settings import LimsKind, LimsSettings, base_of

REST = {"endpoint": "https://lims.example", "email": "a@b"}
ELABFTW = {"endpoint": "https://elab.example", "kind": "elabftw", "category_id": 3, "secret": "lims:elab"}


@pytest.mark.parametrize("suffix", ["", "/", "/api/v1", "/api/v1/", "/api/v2"])
def test_one_endpoint_in_five_spellings(suffix: str) -> None:
    assert base_of(f"https://lims.example:8443/lab{suffix}") == "https://lims.example:8443/lab"


def test_one_block_is_the_one_default() -> None:
    settings = LimsSettings.model_validate(REST)
    assert [lims.endpoint for lims in settings.all()] == ["https://lims.example"]
    assert (settings.kind, settings.secret) == (LimsKind.REST, "lims")
    assert list(LimsSettings().all()) == []


def test_the_default_comes_first() -> None:
    settings = LimsSettings.model_validate({**REST, "others": [ELABFTW]})
    assert [lims.kind for lims in settings.all()] == [LimsKind.REST, LimsKind.ELABFTW]


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"others": [ELABFTW]}, "endpoint is needed where there are others"),
        ({**REST, "others": [{**REST, "endpoint": "https://lims.example/api/v1/"}]}, "configured twice"),
        ({**REST, "others": [{**ELABFTW, "category_id": None}]}, "category_id"),
        ({**REST, "others": [{**ELABFTW, "endpoint": ""}]}, "endpoint is missing"),
        ({**REST, "secret": "nas:CONFOCAL_01"}, "may read no other"),
        ({**REST, "endpoint": "https://me:secret@lims.example"}, "user name"),
        ({**REST, "offline_catalogue_path": "catalogue.json"}, "absolute"),
        (
            {**REST, "offline_catalogue_path": "/c", "others": [{**ELABFTW, "offline_catalogue_path": "/c"}]},
            "/c is configured twice",
        ),
        ({**REST, "cache_ttl_hours": float("inf")}, "finite"),
    ],
)
def test_what_can_never_work_is_refused(wrong: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        LimsSettings.model_validate(wrong)
