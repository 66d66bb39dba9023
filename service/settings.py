"""The settings table: name, default, unit, help; environment, CLI and docs derive from it.

Knows nothing of the parts that use the values. A setting is read from `MESHPRESS_<NAME>`;
a value that does not parse is refused with its name, the value and what is allowed.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

PREFIX = "MESHPRESS_"


class SettingError(ValueError):
    """A setting has a value that is not allowed."""


def _setting(default: Any, help: str, parse: Callable[[str], Any], unit: str = "") -> Any:
    return field(default=default, metadata={"help": help, "parse": parse, "unit": unit})


def _integer(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise SettingError(f"a whole number from {low} to {high}") from None
        if not low <= value <= high:
            raise SettingError(f"a whole number from {low} to {high}")
        return value

    return parse


def _number(low: float, high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise SettingError(f"a number from {low:g} to {high:g}") from None
        if math.isnan(value) or not low <= value <= high:
            raise SettingError(f"a number from {low:g} to {high:g}")
        return value

    return parse


def _choice(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in allowed:
            raise SettingError("one of " + ", ".join(allowed))
        return text

    return parse


def _text(text: str) -> str:
    return text


def _target(text: str) -> str:
    if text not in ("", "cpu") and not re.fullmatch(r"sm_\d{2,3}", text):
        raise SettingError("cpu, or a GPU target such as sm_75, sm_86 or sm_120")
    return text


def _path(text: str) -> Path:
    return Path(text).expanduser()


def _path_if_any(text: str) -> str:
    return text and str(Path(text).expanduser())


GIB = 2**30


@dataclass(frozen=True)
class Settings:
    """All settings of a service, immutable once read."""

    host: str = _setting("127.0.0.1", "Address the API listens on.", _text)
    port: int = _setting(
        8080, "Port the API listens on; SAGEMAKER_BIND_TO_PORT overrides it.", _integer(0, 65535)
    )
    data_dir: Path = _setting(
        Path("meshpress-data"), "Folder of the queue, the artifacts and the locks.", _path
    )
    queue_url: str = _setting(
        "", "Queue database: sqlite:///… or postgresql://…; default: SQLite in DATA_DIR.", _text
    )
    storage_url: str = _setting(
        "",
        "Artifact store: file:///…, s3://bucket/prefix, gs://, az://; default: DATA_DIR/artifacts.",
        _text,
    )
    models_dir: str = _setting(
        "",
        "Folder of the networks' weights; default: meshpress/models in XDG_CACHE_HOME or ~/.cache. "
        "/opt/ml/model and the Hugging Face cache are looked at too.",
        _path_if_any,
    )
    devices: str = _setting(
        "auto",
        "Devices to run workers on: auto, cpu, cuda, or a list such as cuda:0,cuda:1.",
        _text,
    )
    guard: str = _setting(
        "strict",
        "What a failed start-up check does: strict exits 2, serve answers 503, off skips it.",
        _choice("strict", "serve", "off"),
    )
    variant: str = _setting(
        "", "What this installation was made for, e.g. sm_86; the images set it.", _target
    )
    attention_backend: str = _setting(
        "auto",
        "Attention of the networks; auto is the best that works on the GPU, triton our own kernel.",
        _choice("auto", "triton", "flash-attn", "xformers", "sdpa"),
    )
    sparse_backend: str = _setting(
        "auto",
        "Sparse convolution of the networks; auto is triton on a GPU, else spconv, else torch.",
        _choice("auto", "triton", "spconv", "torch"),
    )
    dtype: str = _setting(
        "auto",
        "Number format of the networks; auto is bfloat16 where the GPU has it, else float16.",
        _choice("auto", "bfloat16", "float16", "float32"),
    )
    offload: str = _setting(
        "auto",
        "Where networks lie between their turns: on in the machine's memory, off on the GPU; auto "
        "looks at the GPU's free memory.",
        _choice("auto", "on", "off"),
    )
    preload: str = _setting(
        "",
        "A pipeline with weights that each worker loads at its start, so that its first job does "
        "not wait for it; such as trellis.",
        _text,
    )
    accepted_licences: str = _setting(
        "",
        "Licences of weights that are accepted, by their short names with commas between, as "
        "`meshpress models pull --accept-licence` takes them; for images and model folders.",
        _text,
    )
    max_upload_bytes: int = _setting(2 * GIB, "Largest request body.", _integer(1, 2**50), "bytes")
    min_free_bytes: int = _setting(
        GIB // 2,
        "Uploads are refused when less disk than this is free.",
        _integer(0, 2**50),
        "bytes",
    )
    max_queued: int = _setting(
        10_000, "Jobs that may wait before new ones are refused.", _integer(1, 10**9), "jobs"
    )
    attempt_limit: int = _setting(
        3, "Crashed attempts after which a job ends failed.", _integer(1, 100), "attempts"
    )
    job_timeout_seconds: float = _setting(
        3600.0,
        "Longest run of one step before its runner is killed.",
        _number(0.1, 10**7),
        "seconds",
    )
    cancel_grace_seconds: float = _setting(
        5.0,
        "Time a cancelled pipeline has to stop before its runner is killed.",
        _number(0, 3600),
        "seconds",
    )
    result_ttl_seconds: float = _setting(
        7 * 86400.0,
        "How long results and inputs are kept after a job ends.",
        _number(1, 10**9),
        "seconds",
    )
    history_seconds: float = _setting(
        30 * 86400.0,
        "How long a job's row is kept after its result expired.",
        _number(0, 10**9),
        "seconds",
    )
    drain_seconds: float = _setting(
        8.0,
        "Time running jobs and requests have to end after SIGTERM.",
        _number(0, 3600),
        "seconds",
    )
    poll_seconds: float = _setting(
        0.05, "Pause between two looks of a worker at the queue.", _number(0.005, 60), "seconds"
    )
    sync_timeout_seconds: float = _setting(
        300.0,
        "Longest wait of POST /v1/mesh, /v1/splat and Prefer: wait.",
        _number(1, 86400),
        "seconds",
    )
    invocation_timeout_seconds: float = _setting(
        55.0,
        "Longest wait of SageMaker's POST /invocations (real time allows 60).",
        _number(1, 3600),
        "seconds",
    )
    server: str = _setting(
        "http://127.0.0.1:8080", "Service that `meshpress jobs` asks; no part of a service.", _text
    )
    log_format: str = _setting(
        "auto",
        "Log lines: json, text, or auto (text on a terminal).",
        _choice("auto", "json", "text"),
    )
    log_level: str = _setting(
        "info", "Least severe log line.", _choice("debug", "info", "warning", "error")
    )

    @property
    def effective_queue_url(self) -> str:
        return self.queue_url or f"sqlite:///{self.data_dir.absolute()}/queue.db"

    @property
    def effective_storage_url(self) -> str:
        return self.storage_url or f"file://{self.data_dir.absolute()}/artifacts"


def read_settings(environment: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
    """Settings from the environment, then `overrides` (a None override is ignored).

    Raises SettingError naming the variable, its value and what is allowed; also for a variable
    with the prefix that names no setting, since a misspelt setting must not be silently ignored.
    """
    environment = os.environ if environment is None else environment
    table: dict[str, Field[Any]] = {item.name: item for item in fields(Settings)}
    values: dict[str, Any] = {}
    for variable in sorted(environment):
        if not variable.startswith(PREFIX):
            continue
        name = variable.removeprefix(PREFIX).lower()
        if name not in table:
            raise SettingError(f"{variable} names no setting; see docs/settings.md for the list.")
        text = environment[variable]
        try:
            values[name] = table[name].metadata["parse"](text)
        except SettingError as error:
            raise SettingError(f"{variable} has the value {text!r}; allowed: {error}.") from None
    sagemaker_port = environment.get("SAGEMAKER_BIND_TO_PORT")
    if sagemaker_port is not None:
        try:
            values["port"] = _integer(1, 65535)(sagemaker_port)
        except SettingError as error:
            raise SettingError(
                f"SAGEMAKER_BIND_TO_PORT has the value {sagemaker_port!r}; allowed: {error}."
            ) from None
    values.update({name: value for name, value in overrides.items() if value is not None})
    return Settings(**values)


def to_environment(settings: Settings) -> dict[str, str]:
    """The variables that make `read_settings` return these settings in a child process."""
    return {
        PREFIX + item.name.upper(): str(getattr(settings, item.name)) for item in fields(settings)
    }
