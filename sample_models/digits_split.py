"""The fixed split of scikit-learn's digits, and a part of its training set for calibration: needs no torch.

`python sample_models/digits_split.py` writes `digits_train.npz`: rows of the training set alone, so that ranges taken
from them do not flatter the accuracy on the test set, which every model ships with. One file serves all models that
take `image`. Needs scikit-learn (extra `training`).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

BRIGHTEST = 16.0  # scikit-learn's digits count 0 to 16 pixels of a 4 x 4 block
TEST_SHARE = 0.2
SPLIT_SEED = 0
CALIBRATION_ROWS = 400


def split() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns images (float32 N x 1 x 8 x 8 in 0 to 1) and labels (int64 N) of the training and of the test set."""
    data = load_digits()
    images = (data.images / BRIGHTEST).astype(np.float32)[:, None]
    labels = data.target.astype(np.int64)
    train_x, test_x, train_y, test_y = train_test_split(
        images,
        labels,
        test_size=TEST_SHARE,
        random_state=SPLIT_SEED,
        stratify=labels,
    )
    return train_x, train_y, test_x, test_y


def save_calibration_rows(path: Path) -> None:
    """Writes the first rows of the shuffled training set, as `image` and `labels`."""
    train_x, train_y, _, _ = split()
    np.savez_compressed(path, image=train_x[:CALIBRATION_ROWS], labels=train_y[:CALIBRATION_ROWS])


if __name__ == "__main__":
    save_calibration_rows(Path(__file__).resolve().parent / "digits_train.npz")
