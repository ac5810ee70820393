"""Every method of every running service, called as every role, answers as docs/integrator.md says."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from libs.service_kit.identity import Role
from tests.e2e.documentation.pages import Page, bare
from tests.faults.hardening.published_methods import Method, published_methods
from tests.faults.hardening.whole_lab import NOBODY, REVOKED, SERVICES, WholeLab
from tests.integration.secrets.running_service import error_info

EVERYBODY = [*(role.value for role in Role), NOBODY, REVOKED]
REFUSALS = {
    "IDENTITY_REQUIRED": grpc.StatusCode.UNAUTHENTICATED,
    "TOO_MANY_REFUSALS": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "ROLE_REQUIRED": grpc.StatusCode.PERMISSION_DENIED,
}


def documented() -> dict[str, set[str]]:
    """The roles that may call each method."""
    page = Page.read("docs/integrator.md")
    groups = {group: {bare(r.strip()) for r in roles.split(",")} for group, roles in page.table("### Roles")}
    return {bare(method): groups[group] for method, group in page.table("### Methods and who may call them")}


async def outcome(method: Method, channel: grpc.aio.Channel) -> str:
    """ "" when the caller was let in, else the reason of the refusal."""
    error = await method.answered(channel, brief(method))
    if error is None:
        return ""
    reason = error_info(error).reason
    if reason not in REFUSALS:
        return ""
    assert error.code() == REFUSALS[reason]
    return reason


def brief(method: Method) -> bytes:
    """A request that is answered or found wrong at once: a stream with nothing to tell would keep the test waiting."""
    names = {field.name for field in method.request.fields}
    endless = {"resume_token": "nonsense", "after_position": 2**40}
    return method.message(**{name: value for name, value in endless.items() if name in names}).SerializeToString()


@pytest.mark.asyncio(loop_scope="session")
async def test_every_method_as_every_role(lab: WholeLab) -> None:
    allowed = documented()
    published = set()
    for service in SERVICES:
        channels = {who: await lab.channel(service, who) for who in EVERYBODY}
        for method in await published_methods(channels[NOBODY]):
            published.add(method.name)
            assert method.name in allowed, f"{method.name} is published, and stands in no table"
            reasons = await asyncio.gather(*(outcome(method, channel) for channel in channels.values()))
            for who, reason in zip(channels, reasons, strict=True):
                where = f"{method.name} of {service} as {who}: {reason or 'allowed'}"
                if who in allowed[method.name]:
                    assert not reason, where
                elif who in (NOBODY, REVOKED):
                    assert reason in ("IDENTITY_REQUIRED", "TOO_MANY_REFUSALS"), where
                else:
                    assert reason == "ROLE_REQUIRED", where
    assert published == set(allowed)
    await lab.assert_serving()
