"""A service with a tiny random model, an index and a re-ranker, and one server of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from served import DOCUMENTS, Client, overlap, running

from sentemb import Encoder
from sentemb.search import SearchIndex
from sentemb.serve import Service, app


@pytest.fixture(scope="session")
def encoder(tiny_bert) -> Encoder:
    return Encoder.load(tiny_bert, precision="fp32")


@pytest.fixture(scope="session")
def index_folder(tmp_path_factory, encoder):
    folder = tmp_path_factory.mktemp("serve") / "index"
    SearchIndex.build(folder, DOCUMENTS, encoder=encoder).close()
    return folder


@pytest.fixture(scope="session")
def service_of(encoder, index_folder) -> Callable[..., Service]:
    def make(**settings: Any) -> Service:
        return Service(
            models={"tiny": encoder}, indexes={"docs": SearchIndex.open(index_folder)}, rerankers={"overlap": overlap},
            **settings,
        )  # fmt: skip

    return make


@pytest.fixture(scope="session")
def client(service_of) -> Iterator[Client]:
    with running(app(service_of())) as client:
        yield client
