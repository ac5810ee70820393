"""Whatever an admin sends, no service breaks: a clear status, in time, and it goes on serving in bounded memory."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence

import grpc
import pytest
from grpc_status import rpc_status
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from libs.service_kit.identity import Role
from tests.faults.hardening.odd_messages import messages
from tests.faults.hardening.published_methods import Method, published_methods
from tests.faults.hardening.whole_lab import SERVICES, WholeLab
from tests.integration.sync_engine.running_engine import EQUIPMENT, PROJECT

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]

DEFECTS = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DEADLINE_EXCEEDED}
# These stay open as long as the caller likes; whatever is wrong with the request they say at once.
ENDLESS = {"WatchJobs", "WatchProblems", "WatchProjects", "WatchSecrets", "SubscribeEvents"}
GROWTH = 256 * 2**20
EXAMPLES = 6


async def defect(method: Method, channel: grpc.aio.Channel, request: object) -> str:
    """What went wrong in a call; "" when it was answered or refused properly."""
    is_endless = method.descriptor.name in ENDLESS
    call = method.call(channel, request, timeout=0.3 if is_endless else 120)  # type: ignore[arg-type]
    try:
        if method.descriptor.server_streaming:
            async for _ in call:
                pass
        else:
            await call
    except grpc.aio.AioRpcError as error:
        if is_endless and error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
            return ""
        # An error without details is gRPC's own: what the service said was too much for it.
        if error.code() in DEFECTS or rpc_status.from_call(error) is None:
            return f"{method.name}: {error.code()} {error.details()!r:.300} for {request!r:.500}"
    finally:
        call.cancel()
    return ""


@pytest.mark.parametrize("service", SERVICES)
@settings(
    max_examples=EXAMPLES,
    database=None,
    # Shrinking would call everything some hundred times more; the failing calls are named.
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, *settings.default.suppress_health_check],  # type: ignore[union-attr]
)
@given(data=st.data())
async def test_random_requests(lab: WholeLab, service: str, data: st.DataObject) -> None:
    channel = await lab.channel(service, Role.ADMIN.value)
    plausible = known_texts(lab)
    before = lab.memory(service)
    methods = await published_methods(channel)
    requests = [(m, data.draw(messages(m.request, plausible), label=m.name)) for m in methods]
    defects = await asyncio.gather(*(defect(method, channel, request) for method, request in requests))
    await channel.close()
    assert [text for text in defects if text] == []
    await lab.assert_serving()
    assert lab.memory(service) < before + GROWTH


def known_texts(lab: WholeLab) -> Sequence[str]:
    run = lab.site.make_run()
    adopted = str(lab.site.local(run))
    return (
        run,
        EQUIPMENT,
        PROJECT,
        f"{EQUIPMENT}/{PROJECT}",
        "default",
        "lims",
        "because",
        str(uuid.UUID(int=7)),
        adopted,
    )


GARBAGE = (b"\xff" * 64, b"\x0a\x05ab", b"\x0a\x02\xff\xfe", b"\x08" + b"\x80" * 20, bytes(range(256)), b"\x0b" * 5000)


@pytest.mark.parametrize("service", SERVICES)
async def test_bytes_that_are_no_message(lab: WholeLab, service: str) -> None:
    channel = await lab.channel(service, Role.ADMIN.value)
    methods = [m for m in await published_methods(channel) if m.request.fields]
    defects = [await defect(method, channel, garbage) for method in methods for garbage in GARBAGE]
    assert not [text for text in defects if text]
    await lab.assert_serving()


@pytest.mark.parametrize("service", SERVICES)
async def test_a_message_above_the_limit(lab: WholeLab, service: str) -> None:
    channel = await lab.channel(service, Role.ADMIN.value)
    before = lab.memory(service)
    for method in await published_methods(channel):
        error = await method.answered(channel, b"\x7a\x80\x80\x80\x04" + b"x" * 8 * 2**20)
        assert error is not None
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED, method.name
    await lab.assert_serving()
    assert lab.memory(service) < before + GROWTH
