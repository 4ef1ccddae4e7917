"""Every prediction type round-trips on every path, and every grid of times is usable."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from synthmed.diffusion.process import PATHS, add_noise, start_time, target, to_noise, to_sample
from synthmed.diffusion.samplers import time_grid

paths = st.sampled_from(sorted(PATHS))
values = st.lists(st.floats(-5, 5), min_size=4, max_size=4).map(lambda v: torch.tensor([v], dtype=torch.float64))


@given(paths, st.sampled_from(["epsilon", "sample", "velocity"]), values, values, st.floats(1e-3, 1.0))
def test_a_perfect_prediction_gives_back_data_and_noise(
    name: str, prediction: str, x0: torch.Tensor, noise: torch.Tensor, fraction: float
) -> None:
    path = PATHS[name]
    t = torch.tensor([fraction * start_time(path, prediction)], dtype=torch.float64)
    x_t = add_noise(path, x0, noise, t)
    output = target(path, prediction, x0, noise, t)
    torch.testing.assert_close(to_sample(path, prediction, output, x_t, t), x0, atol=1e-9, rtol=0)
    torch.testing.assert_close(to_noise(path, prediction, output, x_t, t), noise, atol=1e-9, rtol=0)


@given(paths, st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_noise_to_signal_rises_along_a_path(name: str, first: float, second: float) -> None:
    early, late = (torch.tensor([t], dtype=torch.float64) for t in sorted((first, second)))
    path = PATHS[name]
    assert path.sigma(early) * path.alpha(late) <= path.sigma(late) * path.alpha(early) + 1e-12


@given(st.integers(1, 1000), st.floats(1.0, 20.0), st.floats(0.1, 1.0))
@settings(deadline=None)
def test_times_fall_strictly_from_the_start_to_zero(num_steps: int, shift: float, start: float) -> None:
    times = time_grid(num_steps, shift, start)
    assert len(times) == num_steps + 1
    assert abs(float(times[0]) - start) < 1e-12
    assert float(times[-1]) == 0.0
    assert (times.diff() < 0).all()
