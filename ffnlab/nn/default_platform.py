"""Where JAX computes what no device is named for."""

import jax


def default_platform() -> str:
    """Returns the platform on which JAX puts new arrays, such as `cpu` or `gpu`.

    >>> with jax.default_device(jax.devices("cpu")[0]):
    ...     default_platform()
    'cpu'
    """
    device = jax.config.jax_default_device
    return getattr(device, "platform", device) or jax.default_backend()
