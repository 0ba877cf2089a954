"""The limits of the contract that no setting moves."""

TITLE_CHARACTERS = 500
MODEL_CHARACTERS = 100
USER_ID_CHARACTERS = 255
CONTENT_CHARACTERS = 32_000
REPLY_CHARACTERS = 200_000
SYSTEM_PROMPT_CHARACTERS = 32_000
FREE_FORM_BYTES = 16 * 1024
FREE_FORM_DEPTH = 10
# The schema of a form with lists of objects takes three levels for each of its own.
FORMAT_DEPTH = 30
BODY_BYTES = 1024 * 1024
FRAME_BYTES = 256 * 1024
FALLBACKS = 5
LISTED_MODELS = 2_000
STOPS = 4
STOP_CHARACTERS = 200
# The largest whole number that every JSON reader keeps.
SAFE_INTEGER = 2**53 - 1
PAGE_SIZE = 50
MAX_PAGE_SIZE = 200
# What the rows of a page may come to: their content, and for each row its other fields.
PAGE_BYTES = 1024 * 1024
ROW_BYTES = 512
MAX_PAGE = 1_000_000_000
MAX_COUNT = 2_147_483_647
QUEUED_JOBS = 5
WAIT_SECONDS = 25
MAX_WAIT_SECONDS = 60
KEPT_EVENTS = 1_000
IDEMPOTENCY_KEY_CHARACTERS = 255
# Requests of all users that wait for their turn in one web process.
WAITING_IN_LINE = 300
# Responses in one web process whose clients do not read at the moment: where each holds a thread, and where there are
# greenlets; and what they may hold of memory, of all users and of one.
UNSENT_RESPONSES = 128
UNSENT_RESPONSES_OF_GREENLETS = 1000
UNSENT_BYTES = 64 * 1024 * 1024
UNSENT_BYTES_OF_USER = 16 * 1024 * 1024
