"""XNNPACK's C API as far as we use it: constants, structures, prototypes.

The facts are those of ``xnnpack.h`` and ``pthreadpool.h`` at the version that the
``executorch==1.5.1`` wheel carries. The numbers of the operator enums differ between versions of
XNNPACK; the self-test would notice.
"""

from __future__ import annotations

import ctypes
from ctypes import (
    CFUNCTYPE,
    POINTER,
    Structure,
    Union,
    c_bool,
    c_double,
    c_float,
    c_int,
    c_int32,
    c_size_t,
    c_uint32,
    c_void_p,
)
from enum import IntEnum

from penstock.graph.dtypes import DataType

VALUE_FLAG_EXTERNAL_INPUT = 0x1
VALUE_FLAG_EXTERNAL_OUTPUT = 0x2
FLAG_BASIC_PROFILING = 0x8

#: ``xnn_datatype`` of each type of the payload schema, whose numbers differ from 10 to 12.
DATATYPE: dict[DataType, int] = {
    DataType.FP32: 1,
    DataType.FP16: 2,
    DataType.QINT8: 3,
    DataType.QUINT8: 4,
    DataType.QINT32: 5,
    DataType.QCINT8: 6,
    DataType.QCINT32: 7,
    DataType.QCINT4: 8,
    DataType.QDINT8: 9,
    DataType.QPINT8: 10,
    DataType.INT32: 11,
    DataType.QBINT4: 12,
    DataType.PFP32: 13,
    DataType.BF16: 14,
}

STATUS = (
    "success",
    "not initialized",
    "invalid parameter",
    "invalid state",
    "unsupported parameter",
    "unsupported hardware",
    "out of memory",
    "reallocation required",
    "deprecated",
)


class Unary(IntEnum):
    """``xnn_unary_operator``."""

    ABS = 0
    APPROXIMATE_GELU = 1
    BANKERS_ROUNDING = 2
    CEILING = 3
    CLAMP = 4
    CONVERT = 5
    COSINE = 6
    ELU = 7
    EXP = 8
    FLOOR = 9
    GELU = 10
    HARDSWISH = 11
    LEAKY_RELU = 12
    LOG = 13
    NEGATE = 14
    RECIPROCAL_SQUARE_ROOT = 15
    SIGMOID = 16
    SINE = 17
    SQUARE_ROOT = 18
    SQUARE = 19
    TANH = 20


class Binary(IntEnum):
    """``xnn_binary_operator``."""

    ADD = 0
    SUBTRACT = 1
    MULTIPLY = 2
    DIVIDE = 3
    MAXIMUM = 4
    MINIMUM = 5
    COPYSIGN = 6
    SQUARED_DIFFERENCE = 7
    PRELU = 8


class ClampParams(Structure):
    _fields_ = [("min", c_float), ("max", c_float)]


class UnaryParams(Union):
    _fields_ = [("clamp", ClampParams), ("alpha", c_float), ("negative_slope", c_float)]


class BinaryParams(Structure):
    _fields_ = [("output_min", c_double), ("output_max", c_double)]


class ExternalValue(Structure):
    _fields_ = [("id", c_uint32), ("data", c_void_p)]


class LookUpKey(Structure):
    _fields_ = [
        ("seed", c_uint32),
        ("kernel", c_void_p),
        ("bias", c_void_p),
        ("fingerprint_id", c_uint32),
    ]


_key = POINTER(LookUpKey)


class WeightsCache(Structure):
    """``xnn_weights_cache_provider``: functions that XNNPACK calls, each with ``context``."""

    _fields_ = [
        ("context", c_void_p),
        ("look_up", CFUNCTYPE(c_size_t, c_void_p, _key)),
        ("reserve_space", CFUNCTYPE(c_void_p, c_void_p, c_size_t)),
        ("look_up_or_insert", CFUNCTYPE(c_size_t, c_void_p, _key, c_void_p, c_size_t)),
        ("is_finalized", CFUNCTYPE(c_bool, c_void_p)),
        ("offset_to_addr", CFUNCTYPE(c_void_p, c_void_p, c_size_t)),
        ("delete_cache", CFUNCTYPE(c_int, c_void_p)),
        ("alias_data", CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p)),
    ]


_handle = c_void_p
_out = POINTER(c_void_p)
_id = c_uint32
_ids = POINTER(c_uint32)
_sizes = POINTER(c_size_t)
_padding = (c_uint32,) * 4
_clamp = (c_float, c_float)

