"""A buffer whose rows and frames lie in files behaves as one in RAM."""

import numpy as np
import pytest

import prioritized_replay as per

IMAGE = {
    "obs": {"image": per.Field((4, 20, 20), "uint8", stack_axis=0), "speed": per.Field((2,))},
    "action": per.Field((), "int64"),
    "reward": per.Field(),
}
SMALL = {"obs": per.Field((3,)), "action": per.Field((), "int64"), "reward": per.Field()}
SAMPLERS = [per.Uniform(), per.Proportional(), per.RankBased()]


def observation(fields, frames, k):
    if fields is SMALL:
        return np.full(3, k, np.float32)
    return {"image": frames[k : k + 4], "speed": np.full(2, k, np.float32)}


def drive(replay, fields, steps=400):
    """Add, sample, update and clear; return all that came out of it."""
    rng = np.random.default_rng(7)
    frames = rng.integers(0, 256, (steps + 8, 20, 20), dtype=np.uint8)
    seen = []
    for k in range(steps):
        ended = rng.random() < 0.1
        obs, next_obs = (observation(fields, frames, k + ahead) for ahead in (0, 1))
        seen.append(replay.add(obs, k, float(k % 7), next_obs, ended, k % 13 == 0))
        if k == steps // 2:
            replay.clear()
        elif k % 10 == 9 and len(replay):
            batch = replay.sample(8, beta=0.5)
            seen += [batch[name] for name in batch]
            replay.update_priorities(batch.ids, rng.normal(size=8))
    return seen


def flat(value):
    if isinstance(value, dict):
        return [array for part in value.values() for array in flat(part)]
    return [value]


@pytest.mark.parametrize("fields", [SMALL, IMAGE], ids=["small", "images"])
@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: type(sampler).__name__)
@pytest.mark.slow
def test_batches_are_those_of_a_buffer_in_ram(tmp_path, fields, n_step, sampler):
    options = {"sampler": sampler, "n_step": n_step, "seed": 3}
    there = per.ReplayBuffer(60, fields, directory=tmp_path / "replay", **options)
    here = per.ReplayBuffer(60, fields, **options)

    for one, other in zip(drive(there, fields), drive(here, fields), strict=True):
        for array, twin in zip(flat(one), flat(other), strict=True):
            assert array.dtype == twin.dtype
            np.testing.assert_array_equal(array, twin)

    assert there.nbytes == here.nbytes
    np.testing.assert_equal(there.stats(), here.stats())


def test_what_a_buffer_holds_is_in_its_files(tmp_path):
    replay = per.ReplayBuffer(500, IMAGE, directory=tmp_path)
    drive(replay, IMAGE)

    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}

    assert "rows.words" in sizes
    frames = sum(size for name, size in sizes.items() if name.startswith("frames-0-"))
    assert 1 <= frames / (200 * 400) < 3  # 200 rows since the buffer was cleared, 200 before


def test_a_directory_has_the_files_of_one_buffer(tmp_path):
    per.ReplayBuffer(10, SMALL, directory=tmp_path)  # and is gone, unlike its files
    with pytest.raises(FileExistsError, match="directory must not hold"):
        per.ReplayBuffer(10, SMALL, directory=tmp_path)


def test_a_directory_with_a_checkpoint_is_for_loading_it(tmp_path):
    """A new buffer's first flush would replace what was flushed there."""
    replay = per.ReplayBuffer(10, SMALL, directory=tmp_path, seed=1)
    replay.add(np.ones(3), 1, 1.0, np.ones(3), False)
    replay.flush()
    other = tmp_path / "other"
    per.ReplayBuffer(10, SMALL, seed=1).save(other)
    del replay
    (tmp_path / "rows.words").unlink()

    with pytest.raises(FileExistsError, match=r"with MANIFEST\.json: load it with ReplayBuffer"):
        per.ReplayBuffer(10, SMALL, directory=tmp_path)
    with pytest.raises(FileExistsError, match=r"with MANIFEST\.json"):
        per.ReplayBuffer.load(other, directory=tmp_path)
    assert len(per.ReplayBuffer.load(tmp_path, directory=tmp_path)) == 1


def test_a_buffer_that_cannot_be_made_leaves_no_files(tmp_path):
    with pytest.raises(ValueError, match="max_bytes must be >="):
        per.ReplayBuffer(1_000, IMAGE, n_step=3, directory=tmp_path, max_bytes=90_000)
    assert list(tmp_path.iterdir()) == []
    per.ReplayBuffer(1_000, IMAGE, n_step=3, directory=tmp_path)


def test_a_buffer_stays_in_its_directory_wherever_the_process_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fields = {**SMALL, "obs": per.Field((1024,), "uint8")}
    replay = per.ReplayBuffer(3000, fields, directory="buffer")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    frames = np.arange(200, dtype=np.uint8)[:, np.newaxis].repeat(1024, 1)
    for k in range(100):  # more frames than there is room for at first
        replay.add(frames[2 * k], k, 1.0, frames[2 * k + 1], False)
    assert replay.flush() == 100
    assert not any(elsewhere.iterdir())
    directory = tmp_path / "buffer"
    del replay
    assert len(per.ReplayBuffer.load(directory, directory=directory)) == 100
