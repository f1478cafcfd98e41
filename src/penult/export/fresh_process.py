"""Run in a process of its own: load an export without penult, give its logits, time it.

Started as a file, `python fresh_process.py PLAN.json`, never imported: it must need nothing but the
runtime of the export. The plan names the runtime, the files, the inputs (.npy) and the batch sizes;
`logits.npy` and `result.json` are written beside it.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROUNDS = 15  # of each batch size, at least
LONGEST = 2.0  # seconds of rounds for one batch size

KEPT: list[Any] = []  # what must not be collected

Arrays = dict[str, Any]
Run = Callable[[Arrays], Any]


class Without:
    """Makes a package as absent as if it had never been installed."""

    def __init__(self, package: str) -> None:
        self.package = package

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Refuse the package, and leave all others to those who come next."""
        if name.partition(".")[0] == self.package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def onnx(plan: dict[str, Any]) -> tuple[Run, dict[str, str]]:
    """An ONNX file in onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if plan.get("threads"):
        options.intra_op_num_threads = plan["threads"]
    # Threads that wait busily after a run take the processor from the network that takes turns.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(
        plan["files"][0], options, providers=["CPUExecutionProvider"]
    )
    return lambda inputs: session.run(None, inputs)[0], {"onnxruntime": onnxruntime.__version__}


def openvino(plan: dict[str, Any]) -> tuple[Run, dict[str, str]]:
    """An ONNX file in OpenVINO."""
    import openvino

    # By itself it computes in 16 bits where the processor can, and then no logit is the same.
    exact = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    if plan.get("threads"):
        exact["INFERENCE_NUM_THREADS"] = plan["threads"]
    compiled = openvino.Core().compile_model(plan["files"][0], "CPU", exact)
    return lambda inputs: compiled(inputs)[0], {"openvino": openvino.__version__}


def torch(plan: dict[str, Any]) -> tuple[Run, dict[str, str]]:
    """A program of torch.export, with other weights where a second file holds some."""
    import torch as runtime

    if plan.get("threads"):
        runtime.set_num_threads(plan["threads"])
    module = runtime.export.load(plan["files"][0]).module()
    if len(plan["files"]) > 1:
        from safetensors.torch import load_file

        prefix = plan["prefix"]
        weights = {prefix + name: v for name, v in load_file(plan["files"][1]).items()}
        own = module.state_dict()
        absent = [name for name in own if name.startswith(prefix) and name not in weights]
        if absent:
            raise KeyError(f"the file lacks {absent[0]}")
        # Loaded as they are: a file of other shapes is an error.
        module.load_state_dict({**own, **{k: v for k, v in weights.items() if k in own}})

    def run(inputs: Arrays) -> Any:
        names = {"pixels": "images"}
        given = {names.get(k, k): runtime.from_numpy(v) for k, v in inputs.items()}
        with runtime.no_grad():
            return module(**given).numpy()

    return run, {"torch": runtime.__version__}


def head(plan: dict[str, Any]) -> tuple[Run, dict[str, str]]:
    """A head file, by the program that is written beside it."""
    spec = importlib.util.spec_from_file_location("head", plan["files"][0])
    assert spec is not None
    assert spec.loader is not None
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    logits = program.load_head(plan["files"][1])
    return lambda inputs: logits(inputs["features"]), {"numpy": np.__version__}


def huggingface(plan: dict[str, Any]) -> tuple[Run, dict[str, str]]:
    """A folder that transformers loads by itself."""
    import torch as runtime

    _allow_torchvision(runtime)
    import transformers

    made = getattr(transformers, plan["loader"]).from_pretrained(plan["files"][0]).eval()

    def run(inputs: Arrays) -> Any:
        names = {"images": "pixel_values"}
        given = {names.get(k, k): runtime.from_numpy(v) for k, v in inputs.items()}
        with runtime.no_grad():
            return made(**given).logits.numpy()

    return run, {"transformers": transformers.__version__, "torch": runtime.__version__}


def _allow_torchvision(runtime: Any) -> None:
    """Let transformers import a torchvision whose operators were built for another torch."""
    try:
        importlib.import_module("torchvision")
    except ModuleNotFoundError:
        return
    except RuntimeError:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        for name in ("nms", "qnms"):
            schema = f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            library = runtime.library.Library("torchvision", "FRAGMENT")
            library.define(schema)
            KEPT.append(library)


RUNTIMES = {
    "onnx": onnx,
    "openvino": openvino,
    "torch": torch,
    "head": head,
    "huggingface": huggingface,
}


def logits_of(run: Run, inputs: Arrays, size: int, fixed: bool) -> Any:
    """Logits of all samples, in batches; the last is smaller unless the size is fixed."""
    n = len(next(iter(inputs.values())))
    found = []
    for start in range(0, n, size):
        stop = start + size if fixed else min(n, start + size)
        rows = np.minimum(np.arange(start, stop), n - 1)
        found.append(np.asarray(run({name: values[rows] for name, values in inputs.items()})))
    return np.concatenate(found)[:n]


def seconds_of(runs: dict[str, Run], inputs: Arrays, size: int) -> dict[str, list[float]]:
    """Seconds of one batch, again and again; several take turns, to meet the same noise."""
    n = len(next(iter(inputs.values())))
    rows = np.arange(size) % n
    batch = {name: np.ascontiguousarray(values[rows]) for name, values in inputs.items()}
    for run in runs.values():
        run(batch)
        run(batch)
    times: dict[str, list[float]] = {name: [] for name in runs}
    began, done = time.perf_counter(), 0
    while done < ROUNDS or time.perf_counter() - began < LONGEST / 4:
        for name, run in runs.items():
            start = time.perf_counter()
            run(batch)
            times[name].append(time.perf_counter() - start)
        done += 1
        if time.perf_counter() - began > LONGEST * len(runs) and done >= 3:
            break
    return times


def main(path: Path) -> None:
    """Carry out a plan."""
    sys.meta_path.insert(0, Without("penult"))
    plan = json.loads(path.read_text(encoding="utf-8"))
    inputs = {name: np.load(path.parent / file) for name, file in plan["inputs"].items()}
    run, versions = RUNTIMES[plan["runtime"]](plan)
    result: dict[str, Any] = {"versions": {"python": sys.version.split()[0], **versions}}
    found = logits_of(run, inputs, plan["batch_size"], plan["fixed"])
    np.save(path.parent / "logits.npy", found.astype(np.float32))
    runs = {"export": run}
    if plan.get("before"):
        runs["before"], _ = RUNTIMES[plan["runtime"]]({**plan, "files": plan["before"]})
    timed = plan.get("timed", [])
    result["seconds"] = {str(size): seconds_of(runs, inputs, size) for size in timed}
    (path.parent / "result.json").write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
