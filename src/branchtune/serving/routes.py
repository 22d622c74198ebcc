"""The endpoints."""

from __future__ import annotations

from fastapi import APIRouter, HTTPException, Response
from fastapi import Request as HttpRequest
from fastapi.concurrency import run_in_threadpool

from branchtune.serving import predicting
from branchtune.serving.problems import EVERYWHERE, LOADING, problem
from branchtune.serving.schemas import ExampleImage, Health, ModelDescription
from branchtune.serving.service import Service

router = APIRouter(responses=EVERYWHERE)


def _service(request: HttpRequest) -> Service:
    service: Service = request.app.state.service
    return service


@router.get("/health")
async def health(request: HttpRequest) -> Health:
    """Whether the model is loaded; answers at once."""
    return Health(status="ready" if _service(request).ready else "loading")


@router.get("/model", responses=LOADING)
async def model(request: HttpRequest) -> ModelDescription:
    """Tasks, tree, image size, versions and limits."""
    service = _service(request)
    return service.served.describe(service.limits)


@router.get("/examples", responses=LOADING)
async def examples(request: HttpRequest) -> list[ExampleImage]:
    """Images to try."""
    found = enumerate(_service(request).served.examples)
    return [ExampleImage(name=example.name, url=f"examples/{index}") for index, example in found]


@router.get(
    "/examples/{index}",
    response_class=Response,
    responses={
        **LOADING,
        200: {"content": {"image/*": {}}},
        **problem(404, "no such example"),
        **problem(422, "not a number"),
    },
)
async def example(request: HttpRequest, index: int) -> Response:
    """One of them, as a file."""
    found = _service(request).served.examples
    if not 0 <= index < len(found):
        raise HTTPException(404, f"there is no example {index}: there are {len(found)}, from 0")
    try:
        data = await run_in_threadpool(found[index].read)
    except OSError as error:
        raise HTTPException(404, f"example {index} cannot be read any more ({error.strerror})") from error
    return Response(data, media_type=found[index].media_type)


router.include_router(predicting.router)
