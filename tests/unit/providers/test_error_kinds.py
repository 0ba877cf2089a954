"""Errors as servers word them, and what kind each is."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from chat_backend.domain.errors import ErrorCode, ModelMissing
from workers.providers.error_text import error_of
from workers.providers.refusals import refusal, refusal_in_stream

PAYMENT, REJECTED = ErrorCode.PROVIDER_PAYMENT_REQUIRED, ErrorCode.PROVIDER_REJECTED
LIMITED, LOADING, FAILED = ErrorCode.PROVIDER_RATE_LIMITED, ErrorCode.MODEL_LOADING, ErrorCode.PROVIDER_FAILED


def error(message: str, *, type: str | None = None, code: Any = None, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": type, "code": code, **more}}


def said(status: int, body: Any, **headers: str) -> Any:
    given = body if isinstance(body, bytes) else orjson.dumps(body)
    return refusal(status, headers, error_of(given))


NO_CREDIT = {
    "OpenAI": (429, error("You exceeded your current quota, please check your plan.", code="insufficient_quota")),
    "OpenAI, prepaid": (429, error("No credits.", type="insufficient_quota", code="credit_balance_exhausted")),
    "OpenAI, hard limit": (400, error("Billing hard limit has been reached", code="billing_hard_limit_reached")),
    "DeepSeek": (402, error("Insufficient Balance", type="unknown_error", code="invalid_request_error")),
    "Moonshot": (
        429,
        error(
            "Your account org-4 <ak-f> is suspended due to insufficient balance", type="exceeded_current_quota_error"
        ),
    ),
    "Zhipu": (429, error("余额不足或无可用资源包,请充值。", code="1113")),
    "Zhipu, in English": (429, error("Insufficient balance or no resource package. Please recharge.", code="1113")),
    "Anthropic": (
        400,
        error("Your credit balance is too low to access the Anthropic API.", type="invalid_request_error"),
    ),
    "Anthropic, credits": (
        429,
        error("Usage credits are required for this model.", type="rate_limit_error"),
    ),
    "SiliconFlow": (403, {"code": 30001, "message": "Sorry, your account balance is insufficient", "data": None}),
    "OneAPI": (403, error("[sk-a***b] quota", type="new_api_error", code="insufficient_user_quota")),
    "DashScope": (
        400,
        {"code": "Arrearage", "message": "Access denied, please make sure your account is in good standing."},
    ),
    "Volcengine": (403, error("The account has an overdue balance.", code="AccountOverdueError")),
    "xAI": (
        429,
        {"code": "429", "error": "Your team has used all available credits or reached its monthly spending limit."},
    ),
    "Perplexity": (401, error("Quota exceeded", type="insufficient_quota", code=401)),
    "Hugging Face": (402, {"error": "You have exceeded your monthly included credits for Inference Providers."}),
    "through OpenRouter": (
        429,
        error("Provider returned error", code=429, metadata={"raw": '{"error":{"message":"insufficient balance"}}'}),
    ),
}


@pytest.mark.parametrize("name", NO_CREDIT)
def test_an_empty_account_is_final(name: str) -> None:
    status, body = NO_CREDIT[name]

    found = said(status, body)

    assert (found.code, found.retryable, found.http_status) == (PAYMENT, False, status)


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (error("Rate limit reached for gpt-4o on tokens per min.", type="tokens", code="rate_limit_exceeded"), {}),
        (error("You exceeded your current quota, please check your plan.", status="RESOURCE_EXHAUSTED"), {}),
        (error("You exceeded your current quota.", details=[{"retryDelay": "3s"}]), {}),
        (error("Quota exceeded for requests per minute: insufficient quota"), {}),
        (error("Insufficient quota"), {"retry-after": "3"}),
        (error("Too many requests", code="1302"), {}),
    ],
)
def test_a_limit_that_passes_is_not_an_empty_account(body: Any, headers: dict[str, str]) -> None:
    found = said(429, body, **headers)

    assert (found.code, found.retryable) == (LIMITED, True)


TOO_LONG = {
    "OpenAI": (400, error("This model's maximum context length is 4096 tokens.", code="context_length_exceeded")),
    "OpenAI, newer": (400, error("Your input exceeds the context window of this model.", type="invalid_request_error")),
    "llama.cpp": (
        400,
        error("the request exceeds the available context size", type="exceed_context_size_error", code=400, n_ctx=8192),
    ),
    "llama.cpp, older": (
        500,
        error("the request exceeds the available context size. try increasing the context size", type="server_error"),
    ),
    "llama-cpp-python": (500, error("Requested tokens (5000) exceed context window of 4096", type="internal_error")),
    "vLLM, older": (
        400,
        {
            "object": "error",
            "message": "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens.",
            "type": "BadRequestError",
            "code": 400,
        },
    ),
    "vLLM": (400, error("The decoder prompt (length 5000) is longer than the maximum model length of 4096.", code=400)),
    "SGLang": (
        400,
        {"object": "error", "message": "The input (5 tokens) is longer than the model's context length (4)."},
    ),
    "TGI": (422, {"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000"}),
    "LM Studio": (
        400,
        {
            "error": "The number of tokens to keep from the initial prompt is greater than the context length"
            " (n_keep: 13055>= n_ctx: 4096). Try to load the model with a larger context length."
        },
    ),
    "LM Studio, older": (
        400,
        {"error": "Trying to keep the first 9 tokens when context the overflows. However, the model is loaded with 4."},
    ),
    "Ollama": (400, error("prompt too long; exceeded max context length by 12 tokens", type="api_error")),
    "Ollama, embedding": (500, error("the input length exceeds the context length", type="api_error")),
    "Mistral": (
        400,
        {
            "object": "error",
            "message": "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum context"
            " length",
            "type": "invalid_request_prompt",
        },
    ),
    "Groq": (400, error("Please reduce the length of the messages or completion.", code="context_length_exceeded")),
    "Groq, by its plan": (
        413,
        error("Request too large for model `x` on tokens per minute, please reduce your message size", code="x"),
    ),
    "Gemini": (
        400,
        [error("The input token count (1196265) exceeds the maximum number of tokens allowed (1048575).", code=400)],
    ),
    "Anthropic": (400, {"type": "error", **error("prompt is too long: 213462 tokens > 200000 maximum")}),
    "xAI": (400, {"error": "This model's maximum prompt length is 131072 but the request contains 537812 tokens"}),
    "Copilot": (
        400,
        error("prompt token count of 70 exceeds the limit of 64", code="model_max_prompt_tokens_exceeded"),
    ),
    "GitHub Models": (
        413,
        error("Request body too large for gpt-4o model. Max size: 8000", code="tokens_limit_reached"),
    ),
    "DashScope": (400, error("Range of input length should be [1, 30720]", code="invalid_parameter_error")),
    "SiliconFlow": (400, {"code": 20015, "message": "length of prompt_tokens (3) must be less than max_seq_len (2)."}),
    "Moonshot": (400, error("Invalid request: Your request exceeded model token limit: 8192")),
    "Bedrock": (400, {"message": "Input is too long for requested model."}),
    "Cohere": (400, {"message": "too many tokens: size limit exceeded by 1000 tokens."}),
    "MiniMax": (400, error("invalid params, context window exceeds limit (2013)")),
    "LiteLLM": (400, error("litellm.ContextWindowExceededError: x", type="ContextWindowExceededError", code="400")),
    "plain text": (400, b"prompt is too long"),
    "through OpenRouter": (
        400,
        error("Provider returned error", metadata={"raw": '{"error":{"message":"prompt is too long: 9 tokens"}}'}),
    ),
}


@pytest.mark.parametrize("name", TOO_LONG)
def test_a_conversation_that_is_too_long_is_final(name: str) -> None:
    status, body = TOO_LONG[name]

    found = said(status, body)

    assert (found.code, found.retryable) == (REJECTED, False)
    assert found.message == f"The conversation is longer than the model can read (HTTP {status})."


NO_MODEL = {
    "OpenAI": (404, error("The model `x` does not exist or you do not have access to it.", code="model_not_found")),
    "OpenAI, project": (403, error("Project `p` does not have access to model `x`", code="model_not_found")),
    "Ollama": (404, error('model "x" not found, try pulling it first', type="api_error")),
    "Ollama, its own": (404, {"error": "model 'x' not found"}),
    "vLLM": (404, {"object": "error", "message": "The model `x` does not exist.", "type": "NotFoundError"}),
    "LM Studio": (400, error("No models loaded. Please load a model in the developer page", code="x")),
    "Mistral": (400, {"object": "error", "message": "Invalid model: x", "type": "invalid_model", "code": "1500"}),
    "DeepSeek": (400, error("Model Not Exist", type="invalid_request_error")),
    "OpenRouter": (404, error("No endpoints found for x.", code=404)),
    "OpenRouter, id": (400, error("x is not a valid model ID", code=400)),
    "Gemini": (404, [error("models/x is not found for API version v1main", code=404, status="NOT_FOUND")]),
    "Groq": (
        400,
        error("The model `x` has been decommissioned and is no longer supported.", code="model_decommissioned"),
    ),
}


@pytest.mark.parametrize("name", NO_MODEL)
def test_a_model_that_is_not_there_is_final(name: str) -> None:
    status, body = NO_MODEL[name]

    found = said(status, body)

    assert isinstance(found, ModelMissing)
    assert (found.code, found.retryable, found.http_status) == (REJECTED, False, status)


IS_LOADING = {
    "llama.cpp": (503, error("Loading model", type="unavailable_error", code=503)),
    "llama.cpp, bare": (503, {"message": "Loading model", "type": "unavailable_error", "code": 503}),
    "Hugging Face": (503, {"error": "Model x is currently loading", "estimated_time": 8.0}),
    "an estimate alone": (503, {"error": "Service unavailable", "estimated_time": 20}),
    "a gateway": (500, {"error": "Error code: 503 - {'error': {'message': 'Loading model'}}"}),
    "a server": (503, {"detail": "The model is not ready yet."}),
    "plain text": (503, b"Server is still starting, the model is being loaded"),
    "a warm-up": (503, {"message": "Model is warming up"}),
}


@pytest.mark.parametrize("name", IS_LOADING)
def test_a_model_that_loads_is_waited_for(name: str) -> None:
    status, body = IS_LOADING[name]

    found = said(status, body)

    assert (found.code, found.retryable) == (LOADING, True)
    assert found.message == f"The model is still loading (HTTP {status})."


@pytest.mark.parametrize(
    "body", [error("failed to load model"), error("error loading model: out of memory"), error("overloaded"), b"", {}]
)
def test_other_failures_of_a_server_do_not_count_as_loading(body: Any) -> None:
    assert said(503, body).code == FAILED


def test_an_estimate_is_a_hint() -> None:
    assert said(*IS_LOADING["Hugging Face"]).retry_after_seconds == 8


@pytest.mark.parametrize(
    ("event", "code", "retryable"),
    [
        ({"error": "Model x is currently loading", "estimated_time": 20.0}, LOADING, True),
        ({"code": 1008, "message": "insufficient balance"}, PAYMENT, False),
        ({"message": "prompt is too long: 5 tokens > 4 maximum", "type": "api_error"}, REJECTED, False),
        ("Context size has been exceeded", REJECTED, False),
        ({"message": "the model produced something odd"}, FAILED, True),
    ],
)
def test_errors_in_a_stream_are_of_the_same_kinds(event: Any, code: ErrorCode, retryable: bool) -> None:
    found = refusal_in_stream(event, {})

    assert (found.code, found.retryable, found.http_status) == (code, retryable, 200)


@pytest.mark.parametrize(("status", "body"), [(404, b"404 page not found"), (405, {"detail": "Method Not Allowed"})])
def test_a_path_that_is_not_there_points_to_the_address(status: int, body: Any) -> None:
    found = said(status, body)

    assert (found.code, found.retryable) == (REJECTED, False)
    assert "base URL may be wrong" in found.message
