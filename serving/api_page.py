"""What the service says about itself: the OpenAPI document and a small page, from the bundle alone.

The page is one plain HTML document: no script, no font, no request to anywhere else.
"""

import json
from html import escape
from typing import Any

from mlplatform.domain.source import Source
from mlplatform.features.streaming.fact_rows import streamed_sources
from mlplatform.registry.bundle import Bundle
from mlplatform.scoring.fallback import TIERS
from mlplatform.scoring.request import request_schema

ARROW = "application/vnd.apache.arrow.stream"

PROBLEM = {
    "type": "object",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"field": {"type": "string"}, "reason": {"type": "string"}},
                "required": ["field", "reason"],
            },
        },
    },
    "required": ["title", "status", "detail"],
}

REFUSED = {
    "description": "Refused; the detail says why",
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
}

ANSWERS = {
    "type": "object",
    "properties": {
        "answers": {
            "type": "array",
            "items": {
                "anyOf": [
                    {"$ref": "#/components/schemas/Answer"},
                    {
                        "type": "object",
                        "properties": {"errors": {"type": "object", "additionalProperties": {"type": "string"}}},
                        "required": ["errors"],
                    },
                ]
            },
        }
    },
    "required": ["answers"],
}


def openapi(bundle: Bundle, *, request_time: bool) -> dict[str, Any]:
    """The OpenAPI 3.1 document of the service.

    Parameters
    ----------
    request_time : whether a request may bring its own `at`
    """
    asked = bundle.domain.requests
    schema = request_schema(asked.columns)
    if request_time:
        at = {"type": "string", "format": "date-time", "description": "the instant of the request"}
        schema["properties"] = {**schema["properties"], "at": at}
    predict = {
        "summary": bundle.model.meaning,
        "operationId": "predict",
        "parameters": [
            {
                "name": "X-Request-ID",
                "in": "header",
                "required": False,
                "description": "Names this request in the answer and in the log; made up if absent",
                "schema": {"type": "string"},
            }
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"$ref": "#/components/schemas/Request"},
                    "example": dict(asked.example),
                }
            },
        },
        "responses": {
            "200": {
                "description": "The answer",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Answer"}}},
            },
            **dict.fromkeys(("400", "401", "403", "408", "413", "422", "429", "503"), REFUSED),
        },
    }
    batch = {
        "summary": f"{bundle.model.meaning} Many rows at once",
        "description": "Rows that break the contract are refused alone; the others are answered. An Arrow IPC stream "
        "has the columns of a request, and its answer is a stream with a row for each row.",
        "operationId": "predict_batch",
        "parameters": predict["parameters"],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/Request"}}
                },
                ARROW: {"schema": {"type": "string", "format": "binary"}},
            },
        },
        "responses": {
            "200": {
                "description": "The answers, in the order of the rows",
                "content": {
                    "application/json": {"schema": {"$ref": "#/components/schemas/Answers"}},
                    ARROW: {"schema": {"type": "string", "format": "binary"}},
                },
            },
            **dict.fromkeys(("400", "401", "403", "408", "413", "422", "429", "503"), REFUSED),
        },
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": bundle.manifest.model,
            "version": bundle.manifest.model_version,
            "description": bundle.model.meaning,
        },
        "paths": {
            "/predict": {"post": predict},
            "/predict/batch": {"post": batch},
            **{f"/facts/{source.name}": {"post": _facts(source)} for source in streamed_sources(bundle.domain.sources)},
            "/webhook/data-updated": {"post": _data_updated(bundle)},
            "/model": _get("The manifest of the model that serves, and since when", "application/json"),
            "/metrics": _get("The figures that Prometheus collects", "text/plain"),
            "/livez": _get("Whether the process is alive", "text/plain", always=True),
            "/readyz": _get("Whether it may be given traffic, and if not, why", "application/json"),
            "/docs.json": _get("This document", "application/json"),
            "/": _get("A page about the model", "text/html"),
        },
        "components": {
            "schemas": {"Request": schema, "Answer": _answer(bundle), "Answers": ANSWERS, "Problem": PROBLEM},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        # Keys are asked for where the service can be reached from other machines.
        "security": [{}, {"key": []}],
    }


