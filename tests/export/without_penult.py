"""Run in an environment that lacks penult: load exports as a stranger would, and give their logits.

    python without_penult.py FOLDER

In the folder lie `images.npy`, `features.npy` and the exports; `NAME.npy` is written for each.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np

assert importlib.util.find_spec("penult") is None
folder = Path(sys.argv[1])
images, features = np.load(folder / "images.npy"), np.load(folder / "features.npy")

import onnxruntime  # noqa: E402
import torch  # noqa: E402

session = onnxruntime.InferenceSession(folder / "onnx" / "network.onnx")
np.save(folder / "onnx.npy", session.run(["logits"], {"images": images})[0])

program = torch.export.load(folder / "torch" / "network.pt2").module()
with torch.no_grad():
    np.save(folder / "torch.npy", program(images=torch.from_numpy(images)).numpy())

sys.path.insert(0, str(folder / "head"))
from head import load_head  # type: ignore[import-not-found]  # noqa: E402

logits = load_head(folder / "head" / "head.safetensors")
np.save(folder / "head.npy", logits(features))
np.save(folder / "head_torch.npy", logits(torch.from_numpy(features)).numpy())
