"""Logits of a penult head, with NumPy or torch: `load_head("head.safetensors")(features)`."""

import json
import struct
from pathlib import Path

import numpy as np

TYPES = {"F32": "<f4", "I64": "<i8"}


def load_head(path):  # type: ignore[no-untyped-def]
    """A function from features (n_samples, n_features) to logits (n_samples, n_classes)."""
    data = Path(path).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    about, t = header.pop("__metadata__"), {}
    for name, one in header.items():
        values = np.frombuffer(body[slice(*one["data_offsets"])], TYPES[one["dtype"]])
        t[name] = values.reshape(one["shape"])
    if about["format"] == "penult-head/1":  # class c reads indices[indptr[c]:indptr[c + 1]]
        sizes = np.diff(t["indptr"])
        t["weight"] = np.zeros((len(sizes), int(about["n_features"])), np.float32)
        t["weight"][np.repeat(np.arange(len(sizes)), sizes), t["indices"]] = t["values"]

    def logits(z):  # type: ignore[no-untyped-def]
        own = t if isinstance(z, np.ndarray) else {k: z.new_tensor(v) for k, v in t.items()}
        found = z @ own["weight"].T + own["bias"]
        if "bounds" in own:  # what exceeds a bound along a direction is taken away
            excess = z @ own["directions"].T - own["bounds"]
            found = found - (excess * (excess > 0)) @ own["scales"].T
        return found

    return logits