def index_page(bundle: Bundle) -> str:
    """The page at `/`: what is served, a request to paste, and where the rest is."""
    example = escape(json.dumps(dict(bundle.domain.requests.example), ensure_ascii=False))
    manifest = bundle.manifest
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{escape(manifest.model)}</title>
<style>body {{ font: 1rem/1.5 system-ui, sans-serif; margin: 3rem auto; max-width: 46rem; padding: 0 1rem }}
pre {{ background: #f3f3f3; padding: 1rem; overflow-x: auto }}</style>
<h1>{escape(manifest.model)}</h1>
<p>{escape(bundle.model.meaning)}</p>
<p>Version {escape(manifest.model_version)}, manifest <code>{manifest.short_digest}</code></p>
<pre>curl -X POST -H 'Content-Type: application/json' -d '{example}' <em>this address</em>/predict</pre>
<p><a href="model">Manifest</a> · <a href="docs.json">OpenAPI</a> · <a href="readyz">Readiness</a> ·
<a href="metrics">Metrics</a></p>
</html>
"""


def _get(summary: str, media_type: str, *, always: bool = False) -> dict[str, Any]:
    kind = "object" if media_type == "application/json" else "string"
    said = {"description": "As asked", "content": {media_type: {"schema": {"type": kind}}}}
    return {"get": {"summary": summary, "responses": {"200": said} if always else {"200": said, "503": REFUSED}}}


_VIEW = {
    "type": "object",
    "properties": {
        "status": {"type": "string", "enum": ["present", "not_found", "expired", "unavailable"]},
        "revision": {"type": ["integer", "null"], "description": "of the partition that the values come from"},
    },
    "required": ["status", "revision"],
}


def _facts(source: Source) -> dict[str, Any]:
    rows = {"type": "array", "minItems": 1, "items": {"type": "object"}}
    return {
        "summary": f"{source.meaning}, as they happen",
        "description": "Rows that break the contract are refused alone. The same body under the same X-Request-ID is "
        "one event, however often it is sent.",
        "operationId": f"facts_{source.name}",
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": rows},
                ARROW: {"schema": {"type": "string", "format": "binary"}},
            },
        },
        "responses": {
            "202": {
                "description": "They are kept: how many, and which were refused",
                "content": {"application/json": {"schema": {"type": "object"}}},
            },
            **dict.fromkeys(("400", "401", "403", "404", "408", "413", "422", "429", "503"), REFUSED),
        },
    }


def _data_updated(bundle: Bundle) -> dict[str, Any]:
    text = {"type": "string", "minLength": 1, "maxLength": 200}
    sources = [bundle.domain.name, *(source.name for source in bundle.domain.sources)]
    properties = {
        "id": {**text, "maxLength": 128, "description": "the same id is the same event, however often it is sent"},
        "source": {**text, "enum": sources, "description": "whose rows have come; the domain's name: of all sources"},
        "partition": {**text, "format": "date", "description": "the day whose rows have come"},
        "rows_added": {"type": "integer", "minimum": 0},
        "dataset_version": {**text, "description": "your own name of what the data set is now"},
    }
    return {
        "summary": "Say that data has come, so that it is decided now whether to train again",
        "description": "202: the event is kept. What is decided on it, also that there is no such partition, "
        "`mlplatform retrain explain` tells.",
        "operationId": "data_updated",
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "properties": properties,
                        "required": ["id", "source", "partition", "rows_added"],
                        "additionalProperties": False,
                    }
                }
            },
        },
        "responses": {
            "202": {"description": "It is kept", "content": {"application/json": {"schema": {"type": "object"}}}},
            **dict.fromkeys(("400", "401", "408", "413", "422", "429", "503"), REFUSED),
        },
    }


def _answer(bundle: Bundle) -> dict[str, Any]:
    kinds: dict[str, dict[str, Any]] = {"binary": {"type": "integer", "enum": [0, 1]}, "regression": {"type": "number"}}
    prediction = kinds.get(bundle.model.task, {"type": "string", "enum": list(bundle.model.label.classes)})
    share = {"type": ["number", "null"], "minimum": 0, "maximum": 1}
    properties = {
        "prediction": {"anyOf": [prediction, {"type": "null"}], "description": bundle.model.label.meaning},
        "probability": share,
        "confidence": share,
        "needs_review": {"type": "boolean", "description": "a person should look: the confidence is low"},
        "source": {"type": "string", "enum": ["model", *TIERS], "description": "what made the answer"},
        "degraded": {"type": "boolean", "description": "the answer was made with less than the model and its features"},
        "model_version": {"type": "string"},
        "manifest": {"type": "string", "description": "digest of the whole serving configuration"},
        "request_id": {"type": "string"},
        "views": {
            "type": "object",
            "description": "the feature views that were read",
            "properties": dict.fromkeys(bundle.manifest.views, _VIEW),
        },
    }
    return {"type": "object", "properties": properties, "required": list(properties)}
