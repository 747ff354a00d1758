"""The way a model takes: capture, rewrite, quantize, partition, delegate, emit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

from penstock.compiler.capture.export import Captured, capture
from penstock.compiler.delegate.calls import insert_calls
from penstock.compiler.delegate.group import Delegate, GroupLoweringError, lower_group
from penstock.compiler.delegate.partition import LOWERING, Partition, Reason, is_operator, partition
from penstock.compiler.delegate.report import Delegation, describe, joined
from penstock.compiler.fx.all_sizes import for_all_sizes
from penstock.compiler.fx.control_flow import all_graphs
from penstock.compiler.fx.culprits import locate
from penstock.compiler.fx.layout import Dynamic
from penstock.compiler.notices import CALIBRATION, NAMES, Ledger, Notice, of_state
from penstock.compiler.one_thread import one_thread
from penstock.compiler.program.constant_methods import constant_methods as constant_methods_of
from penstock.compiler.program.emit import emit, sources_of
from penstock.compiler.program.etrecord import EtRecord
from penstock.compiler.progress import Progress, Silent, Timed
from penstock.compiler.quantize import (
    AccuracyBudget,
    Quantization,
    QuantizationReport,
    quantize,
)
from penstock.compiler.quantize.unused_names import unused_names
from penstock.compiler.rewrite import pipelines
from penstock.errors import InputError
from penstock.faults import faults
from penstock.files import write_file
from penstock.formats.program import Program
from penstock.formats.program_writer import program_chunks, write_program
from penstock.formats.sources import KEY as SOURCES
from penstock.formats.sources import encode_sources
from penstock.notebook import facts, render
from penstock.text import counted

BETWEEN_KERNELS = Reason(
    "between kernels", "it only moves what kernels made: a delegate for that alone gains nothing"
)
#: The method that a model becomes.
METHOD = "forward"
NOT_ASKED = Reason("not asked", "delegation was not asked for")


@dataclass
class LoweredProgram:
    """A compiled model: the program and what was found on the way.

    ``graph`` is the lowered graph as text, ``delegation`` says what went to XNNPACK,
    ``quantization`` (``None`` for floating point) what became int8, ``timings`` the seconds that
    each stage took, ``notices`` what a user should know besides: that the compiler made large
    constants, for one, and for which operators. ``record`` is what an ETRecord is made
    of, where that was asked for.
    """

    program: Program
    graph: str
    delegation: Delegation
    quantization: QuantizationReport | None
    timings: dict[str, float] = field(default_factory=dict)
    notices: tuple[Notice, ...] = ()
    record: EtRecord | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        """The size of what was compiled, and what of it XNNPACK runs."""
        pieces, outside = len(self.delegation.subgraphs), len(self.delegation.undelegated)
        scheme = "fp32" if self.quantization is None else self.quantization.scheme
        return (
            f"Lowered({scheme}: {self.delegation.share:.0%} of the operators in XNNPACK,"
            f" delegates: {pieces}, operators outside: {outside})"
        )

    def _repr_html_(self) -> str:
        took = sorted(self.timings.items(), key=lambda item: -item[1])
        pieces = len(self.delegation.subgraphs)
        share = f"{self.delegation.share:.0%} of the operators, in {pieces} delegate"
        size = sum(memoryview(chunk).nbytes for chunk in program_chunks(self.program))
        summary = facts(
            "Lowered program",
            (
                ("precision", "fp32" if self.quantization is None else self.quantization.scheme),
                ("file", f"{size / 1e6:.2f} MB" if size >= 1e5 else f"{size:,} bytes"),
                ("in XNNPACK", share if pieces == 1 else f"{share}s"),
                ("seconds", ", ".join(f"{name} {seconds:.1f}" for name, seconds in took[:4])),
                *(("notice", notice) for notice in self.notices),
            ),
        )
        return render(summary, *self.delegation.tables())

    def to_bytes(self) -> bytes:
        """The ``.pte`` file."""
        with faults("write"):
            return write_program(self.program)

    def save(self, path: str | Path) -> None:
        """Writes the ``.pte`` file to ``path``: all of it, or nothing. Raises :class:`InputError`
        where the place cannot be written to."""
        with faults("write"):
            chunks = program_chunks(self.program)  # not joined: they are as large as the weights
            write_file(path, lambda file: file.writelines(chunks), what="program")

    def save_etrecord(self, path: str | Path) -> None:
        """Writes the ETRecord to ``path``, by which ExecuTorch's ``Inspector`` finds the operators
        that the events of a profile (``penstock profile --etdump``) belong to.

        Raises:
            InputError: the model was not lowered with ``etrecord=True``, or the place cannot be
                written to.
            UnsupportedError: the exported program cannot be held by such a file.
        """
        if self.record is None:
            raise InputError("there is no ETRecord of this program: lower it with etrecord=True")
        with faults("write"):
            content = self.record.to_bytes()
            write_file(path, lambda file: file.write(content), what="ETRecord")


def lower(
    model: torch.nn.Module | ExportedProgram | str | Path,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
    quantize: str | Quantization | None = None,
    calibration: Iterable[Any] | None = None,
    held_out: Iterable[Any] | None = None,
    accuracy: AccuracyBudget | None = None,
    delegate: bool = True,
    sources: bool = True,
    etrecord: bool = False,
    constant_methods: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> LoweredProgram:
    """Compiles a model.

    Args:
        model: an ``nn.Module`` (taken in evaluation mode, and left as it was), an
            ``ExportedProgram``, or the path of a ``.pt2`` archive.
        args, kwargs: example inputs, as the model is called. An exported program brings its own.
        dynamic_shapes: as for ``torch.export.export``; every dynamic dimension needs a ``max``.
        quantize: ``None`` for floating point, ``"static"``, ``"dynamic"``, or a
            :class:`Quantization`.
        calibration: batches of inputs (tuples like ``args``) for static quantization; by default
            the example inputs.
        held_out: other such batches, for what ``quantization`` reports of the error.
        accuracy: what the quantized model must reach; the fewest operators stay in float that
            this takes, measured on ``held_out`` or by a metric. ``quantization.budget`` says what
            was chosen.
        delegate: whether XNNPACK gets what it can run; otherwise kernels run everything.
        sources: whether the file says which module and line of source each of its instructions and
            nodes comes from; profiles show it.
        etrecord: whether to keep what :meth:`LoweredProgram.save_etrecord` writes.
        constant_methods: names of methods to add that take nothing, and what each returns:
            numbers, texts, None, tensors, or lists, tuples and dicts of them.
        progress: told of each stage as it begins and ends.

    Raises:
        ExportError: ``torch.export`` cannot capture the model.
        QuantizationError: there is nothing to quantize, or the calibration data does not fit.
        UnsupportedError: an operator has neither a delegate nor a kernel.
        InputError: an argument is wrong.
        InternalError: a fault of Penstock.
    """
    timed = Timed(progress or Silent())
    if quantize is None:
        _require_no_data(calibration=calibration, held_out=held_out, accuracy=accuracy)
    with faults("lower", locate), torch.no_grad():
        constants = constant_methods_of(constant_methods or {}, METHOD)
        with timed.stage("capture") as stage:
            captured = capture(model, args, kwargs, dynamic_shapes, keep=etrecord)
            module = captured.module
            record = None if captured.exported is None else EtRecord(captured.exported)
            stage.note(counted(len(module.graph.nodes), "node"))
        with for_all_sizes(module):
            with timed.stage("rewrite"):
                pipelines.run(module)
            report: QuantizationReport | None = None
            advice = [*of_state(captured.forgotten)]
            if quantize is not None:
                quantize = Quantization.parse(quantize)
                unused = unused_names(captured.module, quantize)
                advice += (Notice(NAMES, text) for text in unused)
                module, report = _quantized(
                    captured, quantize, calibration, held_out, accuracy, timed
                )
                captured.module = module
                if report.example_inputs_alone:
                    advice.append(Notice(CALIBRATION, report.calibration))
            program, graph, delegation, said = _delegated(
                captured, delegate, sources, record, timed
            )
    program.methods += constants
    said = (*advice, *said)
    return LoweredProgram(program, graph, delegation, report, timed.timings, said, record)


def _require_no_data(**given: Any) -> None:
    """Raises InputError for what a model in floating point has no use for."""
    name = next((name for name, value in given.items() if value is not None), None)
    if name is not None:
        raise InputError(f"{name}= is for quantized models: say quantize='static', too")


def _quantized(
    captured: Captured,
    scheme: str | Quantization,
    calibration: Iterable[Any] | None,
    held_out: Iterable[Any] | None,
    accuracy: AccuracyBudget | None,
    progress: Progress,
) -> tuple[GraphModule, QuantizationReport]:
    with one_thread():
        return quantize(
            captured.module, captured.args, scheme, calibration, progress,
            example_kwargs=captured.kwargs, held_out=held_out, accuracy=accuracy,
            output_structure=captured.output_structure,
        )  # fmt: skip


def _delegated(
    captured: Captured,
    delegate: bool,
    sources: bool,
    record: EtRecord | None,
    progress: Progress,
) -> tuple[Program, str, Delegation, tuple[Notice, ...]]:
    module = captured.module
    dynamic = Dynamic(captured.bounds, captured.least)
    graphs = list(all_graphs(module))
    with progress.stage("partition") as stage:
        pipelines.run(module, pipelines.BEFORE_PARTITION)
        splits = [
            _partition(part, dynamic) if delegate else (_nothing_delegated(part), [])
            for part in graphs
        ]
        count = sum(len(split.groups) for split, _ in splits)
        stage.note(counted(count, "delegated piece"))
    delegation = joined(describe(split) for split, _ in splits)
    ledger = Ledger(captured.weights)
    with progress.stage("delegate"):
        for part, (split, groups) in zip(graphs, splits, strict=True):
            ledger.enter_delegates(part, split.groups, groups)
            insert_calls(part, split.groups, groups)
            part.graph.eliminate_dead_code()
        pipelines.run(module, pipelines.FOR_KERNELS)
    with progress.stage("emit"):
        program = Program([])
        method, made = emit(module, captured, dynamic, METHOD, program.named_data)
        program.methods.append(method)
    if record is not None:
        record.enter(method, made)
    for part in graphs:
        ledger.enter_kernels(part)
    notices = ledger.notices(program)
    if sources:
        program.named_data[SOURCES] = encode_sources({method.name: sources_of(made)})
    return program, "\n".join(str(part.graph) for part in graphs), delegation, notices


def _nothing_delegated(module: GraphModule) -> Partition:
    nodes = [node for node in module.graph.nodes if is_operator(node)]
    return Partition((), dict.fromkeys(nodes, NOT_ASKED))


def _partition(module: GraphModule, dynamic: Dynamic) -> tuple[Partition, list[Delegate]]:
    """Partitions and lowers. Nodes that turn out to be impossible while they are lowered go
    outside, with the reason, and the partition is made again."""
    reasons: dict[Node, Reason] = {}
    finished: dict[tuple[Node, ...], Delegate] = {}
    while True:
        split = partition(list(module.graph.nodes), reasons)
        failed: dict[Node, str] = {}
        for group in split.groups:
            if group not in finished:
                try:
                    finished[group] = lower_group(module, group, dynamic)
                except GroupLoweringError as failure:
                    failed.update(failure.reasons)
        if failed:
            reasons.update({node: Reason(LOWERING, why) for node, why in failed.items()})
            continue
        idle = [group for group in split.groups if _only_moves(group, finished[group], split)]
        if idle and len(idle) < len(split.groups):
            reasons.update({node: BETWEEN_KERNELS for group in idle for node in group})
            continue
        return split, [finished[group] for group in split.groups]


def _only_moves(group: Sequence[Node], lowered: Delegate, split: Partition) -> bool:
    """Whether a group does nothing but move what comes from kernels to kernels, or out."""
    kinds = [node.kind.traits for node in lowered.graph.nodes]
    moves = all(kind.selects or kind.joins for kind in kinds)
    delegated = {node for other in split.groups for node in other} - set(group)
    inputs = [node for node in lowered.inputs if node.op != "placeholder"]
    return moves and bool(inputs) and not delegated.intersection(inputs)


__all__ = ["LoweredProgram", "lower"]