# fmt: off
#: Argument types by function; all return ``xnn_status`` but those in :data:`RESULTS`.
XNNPACK: dict[str, tuple[type, ...]] = {
    "xnn_initialize": (c_void_p,),
    "xnn_create_subgraph": (c_uint32, c_uint32, _out),
    "xnn_delete_subgraph": (_handle,),
    "xnn_define_tensor_value":
        (_handle, c_int, c_size_t, _sizes, c_void_p, _id, c_uint32, _ids),
    "xnn_define_quantized_tensor_value":
        (_handle, c_int, c_int32, c_float, c_size_t, _sizes, c_void_p, _id, c_uint32, _ids),
    "xnn_define_channelwise_quantized_tensor_value_v2":
        (_handle, c_int, c_int32, c_void_p, c_size_t, c_size_t, _sizes, c_void_p, _id, c_uint32,
         _ids),
    "xnn_define_blockwise_quantized_tensor_value":
        (_handle, c_int, c_int32, c_void_p, c_size_t, c_size_t, c_size_t, _sizes, c_void_p, _id,
         c_uint32, _ids),
    "xnn_define_dynamically_quantized_tensor_value":
        (_handle, c_int, c_size_t, c_size_t, _sizes, _id, c_uint32, _ids),
    "xnn_define_unary": (_handle, c_int, POINTER(UnaryParams), _id, _id, c_uint32),
    "xnn_define_binary": (_handle, c_int, POINTER(BinaryParams), _id, _id, _id, c_uint32),
    "xnn_define_convolution_2d":
        (_handle, *_padding, *(c_uint32,) * 7, c_size_t, c_size_t, *_clamp, *(_id,) * 4, c_uint32),
    "xnn_define_deconvolution_2d":
        (_handle, *_padding, *(c_uint32,) * 9, c_size_t, c_size_t, *_clamp, *(_id,) * 4, c_uint32),
    "xnn_define_depthwise_convolution_2d":
        (_handle, *_padding, *(c_uint32,) * 7, c_size_t, *_clamp, *(_id,) * 4, c_uint32),
    "xnn_define_average_pooling_2d":
        (_handle, *_padding, *(c_uint32,) * 4, *_clamp, _id, _id, c_uint32),
    "xnn_define_max_pooling_2d":
        (_handle, *_padding, *(c_uint32,) * 6, *_clamp, _id, _id, c_uint32),
    "xnn_define_argmax_pooling_2d":
        (_handle, *_padding, c_uint32, c_uint32, _id, _id, _id, c_uint32),
    "xnn_define_global_average_pooling_2d": (_handle, *_clamp, _id, _id, c_uint32),
    "xnn_define_fully_connected": (_handle, *_clamp, *(_id,) * 4, c_uint32),
    "xnn_define_batch_matrix_multiply": (_handle, _id, _id, _id, c_uint32),
    "xnn_define_softmax": (_handle, _id, _id, c_uint32),
    "xnn_define_copy": (_handle, _id, _id, c_uint32),
    "xnn_define_concatenate": (_handle, c_int32, c_size_t, _ids, _id, c_uint32),
    "xnn_define_static_slice": (_handle, c_size_t, _sizes, _sizes, _id, _id, c_uint32),
    "xnn_define_static_transpose": (_handle, c_size_t, _sizes, _id, _id, c_uint32),
    "xnn_define_static_reshape": (_handle, c_size_t, _sizes, _id, _id, c_uint32),
    "xnn_define_static_constant_pad": (_handle, _sizes, _sizes, c_float, _id, _id, c_uint32),
    "xnn_define_static_resize_bilinear_2d": (_handle, c_size_t, c_size_t, _id, _id, c_uint32),
    "xnn_create_workspace": (_out,),
    "xnn_release_workspace": (_handle,),
    "xnn_create_runtime_v4": (_handle, _handle, _handle, _handle, c_uint32, _out),
    "xnn_delete_runtime": (_handle,),
    "xnn_reshape_external_value": (_handle, _id, c_size_t, _sizes),
    "xnn_get_external_value_shape": (_handle, _id, _sizes, _sizes),
    "xnn_reshape_runtime": (_handle,),
    "xnn_setup_runtime_v2": (_handle, c_size_t, POINTER(ExternalValue)),
    "xnn_invoke_runtime": (_handle,),
    "xnn_get_runtime_profiling_info": (_handle, c_int, c_size_t, c_void_p, _sizes),
}
# fmt: on


def bind(library: ctypes.CDLL, prototypes: dict[str, tuple[type, ...]]) -> None:
    """Give the functions of ``library`` their types. Raises AttributeError for a missing one."""
    for name, arguments in prototypes.items():
        function = getattr(library, name)
        function.argtypes = arguments
        function.restype = c_int
