"""stub"""
UNKNOWN = object()
def possible_axes(field):
    return tuple(a for a in (0, -1) if len(field.shape) > 1 and 2 <= field.shape[a] <= 8)
def shifted_axis(obs, next_obs):
    import numpy as np
    if np.array_equal(obs, next_obs): return UNKNOWN
    for axis in (0, -1):
        if 2 <= obs.shape[axis] <= 8:
            a, b = np.moveaxis(obs, axis, 0), np.moveaxis(next_obs, axis, 0)
            if np.array_equal(a[1:], b[:-1]): return axis
    return None
def stack_axis_of(env): return None
