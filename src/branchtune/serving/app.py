"""The application: endpoints, page, and every error as `{"detail": one line}`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles

from branchtune._version import __version__
from branchtune.errors import UserError
from branchtune.serving.guards import BodyLimit, LocalNamesOnly
from branchtune.serving.limits import Limits
from branchtune.serving.routes import router
from branchtune.serving.served import Served
from branchtune.serving.service import Service

PAGE = Path(__file__).parent / "page"


def create_app(
    load: Callable[[], Served],
    limits: Limits | None = None,
    *,
    local_only: bool = True,
    on_failure: Callable[[BaseException], None] = lambda error: None,
) -> FastAPI:
    """The application of one model.

    Args:
        load: makes the model, while the server answers already.
        limits: default: `Limits()`.
        local_only: refuse requests to other names than localhost's.
        on_failure: called with what `load` raised.
    """
    limits = limits or Limits()
    service = Service(load, limits, on_failure)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        await service.stop()

    # FastAPI's own /docs loads its scripts from another server; the page has one of its own.
    app = FastAPI(title="branchtune", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.service = service
    app.include_router(router)
    app.mount("/", StaticFiles(directory=PAGE, html=True), name="page")
    app.add_middleware(BodyLimit, most=limits.max_bytes)
    if local_only:
        app.add_middleware(LocalNamesOnly)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(UserError, _refused)
    app.add_exception_handler(Exception, _failed)
    return app


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    parts = [f"{'.'.join(map(str, part['loc'][1:]))}: {part['msg']}" for part in error.errors()]
    return JSONResponse({"detail": "; ".join(parts)}, 422)


async def _refused(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, 422)


async def _failed(request: Request, error: Exception) -> JSONResponse:
    reason = f"the server failed on this request ({type(error).__name__}): its output says more"
    return JSONResponse({"detail": reason}, 500)
