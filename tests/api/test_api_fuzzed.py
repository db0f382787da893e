"""Whatever fits the document gets an answer that the document knows: by schemathesis, for some seconds."""

from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings

from api.conftest import Served
from reconciler.api.openapi import render_document

SLOW = list(HealthCheck)
document = schemathesis.openapi.from_dict(render_document())


@pytest.mark.usefixtures("ending")
def test_whatever_is_sent_is_answered_in_a_form_that_the_document_knows(served: Served) -> None:
    served.apply()
    transport = httpx.HTTPTransport(uds=str(served.path))
    with httpx.Client(transport=transport, base_url="http://reconcile", timeout=20) as client:
        for found in document.get_all_operations():
            send_some(client, found.ok())
    assert served.is_well()


def send_some(client: httpx.Client, operation: Any) -> None:
    """A few requests of one operation."""

    @given(case=operation.as_strategy())
    @settings(
        max_examples=4, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    def send(case: schemathesis.Case) -> None:
        # What follows never ends by itself.
        query = {name: value for name, value in (case.query or {}).items() if name != "follow"}
        body = case.body if isinstance(case.body, dict | list | str | int) else None
        answer = client.request(case.method, case.formatted_path, params=query, json=body)
        assert answer.status_code in (200, 400, 404, 409, 413, 415, 422, 423, 500), f"{operation.label}: {answer.text}"
        assert "mistake" not in answer.text, f"{operation.label}: {answer.text}"
        if answer.status_code != 200:
            assert answer.headers["content-type"] == "application/problem+json"

    send()
