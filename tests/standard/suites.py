"""Makes the standard suites' test classes for a subject."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import pytest
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from .subjects import Subject


class Settings:
    """How today's models are made in either suite: they take no temperature, and nobody needs a second try here."""

    subject: ClassVar[Subject]

    @property
    def chat_model_class(self) -> Any:
        return self.subject

    @property
    def standard_chat_model_params(self) -> dict[str, Any]:
        return {"max_tokens": 1024, "timeout": 60, "stop": [], "max_retries": 0}

    @property
    def has_tool_calling(self) -> bool:
        return True

    @property
    def has_tool_choice(self) -> bool:
        return True

    @property
    def has_structured_output(self) -> bool:
        return True

    @property
    def supports_model_override(self) -> bool:
        return self.subject.override is not None

    @property
    def model_override_value(self) -> str | None:
        return self.subject.override

    @pytest.fixture(autouse=True)
    def answered(self, provider: Any) -> Any:
        """Whatever was asked was asked of the model this subject is there to test."""
        yield
        assert {served.model for served in provider.requests} <= {self.subject.answers, self.subject.override, self.subject.steps_in}


def suites(subjects: Iterable[Subject]) -> dict[str, type]:
    """Both suites' classes for each subject, by their names."""
    kinds = {"Unit": ChatModelUnitTests, "Integration": ChatModelIntegrationTests}
    return {
        _name(subject, suffix): type(_name(subject, suffix), (Settings, kind), {"subject": subject, "__module__": __name__})
        for subject in subjects
        for suffix, kind in kinds.items()
    }


def _name(subject: Subject, suffix: str) -> str:
    return "Test" + "".join(part for part in subject.name.title() if part.isalnum()) + suffix
