"""Sounds as pictures: the recordings of the data folder and their log-mel spectrograms."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from folder import opened
from grid import StudyError


class Recordings(NamedTuple):
    """Sounds of any length, int16 or float, what is said (N,) int64, and by whom (N,) int64."""

    sounds: list[np.ndarray]
    labels: np.ndarray
    speakers: np.ndarray
    rate: int


@cache
def recordings(name: str, part: str) -> Recordings:
    """A part, "train" or "test", of an .npz file of recordings.

    Args:
        name: of the file. It holds ``rate`` in Hz, and for each part ``audio_*``, all samples in a row, ``length_*``,
            the number of samples of each, ``y_*`` and ``speaker_*``.

    Raises:
        StudyError: if the file is not there, or holds other arrays, or arrays that do not fit each other.
    """
    needed = ["rate", *(f"{word}_{part}" for word in ("audio", "length", "y", "speaker"))]
    with opened(name) as archive:
        missing = [word for word in needed if word not in archive.files]
        if missing:
            raise StudyError(f"{name}: holds {archive.files}, expected {missing[0]} too")
        rate, audio, length, labels, speakers = (archive[word] for word in needed)
    if not (length.shape == labels.shape == speakers.shape and audio.shape == (length.sum(),)):
        shapes = [array.shape for array in (audio, length, labels, speakers)]
        raise StudyError(
            f"{name}: {', '.join(needed[1:])} have the shapes {shapes} and lengths the sum {length.sum()}, expected "
            "(sum,), (N,), (N,) and (N,)"
        )
    sounds = np.split(audio, np.cumsum(length)[:-1])
    return Recordings(sounds, labels.astype(np.int64), speakers.astype(np.int64), int(rate))


def made_up() -> Recordings:
    """Noisy tones of three heights by two speakers, as lists of samples of several lengths."""
    rng = np.random.default_rng(0)
    labels, speakers = np.arange(120) % 3, np.arange(120) // 3 % 2
    sounds = []
    for label, speaker in zip(labels, speakers, strict=True):
        t = np.arange(rng.integers(1000, 3000)) / 8000
        tone = np.sin(2 * np.pi * (300 + 250 * label + 80 * speaker) * t)
        sounds.append((8000 * tone + 4000 * rng.standard_normal(len(t))).astype(np.int16))
    return Recordings(sounds, labels, speakers, 8000)


def mel(hertz: np.ndarray | float) -> np.ndarray:
    """Heights as they are heard: 2595·log10(1 + f / 700)."""
    return 2595 * np.log10(1 + np.asarray(hertz, float) / 700)


def mel_filters(bands: int, window: int, rate: int) -> np.ndarray:
    """(bands, window // 2 + 1) triangles, equally wide on the mel scale between 0 Hz and half the rate.

    A triangle rises from 0 at the centre of the band below to 1 at its own, and falls to 0 at the centre of the next.
    """
    ends = 700 * (10 ** (np.linspace(0, mel(rate / 2), bands + 2) / 2595) - 1)
    hertz = np.arange(window // 2 + 1) * rate / window
    low, centre, high = (ends[i : bands + i, None] for i in range(3))
    return np.clip(np.minimum((hertz - low) / (centre - low), (high - hertz) / (high - centre)), 0, None)


def log_mel(sound: np.ndarray, rate: int, bands: int, frames: int, window: int = 256, hop: int = 100) -> np.ndarray:
    """(bands, frames) float32: the logarithm of the energy in each band, mean 0 and SD 1 over the recording.

    Frames past the end of the sound are 0, as in Zhang et al. 2018, and those past ``frames`` are cut off.

    Args:
        sound: (T,) samples, one window or more of them.
        rate: samples a second.
        bands: of the mel scale.
        frames: length of the result.
        window: samples of a frame, weighed by Hann's window.
        hop: samples from one frame to the next.
    """
    cut = np.lib.stride_tricks.sliding_window_view(sound.astype(np.float64), window)[::hop]
    energy = np.abs(np.fft.rfft(cut * np.hanning(window + 1)[:-1])) ** 2
    heard = np.log(energy @ mel_filters(bands, window, rate).T + 1e-6)
    heard = ((heard - heard.mean()) / (heard.std() + 1e-6))[:frames]
    return np.pad(heard, ((0, frames - len(heard)), (0, 0))).T.astype(np.float32)
