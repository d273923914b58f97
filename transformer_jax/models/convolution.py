"""A convolution over the grid of an image's patches. B batch, T patches row by row, D d_model."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


class GridConvolution(nn.Module):
    """y[r, c, d] = b[d] + sum_ij w[i, j, d] x[r + i, c + j, d], 0 beyond the edge: each channel by itself.

    The feed-forward network behind it is what mixes channels (MobileNets, Howard et al. 2017; ConvMixer, Trockman and
    Kolter 2022). Written as a sum of shifted products, which on a CPU is many times faster than a grouped convolution.
    """

    grid: tuple[int, int]  # rows and columns
    kernel: int  # height and width of what a patch sees, an odd number
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        (rows, columns), size, d_model = self.grid, self.kernel, x_BTD.shape[-1]
        init = nn.initializers.variance_scaling(1.0, "fan_in", "uniform", in_axis=(0, 1), out_axis=(), batch_axis=2)
        kernel_IJD = self.param("kernel", init, (size, size, d_model)).astype(self.dtype)
        bias_D = self.param("bias", nn.initializers.zeros, (d_model,)).astype(self.dtype)
        margin = size // 2
        x_BRCD = x_BTD.reshape(-1, rows, columns, d_model)
        x_BRCD = jnp.pad(x_BRCD, [(0, 0), (margin, margin), (margin, margin), (0, 0)])
        y_BRCD = sum(
            x_BRCD[:, i : i + rows, j : j + columns] * kernel_IJD[i, j] for i in range(size) for j in range(size)
        )
        return (y_BRCD + bias_D).reshape(x_BTD.shape)
