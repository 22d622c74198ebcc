"""How the OpenAPI description names the errors of the endpoints."""

from __future__ import annotations

from typing import Any

from branchtune.serving.schemas import Problem

Responses = dict[int | str, dict[str, Any]]


def problem(status: int, description: str) -> Responses:
    """One status and when it is answered."""
    return {status: {"model": Problem, "description": description}}


EVERYWHERE: Responses = {
    **problem(403, "the server answers to localhost only, and this is another name or a page of another site"),
    **problem(500, "the server failed on this request"),
}
LOADING: Responses = problem(503, "loading, or busy: see Retry-After")
