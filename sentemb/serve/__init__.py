"""Models and indexes over HTTP: ``Service`` holds them, ``app`` is the ASGI application, ``serve`` runs it."""

from sentemb.errors import needs_extra

needs_extra("starlette", "serve")
needs_extra("uvicorn", "serve")
needs_extra("prometheus_client", "serve")

from sentemb.serve.app import app  # noqa: E402
from sentemb.serve.models import Limits  # noqa: E402
from sentemb.serve.running import serve  # noqa: E402
from sentemb.serve.service import Service  # noqa: E402

__all__ = ["Limits", "Service", "app", "serve"]
