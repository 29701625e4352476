"""What numba lacks: prefetching, and memory seen as another dtype or found at an address."""

from __future__ import annotations

import ctypes
import sys

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.cgutils import get_or_insert_function
from numba.core.imputils import impl_ret_borrowed
from numba.extending import intrinsic, overload
from numba.np.arrayobj import populate_array

from prioritized_replay.jit.compiling import counts

counts(sys._getframe())  # the code of this module is part of the kernels that use it

# Places are unsigned: numba then leaves out the check for negative indices, which halves the time
# of a search. All terms of such a sum must be unsigned, as numba turns int64 + uint64 into float64.

Place = np.uint64
ZERO = Place(0)
ONE = Place(1)
SEVEN = Place(7)
EIGHT = Place(8)


# --- memory ---------------------------------------------------------------------------------


def prefetch(array, place):
    """Ask for the cache line of array[place] (unsigned) ahead of its use; nothing in Python."""


@intrinsic
def _prefetch(typing_context, array, place):
    def code(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        line = builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(8).as_pointer())
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [line.type, number, number, number])
        function = get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        builder.call(function, [line, number(0), number(3), number(1)])  # read, keep, data
        return context.get_dummy_value()

    return types.void(array, place), code


@overload(prefetch)
def _compile_prefetch(array, place):
    return lambda array, place: _prefetch(array, place)  # type: ignore[call-arg]


def words_as(words, dtype):
    """Return 8-byte words as an array of another dtype; `view` would compile for 0.1 s each."""
    return words.view(dtype)


@intrinsic
def _words_as(typing_context, words, dtype):
    array = types.Array(dtype.dtype, 1, "C")

    def code(context, builder, signature, arguments):
        source = context.make_array(signature.args[0])(context, builder, arguments[0])
        view = context.make_array(array)(context, builder)
        size = context.get_abi_sizeof(context.get_data_type(array.dtype))
        number = context.get_value_type(types.intp)
        count = builder.mul(source.nitems, number(8 // size))
        populate_array(
            view,
            data=builder.bitcast(source.data, view.data.type),
            shape=[count],
            strides=[number(size)],
            itemsize=number(size),
            meminfo=source.meminfo,
            parent=source.parent,
        )
        return impl_ret_borrowed(context, builder, array, view._getvalue())

    return array(words, dtype), code


@overload(words_as)
def _compile_words_as(words, dtype):
    return lambda words, dtype: _words_as(words, dtype)  # type: ignore[call-arg]


# Frames lie in many arrays, as they are added while others are read. A list of 128 arrays takes
# numba milliseconds to hand over, in each call, and a list of its own kind 4 s to compile; hence
# addresses. Whoever passes them keeps the arrays alive and gives numbers of existing frames only.


def words_at(address, count):
    """Return the words at an address."""
    words = (ctypes.c_uint64 * int(count)).from_address(int(address))
    return np.frombuffer(words, np.uint64)


@intrinsic
def _words_at(typing_context, address, count):
    array = types.Array(types.uint64, 1, "C")

    def code(context, builder, signature, arguments):
        view = context.make_array(array)(context, builder)
        word = context.get_constant(types.intp, 8)
        populate_array(
            view,
            data=builder.inttoptr(arguments[0], view.data.type),
            shape=[arguments[1]],
            strides=[word],
            itemsize=word,
            meminfo=None,
        )
        return impl_ret_borrowed(context, builder, array, view._getvalue())

    return array(types.uint64, types.uint64), code


@overload(words_at)
def _compile_words_at(address, count):
    return lambda address, count: _words_at(address, count)  # type: ignore[call-arg]
