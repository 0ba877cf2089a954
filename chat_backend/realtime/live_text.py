"""The text on its way: one Redis string an attempt, appended to and published in one go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast
from uuid import UUID

import redis

from chat_backend.realtime.channels import live_text_key

LIVE_SECONDS = 900

# For each key: append what is new where the string is as long as the writer knows it to be; then publish all of
# it as one message, in any case. ARGV: seconds to keep, the channel, the message, then for each key its length and
# its text. Returns the keys that were of another length: a wiped Redis is noticed at once. So is another kind of value,
# which is no number long: as an error it would hold up the text of every reply.
APPEND_AND_PUBLISH = """
local off = {}
for i, key in ipairs(KEYS) do
  local at = 2 + i * 2
  if redis.pcall('STRLEN', key) == tonumber(ARGV[at]) then
    redis.call('APPEND', key, ARGV[at + 1])
    if ARGV[at] == '0' then redis.call('EXPIRE', key, ARGV[1]) end
  else
    off[#off + 1] = i
  end
end
redis.call('PUBLISH', ARGV[2], ARGV[3])
return off
"""


def read_live_texts(client: redis.Redis, replies: Sequence[tuple[UUID | str, int]]) -> list[str]:
    """Return the text so far of running attempts, empty where Redis has none.

    Raises redis.RedisError.
    """
    if not replies:
        return []
    keys = [live_text_key(message_id, attempt) for message_id, attempt in replies]
    found = cast(list[bytes | None], client.mget(keys))
    return [(text or b"").decode("utf-8", "replace") for text in found]
