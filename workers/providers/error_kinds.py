"""Kinds of provider errors that deserve their own treatment, recognized by the words of many servers."""

from __future__ import annotations

import re
from collections.abc import Collection
from enum import Enum


class Kind(Enum):
    """What an error means, whatever its status."""

    NO_CREDIT = "no credit"
    TOO_LONG = "too long"
    NO_MODEL = "no model"
    LOADING = "loading"


# Codes and types, in lower case.
_WORDS = {
    **dict.fromkeys(
        (
            *("insufficient_quota", "insufficient_user_quota", "insufficient_balance", "insufficient_credits"),
            *("insufficient_funds", "insufficient_account_balance", "exceeded_current_quota_error", "out_of_credits"),
            *("billing_error", "billing_hard_limit_reached", "billing_not_active", "credit_balance_exhausted"),
            *("credits_required", "payment_required", "arrearage", "accountoverdueerror", "accountoverdue"),
            *("pre_consume_token_quota_failed", "insufficient_credit", "insufficientbalance"),
        ),
        Kind.NO_CREDIT,
    ),
    **dict.fromkeys(
        (
            *("context_length_exceeded", "exceed_context_size_error", "context_window_exceeded", "prompt_too_long"),
            *("contextwindowexceedederror", "model_max_prompt_tokens_exceeded", "tokens_limit_reached"),
            *("context_size_exceeded", "input_too_long", "string_above_max_length", "context_too_long"),
        ),
        Kind.TOO_LONG,
    ),
    **dict.fromkeys(
        (
            *("model_not_found", "modelnotfound", "model_not_exist", "model_not_exists", "unknown_model"),
            *("invalid_model", "model_not_available", "modelnotfounderror", "model_does_not_exist", "no_such_model"),
            *("invalid_model_error", "modelnotopen", "invalidendpointormodel.notfound", "model_decommissioned"),
        ),
        Kind.NO_MODEL,
    ),
    **dict.fromkeys(("model_loading", "model_not_ready", "modelloading", "model_is_loading"), Kind.LOADING),
}

