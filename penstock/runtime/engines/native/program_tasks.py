"""The structures of ``native/rows.h``: one step each of a program, around its delegates."""

from __future__ import annotations

from collections.abc import Mapping
from ctypes import Structure, c_int, c_int64, c_size_t, c_ssize_t, c_void_p

from penstock.runtime.engines.native.library import Prototype

PROTOTYPES: Mapping[str, Prototype] = {
    f"pk_{name}_run": (None, (c_void_p, c_void_p))
    for name in ("rows_move", "rows_gather", "rows_scale", "rows_put", "ints", "choose", "both")
}
#: ``PK_MOVE_RANK``.
MOVE_RANK = 8


class CMove(Structure):
    """``struct pk_rows_move_task``."""

    _fields_ = [
        ("run", c_size_t),
        ("rank", c_size_t),
        ("sizes", c_size_t * MOVE_RANK),
        ("from_", c_ssize_t * MOVE_RANK),
        ("to", c_ssize_t * MOVE_RANK),
        ("input", c_void_p),
        ("output", c_void_p),
    ]


class CGather(Structure):
    """``struct pk_rows_gather_task``."""

    _fields_ = [
        ("outer", c_size_t),
        ("size", c_size_t),
        ("inner", c_size_t),
        ("count", c_size_t),
        ("input", c_void_p),
        ("index", c_void_p),
        ("output", c_void_p),
        ("status", c_int),
    ]


class CScale(Structure):
    """``struct pk_rows_scale_task``."""

    _fields_ = [
        ("size", c_size_t),
        ("columns", c_size_t),
        ("count", c_size_t),
        ("picks", c_size_t),
        ("table", c_void_p),
        ("scales", c_void_p),
        ("index", c_void_p),
        ("output", c_void_p),
        ("status", c_int),
    ]


class CTarget(Structure):
    """``struct pk_rows_target``."""

    _fields_ = [
        ("outer", c_size_t),
        ("size", c_size_t),
        ("inner", c_size_t),
        ("step", c_size_t),
        ("target", c_void_p),
        ("source", c_void_p),
    ]


class CPut(Structure):
    """``struct pk_rows_put_task``."""

    _fields_ = [
        ("targets", c_size_t),
        ("count", c_size_t),
        ("each", c_void_p),
        ("index", c_void_p),
        ("status", c_int),
    ]


class COperand(Structure):
    """``struct pk_operand``."""

    _fields_ = [("data", c_void_p), ("row", c_size_t), ("column", c_size_t)]


class CInts(Structure):
    """``struct pk_ints_task``."""

    _fields_ = [
        ("operation", c_size_t),
        ("rows", c_size_t),
        ("columns", c_size_t),
        ("factor", c_int64),
        ("a", COperand),
        ("b", COperand),
        ("output", c_void_p),
    ]


class CChoose(Structure):
    """``struct pk_choose_task``."""

    _fields_ = [
        ("rows", c_size_t),
        ("columns", c_size_t),
        ("condition", COperand),
        ("a", COperand),
        ("b", COperand),
        ("output", c_void_p),
    ]


class CBoth(Structure):
    """``struct pk_both_task``."""

    _fields_ = [
        ("rows", c_size_t),
        ("columns", c_size_t),
        ("a", COperand),
        ("b", COperand),
        ("output", c_void_p),
    ]
