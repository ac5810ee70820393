"""`python -m bench [--rows name,name]`: measures ours beside its peers (ARCHITECTURE §6)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import uvloop

from bench import (
    append_group,
    catch_up,
    creation_json,
    enqueue,
    idle,
    list_projects,
    many_runs,
    problems,
    replay,
    rpc_read,
    startup,
    transfer_large,
    transfer_small,
    transfer_tools,
)
from bench.rpc_write import RPC_WRITE
from bench.table import Result, Row, format_table, note_result, run_row

ROWS: Sequence[Row] = (
    RPC_WRITE,
    rpc_read.ROW,
    list_projects.ROW,
    append_group.AGAINST_ONE_A_COMMIT,
    append_group.AGAINST_RAW_BATCHES,
    replay.ROW,
    catch_up.ROW,
    startup.ROW,
    many_runs.ROW,
    enqueue.ROW,
    idle.ROW,
    problems.FIRST,
    problems.REPEATED,
    *transfer_small.ROWS,
    *transfer_large.ROWS,
    *transfer_tools.ROWS,
    creation_json.ROW,
)


def _selected(names: str) -> Sequence[Row]:
    known = {row.name for row in ROWS}
    wanted = [name.strip() for name in names.split(",") if name.strip()] or sorted(known)
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise SystemExit(f"no such row: {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    return [row for row in ROWS if row.name in wanted]


async def _run(rows: Sequence[Row]) -> Sequence[Result]:
    results = []
    for row in rows:
        print(f"{row.name} against {row.peer} ...", file=sys.stderr, flush=True)
        result = await run_row(row)
        note_result(result)
        results.append(result)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rows", default="", help="names of rows, comma separated; default: all")
    rows = _selected(parser.parse_args().rows)
    print(format_table(uvloop.run(_run(rows))))


if __name__ == "__main__":
    main()
