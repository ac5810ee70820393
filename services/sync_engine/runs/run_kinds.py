"""Kinds of runs and their protobuf twins."""

from __future__ import annotations

from labferry.sync.v1 import run_pb2
from libs.run_tree.run_path import RunKind
from libs.service_kit.enum_names import ProtoNames

RUN_KINDS = ProtoNames(RunKind, run_pb2.RunKind, "RUN_KIND")
