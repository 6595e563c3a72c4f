"""The servers that the serving benchmark puts beside ours: each as its own documentation writes it, in its own folder.

Each scores the same booster with one thread in one worker, and gets one row as a list of thirty numbers, which is less
to read than the thirty named fields that ours gets. None of them validates, looks features up, falls back or logs.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Row = npt.NDArray[np.float32]

FASTAPI = """
import numpy as np
import xgboost as xgb
from fastapi import FastAPI
from pydantic import BaseModel

booster = xgb.Booster(model_file="model.ubj")
booster.set_param({"nthread": 1})
app = FastAPI()


class Row(BaseModel):
    values: list[float]


class Answer(BaseModel):
    probability: float


@app.post("/predict")
async def predict(row: Row) -> Answer:
    scores = booster.inplace_predict(np.array([row.values], dtype=np.float32))
    return Answer(probability=float(scores[0]))
"""

BENTOML = """
import bentoml
import numpy as np
import xgboost as xgb


@bentoml.service(workers=1)
class Model:
    def __init__(self) -> None:
        self.booster = xgb.Booster(model_file="model.ubj")
        self.booster.set_param({"nthread": 1})

    @bentoml.api(batchable=True)
    def predict(self, rows: np.ndarray) -> np.ndarray:
        return self.booster.inplace_predict(rows.astype(np.float32))
"""

BENTOML_DEPENDS = (
    BENTOML
    + """

@bentoml.service(workers=1)
class Gateway:
    model = bentoml.depends(Model)

    @bentoml.api
    async def predict(self, rows: np.ndarray) -> np.ndarray:
        return await self.model.to_async.predict(rows)
"""
)

EMPTY = """
ANSWER = b'{"probability":0.5}'
HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(ANSWER)).encode())]


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": ANSWER})
"""

MLSERVER_MODEL = {
    "name": "model",
    "implementation": "mlserver_xgboost.XGBoostModel",
    # The values of its own documentation's example.
    "max_batch_size": 64,
    "max_batch_time": 0.005,
    "parameters": {"uri": "./model.ubj"},
}

UVICORN = ("uvicorn", "--loop", "uvloop", "--http", "httptools", "--no-access-log", "--lifespan", "off")


def _fastapi_body(row: Row) -> Any:
    return {"values": row.tolist()}


def _bentoml_body(row: Row) -> Any:
    return {"rows": [row.tolist()]}


def _mlserver_body(row: Row) -> Any:
    data = {"name": "rows", "shape": [1, len(row)], "datatype": "FP32", "data": row.tolist()}
    return {"inputs": [data]}


@dataclass(frozen=True)
class Peer:
    """One server beside ours."""

    name: str
    packages: Sequence[str]
    """What its environment holds; none: ours is used."""

    files: Callable[[int], dict[str, str]]
    """Port -> files of its folder; `model.ubj` is put beside them."""

    command: Callable[[int], list[str]]
    """Port -> command, its first word a program of its environment."""

    path: str
    body: Callable[[Row], Any]
    score: Callable[[Any], float | None]
    """Answer -> probability; None: it gives none."""

    environment: dict[str, str] = field(default_factory=dict)


def _mlserver_files(port: int) -> dict[str, str]:
    ports = {"http_port": port, "grpc_port": port + 1, "metrics_port": port + 2}
    told = {**ports, "host": "127.0.0.1", "debug": False, "parallel_workers": 0}
    return {"settings.json": json.dumps(told), "model-settings.json": json.dumps(MLSERVER_MODEL)}


BENTO_ENVIRONMENT = {"BENTOML_DO_NOT_TRACK": "True"}


def _bento(service: str) -> Callable[[int], list[str]]:
    return lambda port: ["bentoml", "serve", service, "--host", "127.0.0.1", "--port", str(port)]


def _uvicorn(module: str) -> Callable[[int], list[str]]:
    return lambda port: [*UVICORN, module, "--port", str(port)]


BENTO_PACKAGES = ("bentoml==1.4.39", "xgboost-cpu==3.2.0", "numpy")

PEERS = (
    Peer(
        "empty ASGI app",
        (),
        lambda _: {"empty_app.py": EMPTY},
        _uvicorn("empty_app:app"),
        "/",
        _fastapi_body,
        lambda _: None,
    ),
    Peer(
        "FastAPI",
        ("fastapi", "uvicorn", "uvloop", "httptools", "xgboost-cpu==3.2.0", "numpy"),
        lambda _: {"fastapi_app.py": FASTAPI},
        _uvicorn("fastapi_app:app"),
        "/predict",
        _fastapi_body,
        lambda answer: float(answer["probability"]),
    ),
    Peer(
        "BentoML, batchable",
        BENTO_PACKAGES,
        lambda _: {"batchable.py": BENTOML},
        _bento("batchable:Model"),
        "/predict",
        _bentoml_body,
        lambda answer: float(answer[0]),
        BENTO_ENVIRONMENT,
    ),
    Peer(
        "BentoML, depends",
        BENTO_PACKAGES,
        lambda _: {"hop.py": BENTOML_DEPENDS},
        _bento("hop:Gateway"),
        "/predict",
        _bentoml_body,
        lambda answer: float(answer[0]),
        BENTO_ENVIRONMENT,
    ),
    Peer(
        "MLServer",
        # One process: with its parallel workers each request is pickled to another one, on the same core.
        ("mlserver", "mlserver-xgboost", "xgboost==3.2.0"),
        _mlserver_files,
        lambda _: ["mlserver", "start", "."],
        "/v2/models/model/infer",
        _mlserver_body,
        lambda answer: float(answer["outputs"][0]["data"][0]),
    ),
)