_NO_CREDIT = re.compile(
    r"""
    insufficient\ (?:\w+\ ){0,2}(?:balance|credits?|funds|quota)
    | (?:balance|credits?|funds)\ (?:is|are)\ (?:too\ low|insufficient|exhausted|depleted|not\ enough|used\ up)
    | not\ enough\ (?:\w+\ )?(?:balance|credits?|funds)
    | (?:no|out\ of|requires?\ more|used\ all\ (?:available|your)|add\ (?:more\ )?)\ ?(?:credits?|funds)\b
    | exceeded\ your\ (?:\w+\ )?(?:quota|included\ credits|spending\ limit|monthly\ limit)
    | (?:spending|billing\ hard|usage\ hard)\ limit\b | check\ your\ plan\ and\ billing
    | usage\ credits\ are\ required | payment\ required | account\ is\ (?:in\ arrears|overdue|not\ active)
    | overdue[\ -]payment | in\ good\ standing
    | please\ (?:recharge|top[\ -]up) | top\ up\ (?:your|and\ try)
    | 余额不足 | 欠费 | 额度不足 | 请充值
    """,
    re.VERBOSE | re.IGNORECASE,
)
# Limits that pass by themselves, though the sentence speaks of a quota.
_PASSES = re.compile(
    r"per[ -](?:minute|second|hour)|rate[ -]limit|(?:try again|retry|resets?) (?:in|after|at)\b|RESOURCE_EXHAUSTED",
    re.IGNORECASE,
)
_TOO_LONG = re.compile(
    r"""
    (?:maximum|max|model's)\ (?:allowed\ )?(?:context|sequence|prompt|input|model)\ (?:length|size|window)
    | (?:exceed\w*|over|beyond|greater\ than|longer\ than|larger\ than|too\ large\ for)\b[^.]{0,60}
      \bcontext\ (?:length|size|window)
    | context[\ _](?:length|size|window|limit)\b[^.]{0,40}\b(?:exceed|overflow|too\ small|not\ enough)
    | context\ (?:the\ )?overflow | exceeds?\ the\ context
    | (?:prompt|input|message|conversation|request)s?\ (?:text\ |tokens\ )?(?:is|are|was|were)?\ ?too\ (?:long|large)
    | (?:prompt|input)\ tokens?\ too\ long
    | (?:input|prompt)\ token\ count\b[^.]{0,60}\bexceed
    | exceed\w*\ (?:the\ )?(?:model(?:'s)?\ )?(?:max(?:imum)?\ )?(?:input\ |prompt\ )?(?:token|length)s?\ limit
    | model\ token\ limit | (?:max_seq_len|max_model_len|max_input_length|max_position_embeddings|n_ctx)\b
    | (?:reduce|shorten)\ (?:the\ length\ of\ |the\ size\ of\ |the\ |your\ )(?:messages?|prompt|input|conversation)
    | provide\ a\ shorter\ (?:input|prompt) | range\ of\ input\ length
    | inputs?`?\ (?:tokens\ \+|must\ have\ less\ than\ \d+\ tokens) | too\ many\ tokens:
    | tokens\ to\ keep\ from\ the\ initial\ prompt | max(?:imum)?\ input\ (?:characters|tokens)
    | request\ body\ too\ large\ for
    | 超长 | 超出.{0,20}(?:长度|上下文) | 超过.{0,20}(?:长度|上下文|限制)
    """,
    re.VERBOSE | re.IGNORECASE,
)
_NO_MODEL = re.compile(
    r"""
    \bmodels?\b[^\n]{0,180}?\b(?:not\ found|not\ exist|doesn'?t\ exist|not\ available|decommissioned)
    | \bmodels?\b[^\n]{0,180}?\bno\ longer\ (?:available|supported)
    | (?:not\ a\ valid|no\ such|unknown|invalid)\ model\b | no\ models?\ (?:\S+\ )?(?:found|loaded|named)
    | try\ pulling\ it | no\ endpoints\ found\ for | could\ not\ find\ (?:the\ )?model | model_not_found
    | 模型不存在
    """,
    re.VERBOSE | re.IGNORECASE,
)
_LOADING = re.compile(
    r"""
    \bloading\ (?:the\ )?model | \bmodel\b[^\n]{0,120}?\b(?:is|still|currently|being)\ (?:\w+\ ){0,2}load(?:ing|ed)\b
    | \bmodel\b[^\n]{0,120}?\b(?:not\ (?:yet\ )?(?:ready|loaded)|(?:is\ |still\ )starting)
    | warming\ up | (?:is|still)\ (?:\w+\ )?(?:starting|initiali[sz]ing) | starting\ up | cold\ start
    """,
    re.VERBOSE | re.IGNORECASE,
)
_GAVE_UP = re.compile(r"fail|unable|could not|couldn't|cannot|can't|error (?:while )?loading|crash", re.IGNORECASE)
_LATER = {425, 500, 502, 503, 504}


def kind_of(
    status: int | None, words: Collection[str], sentence: str, *, has_hint: bool = False, estimates: bool = False
) -> Kind | None:
    """Return the kind of an error; None if it is no special one.

    `status` is None for an error inside a successful response. `has_hint`: the error says when to come back.
    `estimates`: it says how long something will take.
    """
    if known := next(filter(None, (_WORDS.get(word.lower()) for word in words)), None):
        return known
    if status in (None, 400, 401, 403, 429) and _NO_CREDIT.search(sentence):
        passes = has_hint or _PASSES.search(sentence) or "RESOURCE_EXHAUSTED" in words
        return None if passes else Kind.NO_CREDIT
    loads = estimates or (_LOADING.search(sentence) and not _GAVE_UP.search(sentence))
    if loads and (status is None or status in _LATER):
        return Kind.LOADING
    if (status in (None, 400, 413, 422) or (status or 0) >= 500) and _TOO_LONG.search(sentence):
        return Kind.TOO_LONG
    if status in (None, 400, 403, 404, 410, 422) and _NO_MODEL.search(sentence):
        return Kind.NO_MODEL
    return None
