"""labferry doctor: one line a part, and status 1 when one is not well."""

from __future__ import annotations

from tests.e2e.terminal import NO, Operator


async def test_what_works_and_what_does_not(operator: Operator) -> None:
    run = operator.site.make_run()
    await operator("run", "queue", run)
    assert (await operator("job", "watch", "--run", run)).status == 0
    said = await operator("doctor", "-o", "json")
    parts = {check["part"]: check for check in said.json}
    assert parts["log of sync_engine"]["ok"]
    assert parts["log of sync_engine"]["detail"].startswith("intact, head ")
    assert parts["sync_engine"]["detail"].startswith("version ")
    assert parts["clock"]["ok"]
    nas = parts["CONFOCAL_01 to default"]
    assert nas["ok"]
    assert "free" in nas["detail"]
    assert "probed 2" in nas["detail"]
    operator.site.nas().rename(operator.site.nas().with_name("away"))
    away = await operator("doctor")
    assert away.status == NO
    assert "CONFOCAL_01 to default  NO" in away.out
