/**
 * The reference client of chat_backend: plain JavaScript that needs no page. docs/client.md tells its story.
 *
 *   const api = new ChatApi({ identity: devIdentity("alice") });
 *   const session = await api.post("/sessions", { llm_provider: "LOCAL", llm_model: "demo" });
 *   const live = new LiveSession(api, session.id);
 *   live.addEventListener("text", ({ detail }) => console.log(detail.message.content));
 *   await live.open();
 *   live.send("Hello");
 */

const PREFIX = "/api/v1/chat";
const TRIES = 5;
const LONGEST_RETRY_AFTER_SECONDS = 10;
const BACKOFF_BASE_SECONDS = 0.5;
const BACKOFF_CAP_SECONDS = 15;
const PING_SECONDS = 20;
const SILENCE_SECONDS = 10;
/** How long a connection may be silent when its page has just become visible. */
const AWAKE_SECONDS = 2;
/** How long connecting may take, until the greeting. */
const GREETING_SECONDS = 20;
/** How long a REST answer may take: more than a request may wait for a reply. */
const ANSWER_SECONDS = 70;
const HTML_AGAIN_SECONDS = 10;
const TYPING_SECONDS = 7;
const TYPING_AGAIN_SECONDS = 3;
const HTML_AT_ONCE = 4;

/** How long a message may be, in code points. */
export const MOST_CHARACTERS = 32_000;

/** What ends a connection for good: all other closings are answered by coming back. */
const UNAUTHENTICATED = 4401;
const FAREWELLS = { [UNAUTHENTICATED]: "unauthenticated", 4403: "removed", 4404: "gone" };

// Who is asking

/** Say who is asking where AUTH_MODE is `dev`: a name is believed. */
export function devIdentity(user) {
  // A header holds Latin-1 only; the server reads its bytes as UTF-8.
  const header = String.fromCharCode(...new TextEncoder().encode(user));
  return { user, headers: () => ({ "X-User-ID": header }), socketQuery: async () => ({ user_id: user }) };
}

/** Say who is asking by a token. It goes into no URL: each connection gets a ticket of its own. */
export function tokenIdentity(token) {
  return {
    user: subjectOf(token),
    headers: () => ({ Authorization: `Bearer ${token}` }),
    socketQuery: async (api, sessionId, signal) => {
      const { ticket } = await api.post(`/sessions/${sessionId}/ws-ticket`, undefined, { signal });
      return { ticket };
    },
  };
}

/** Return the user that a token names, or null for what is no token. Only the server can tell whether it is true. */
function subjectOf(token) {
  try {
    const [, body] = token.split(".");
    const bytes = Uint8Array.from(atob(body.replaceAll("-", "+").replaceAll("_", "/")), (sign) => sign.codePointAt(0));
    return JSON.parse(new TextDecoder().decode(bytes)).sub ?? null;
  } catch {
    return null;
  }
}

// REST

/** An answer that is no success; `status` 0 means that there was none. */
export class ApiError extends Error {
  constructor(status, body, retryAfterSeconds = null) {
    super(body?.details?.message ?? (status ? `The server answered with ${status}.` : "The server can't be reached."));
    this.status = status;
    this.code = body?.error_code ?? (status ? null : "UNREACHABLE");
    this.body = body;
    this.retryAfterSeconds = retryAfterSeconds;
  }

  /** Whether the same request may succeed in a moment. */
  get isPassing() {
    const isBusy = this.status === 429 || this.status === 503;
    return this.status === 0 || (isBusy && (this.retryAfterSeconds ?? 0) <= LONGEST_RETRY_AFTER_SECONDS);
  }
}

/** REST with the patience that a network needs: every effect is named once, so asking again is safe. */
export class ChatApi {
  constructor({ identity, origin = globalThis.location?.origin, random = Math.random }) {
    this.identity = identity;
    this.origin = origin;
    this.random = random;
  }

  get(path, query, how) {
    return this.request("GET", path, { query, ...how });
  }

  post(path, body, how) {
    return this.request("POST", path, { body, headers: { "Idempotency-Key": newId() }, ...how });
  }

  put(path, body) {
    return this.request("PUT", path, { body });
  }

  delete(path) {
    return this.request("DELETE", path);
  }

  /** Ask, and ask again where that may help: so many `tries`, each so many `seconds`, until `signal` says to give up. Throws ApiError. */
  async request(method, path, { query, body, headers, tries = TRIES, seconds = ANSWER_SECONDS, signal } = {}) {
    for (let number = 1; ; number += 1) {
      try {
        return await this.#ask(method, this.url(path, query), body, headers, limited(seconds, signal));
      } catch (error) {
        // The answer to an earlier try was lost: what is deleted is no more there.
        if (method === "DELETE" && number > 1 && error.status === 404) return null;
        if (!error.isPassing || number >= tries || signal?.aborted) throw error;
        await pause(Math.max(error.retryAfterSeconds ?? 0, backoffSeconds(number - 1, this.random)));
      }
    }
  }

  url(path, query = {}) {
    const url = new URL(PREFIX + path, this.origin);
    for (const [name, value] of Object.entries(query)) {
      if (value !== undefined && value !== null) url.searchParams.set(name, value);
    }
    return url;
  }

  async #ask(method, url, body, headers, signal) {
    const sent = { ...this.identity.headers(), ...headers };
    if (body !== undefined) sent["Content-Type"] = "application/json";
    let response, answer;
    try {
      response = await fetch(url, { method, headers: sent, body: body && JSON.stringify(body), cache: "no-store", signal });
      answer = response.status === 204 ? null : await response.json();
    } catch {
      throw new ApiError(0, null);
    }
    if (!response.ok) throw new ApiError(response.status, answer, retryAfter(response));
    return answer;
  }
}

function limited(seconds, signal) {
  const limit = AbortSignal.timeout(seconds * 1000);
  return signal ? AbortSignal.any([signal, limit]) : limit;
}

function retryAfter(response) {
  const seconds = Number(response.headers.get("Retry-After") ?? NaN);
  return Number.isFinite(seconds) ? seconds : null;
}

// One chat session, live

/**
 * A chat session as it is, kept so: everything that the server says is applied here, and told as events.
 *
 * | event      | detail                                                                              |
 * |------------|-------------------------------------------------------------------------------------|
 * | `reset`    | none: all messages are to be shown anew                                             |
 * | `message`  | `{message, action}`: new or changed; `action` as the server says it, else `"older"` or `"html"` |
 * | `text`     | `{message, added}`: a reply grew                                                    |
 * | `unsent`   | `{entry}`: a message of mine is now, by `entry.state`: `sending`, `sent`, `refused` or `discarded` |
 * | `job`      | `{job}`                                                                             |
 * | `session`  | `{session}`: title, settings or participants changed                                |
 * | `presence` | none: `online` changed                                                              |
 * | `typing`   | none: `typing` changed                                                              |
 * | `state`    | none: `state` changed                                                               |
 * | `fault`    | `{error}`: the server refused something that has no name                            |
 *
 * `state` is `connecting`, `live`, `waiting` (until `retryAt`), or `closed` for the reason `closedBecause`:
 * `unauthenticated`, `removed`, `gone`, or `left` by us.
 */
export class LiveSession extends EventTarget {
  #socket = null;
  #failures = 0;
  #timers = new Map();
  #points = new Map();
  #olderCursor = null;
  #isFetched = false;
  #heardAt = 0;
  #typedAt = 0;
  #htmlWanted = new Set();
  #htmlRunning = 0;
  #isDoubted = false;

  /**
   * `unsent` holds what an earlier page could not say that it was sent: `{requestId, content}` each, with an `error` where
   * it was refused. It is sent under the same name, so what was stored after all is not doubled.
   */
  constructor(api, id, { pageSize = 50, html = false, unsent = [], random = Math.random } = {}) {
    super();
    this.api = api;
    this.id = id;
    this.pageSize = pageSize;
    this.html = html;
    this.random = random;
    this.userId = api.identity.user;
    this.offset = 0;
    this.cursor = "0";
    this.messages = new Map();
    this.jobs = new Map();
    this.unsent = new Map(unsent.map((entry) => [entry.requestId, { error: null, ...entry, state: entry.error ? "refused" : "sending" }]));
    this.online = [];
    this.typing = new Set();
    this.hasOlder = false;
    this.state = "connecting";
    this.closedBecause = null;
    this.retryAt = null;
  }

  /** Fetch the newest messages, then connect and stay connected; whatever goes wrong, `state` tells. */
  open() {
    return this.#connect();
  }

  /** Leave: nothing more is heard or said. */
  close(reason = "left") {
    if (this.state === "closed") return;
    for (const name of [...this.#timers.keys()]) this.#clear(name);
    this.#drop();
    this.closedBecause = reason;
    this.#enter("closed");
  }

  /** Come back at once instead of after the pause; for when the network is known to be there again. */
  retryNow() {
    if (this.state === "waiting") this.#connect();
  }

  /** Ask at once whether the connection is alive, and connect anew if nothing is heard: the page may have been asleep. */
  lookAgain() {
    if (this.state === "closed") return;
    if (this.state === "waiting") return this.#connect();
    const askedAt = Date.now();
    this.#say({ type: "ping" });
    this.#after(AWAKE_SECONDS, "ping", () => (this.#heardAt < askedAt ? this.#connect() : this.#watch()));
  }

  /** Send a message and ask for the reply; it goes on being sent until the server has said yes or no. One too long is refused here. */
  send(content, { onBusy } = {}) {
    const entry = { requestId: newId(), content, onBusy, state: "sending", error: null, createdAt: new Date() };
    this.unsent.set(entry.requestId, entry);
    const count = countPoints(content);
    // As a frame it might be larger than a connection bears, and end each one that it is sent on.
    if (count > MOST_CHARACTERS) this.#refuse(entry, tooLong(count));
    else this.#deliver(entry);
    return entry;
  }

  /** Send a refused message once more, under the same name: should it have been stored after all, it is not doubled. */
  sendAgain(requestId) {
    const entry = this.unsent.get(requestId);
    entry.state = "sending";
    entry.error = null;
    this.#deliver(entry);
  }

  /** Forget a refused message. */
  discard(requestId) {
    const entry = this.unsent.get(requestId);
    this.unsent.delete(requestId);
    entry.state = "discarded";
    this.#tell("unsent", { entry });
  }

  /** Stop a reply. By REST, which needs no connection. */
  cancel(jobId) {
    return this.api.post(`/jobs/${jobId}/cancel`);
  }

  /** Ask for another reply to the same question. */
  regenerate(messageId) {
    return this.api.post(`/messages/${messageId}/regenerate`, { stream: true });
  }

  /** Tell that I am typing; call it at every key. */
  typed() {
    const now = Date.now();
    if (now - this.#typedAt > TYPING_AGAIN_SECONDS * 1000) {
      this.#typedAt = now;
      this.#say({ type: "typing_start" });
    }
  }

  /** Tell that I stopped typing. */
  stoppedTyping() {
    if (this.#typedAt) this.#say({ type: "typing_stop" });
    this.#typedAt = 0;
  }

  /** Fetch the page before the oldest message there is. */
  async fetchOlder() {
    const page = await this.#page({ cursor: this.#olderCursor });
    if (this.state === "closed") return;
    for (const message of page.messages) this.#put(message, "older");
    this.#turned(page);
  }

  // What is fetched

  async #fetchNewest(signal) {
    const page = await this.#page({ order: "desc" }, signal);
    if (signal.aborted) return;
    this.messages.clear();
    this.#points.clear();
    for (const message of page.messages.reverse()) this.#put(message, null);
    this.offset = page.offset;
    // The position in the log, to come back to. It tells the server whether its log is still the one we saw.
    this.cursor = page.cursor ?? String(page.offset);
    this.#isFetched = true;
    this.#turned(page);
    this.#tell("reset");
  }

  #page(query, signal) {
    const asked = { render: this.html ? "html" : undefined, page_size: this.pageSize, ...query };
    return this.api.get(`/sessions/${this.id}/messages`, asked, { signal });
  }

  #turned(page) {
    this.hasOlder = page.has_more;
    this.#olderCursor = page.next_cursor;
  }

  /** Ask for the rendered form of a finished message, few at a time. */
  #wantHtml(message) {
    if (!this.html || message.is_streaming || typeof message.content_html === "string") return;
    this.#htmlWanted.add(message.id);
    this.#fetchHtml();
  }

  async #fetchHtml() {
    if (this.state === "closed" || this.#htmlRunning >= HTML_AT_ONCE || this.#htmlWanted.size === 0) return;
    const [id] = this.#htmlWanted;
    this.#htmlWanted.delete(id);
    this.#htmlRunning += 1;
    try {
      const message = await this.api.get(`/messages/${id}`, { render: "html" });
      // Asked alone there always is one; what changed meanwhile has been asked for anew.
      if (this.messages.get(id)?.updated_at === message.updated_at) this.#put(message, "html");
    } catch (error) {
      if (error.status === 401) return this.close("unauthenticated");
      if (error.isPassing || error.status === 429 || error.status >= 500) return this.#wantHtmlLater(id);
    } finally {
      this.#htmlRunning -= 1;
    }
    this.#fetchHtml();
  }

  /** Ask once more in a while, or as soon as there is a connection again. */
  #wantHtmlLater(id) {
    this.#htmlWanted.add(id);
    if (this.state !== "closed") this.#after(HTML_AGAIN_SECONDS, "html", () => this.#fetchHtml());
  }

  // The connection

  async #connect() {
    this.#clear("retry");
    this.#drop();
    // What we are waiting for; whatever comes of an older attempt is not heard any more.
    const giveUp = new AbortController();
    const attempt = (this.#socket = { close: () => giveUp.abort() });
    this.#after(GREETING_SECONDS, "ping", () => this.#lost());
    this.#enter("connecting");
    try {
      if (!this.#isFetched && this.#socket === attempt) await this.#fetchNewest(giveUp.signal);
      if (this.#socket !== attempt) return;
      const query = await this.api.identity.socketQuery(this.api, this.id, giveUp.signal);
      if (this.#socket !== attempt) return;
      this.#listen(new WebSocket(this.#address({ ...query, since: this.cursor, deltas: 1 })));
    } catch (error) {
      if (this.#socket === attempt) this.#lost(FAREWELLS[4000 + error.status]);
    }
  }

  #address(query) {
    const url = this.api.url(`/sessions/${this.id}/websocket`, query);
    url.protocol = url.protocol.replace("http", "ws");
    return url;
  }

  #listen(socket) {
    this.#socket = socket;
    const isCurrent = () => this.#socket === socket;
    socket.onmessage = ({ data }) => isCurrent() && this.#hear(JSON.parse(data));
    socket.onclose = ({ code }) => isCurrent() && this.#ended(code);
  }

  /** A ticket that was used up on its way says nothing about who we are: that tells the next one. */
  #ended(code) {
    const isDoubted = code === UNAUTHENTICATED && !this.#isDoubted;
    this.#isDoubted = isDoubted;
    this.#lost(isDoubted ? null : FAREWELLS[code]);
  }

  #drop() {
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
  }

  /** The connection has ended: for good, or until we come back after a growing, random pause. */
  #lost(farewell) {
    if (farewell) return this.close(farewell);
    this.#drop();
    this.#clear("ping");
    const seconds = backoffSeconds(this.#failures, this.random);
    this.#failures += 1;
    this.retryAt = new Date(Date.now() + seconds * 1000);
    this.#after(seconds, "retry", () => this.#connect());
    this.online = [];
    this.#hush();
    // Who hears of it may leave.
    if (this.state !== "closed") this.#enter("waiting");
  }

  /** Something does not fit: begin anew from the last offset, where the server tells all that is missing. */
  #resume() {
    if (this.state !== "closed") this.#lost();
  }

  /** A socket may be dead without having closed: ask now and then, and do not wait long. */
  #watch() {
    this.#after(PING_SECONDS, "ping", () => {
      const askedAt = Date.now();
      this.#say({ type: "ping" });
      this.#after(SILENCE_SECONDS, "ping", () => (this.#heardAt < askedAt ? this.#resume() : this.#watch()));
    });
  }

  #say(frame) {
    if (this.state === "live") this.#socket.send(JSON.stringify(frame));
  }

  #deliver(entry) {
    this.#tell("unsent", { entry });
    this.#say({
      type: "send_message",
      content: entry.content,
      request_id: entry.requestId,
      ...(entry.onBusy ? { on_busy: entry.onBusy } : {}),
    });
  }

  // What the server says

  #hear(frame) {
    this.#heardAt = Date.now();
    if (this.#isOld(frame)) return;
    switch (frame.type) {
      case "connection_established":
        return this.#greeted(frame);
      case "message_update":
        return this.#updated(frame);
      case "message_delta":
        return this.#grew(frame);
      case "job_update":
        this.jobs.set(frame.job.assistant_message_id, frame.job);
        return this.#tell("job", { job: frame.job });
      case "session_update":
        return this.#tell("session", { session: frame.session });
      case "user_joined":
      case "user_left":
        this.online = frame.participants_online;
        return this.#tell("presence");
      case "typing_indicator":
        return this.#types(frame.user_id, frame.is_typing);
      case "error":
        return this.#refused(frame);
      case "pong":
        // A connection that held so long is a good one; one that ends right after the greeting is to be met with patience.
        this.#failures = 0;
        return frame.offset > this.offset ? this.#resume() : undefined;
      default: // a later server may say more
    }
  }

  /** Durable events are numbered without a gap: each counts once, and a missing one is fetched by coming back. */
  #isOld(frame) {
    if (frame.offset === undefined || frame.type === "pong" || frame.type === "connection_established") return false;
    if (frame.offset > this.offset + 1) this.#resume();
    if (frame.offset !== this.offset + 1) return true;
    this.offset = frame.offset;
    // A server of an older release sends no cursors.
    this.cursor = frame.cursor ?? String(frame.offset);
    return false;
  }

  #greeted(frame) {
    this.userId = frame.user_id;
    this.online = frame.participants_online;
    if (!frame.recovered) {
      // What we missed can't be told any more: fetch what is there, and connect from that offset.
      this.#isFetched = false;
      return this.#connect();
    }
    this.#isDoubted = false;
    this.#watch();
    this.#enter("live");
    this.#tell("presence");
    for (const entry of [...this.unsent.values()]) if (entry.state === "sending") this.#deliver(entry);
    this.#fetchHtml();
  }

  #updated({ message: said, action, request_id: requestId }) {
    // HTML comes by REST alone, where it is asked for.
    const { content_html: _, ...message } = said;
    const entry = this.unsent.get(requestId);
    this.unsent.delete(requestId);
    this.#put(message, action);
    if (message.user_id) this.#types(message.user_id, false);
    if (entry) {
      entry.state = "sent";
      this.#tell("unsent", { entry });
    }
  }

  /** Append a piece of a reply. `start` counts code points, `length` of a JavaScript string does not. */
  #grew({ message_id: id, attempt, start, text }) {
    const message = this.messages.get(id);
    if (!message) return;
    if (attempt > message.attempt && start === 0) {
      this.#put({ ...message, attempt, content: "", status: "streaming" }, "restarted");
      return this.#grew({ message_id: id, attempt, start, text });
    }
    const known = this.#points.get(id);
    if (attempt !== message.attempt || start !== known) return this.#resume();
    message.content += text;
    message.status = "streaming";
    this.#points.set(id, known + countPoints(text));
    this.#tell("text", { message, added: text });
  }

  #put(message, action) {
    const oldest = this.messages.values().next().value;
    const isAbove = oldest && message.seq < oldest.seq && !this.messages.has(message.id);
    // A message further up than what was fetched comes with its page.
    if (isAbove && action !== "older" && this.hasOlder) return;
    this.messages.set(message.id, message);
    if (isAbove) this.messages = new Map([...this.messages].sort(([, a], [, b]) => a.seq - b.seq));
    this.#points.set(message.id, countPoints(message.content));
    if (action) this.#tell("message", { message, action });
    this.#wantHtml(message);
  }

  #types(user, isTyping) {
    this.#clear(`typing ${user}`);
    if (isTyping) this.#after(TYPING_SECONDS, `typing ${user}`, () => this.#types(user, false));
    const changed = isTyping ? !this.typing.has(user) : this.typing.has(user);
    if (isTyping) this.typing.add(user);
    else this.typing.delete(user);
    if (changed) this.#tell("typing");
  }

  #hush() {
    for (const user of this.typing) this.#clear(`typing ${user}`);
    this.typing.clear();
    this.#typedAt = 0;
    this.#tell("typing");
    this.#tell("presence");
  }

  #refused(frame) {
    const entry = this.unsent.get(frame.request_id);
    if (entry) this.#refuse(entry, frame);
    else this.#tell("fault", { error: frame });
  }

  #refuse(entry, error) {
    entry.state = "refused";
    entry.error = error;
    this.#tell("unsent", { entry });
  }

  // Small things

  #enter(state) {
    this.state = state;
    this.#tell("state");
  }

  #tell(type, detail = null) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  #after(seconds, name, act) {
    this.#clear(name);
    this.#timers.set(name, setTimeout(act, seconds * 1000));
  }

  #clear(name) {
    clearTimeout(this.#timers.get(name));
    this.#timers.delete(name);
  }
}

/** Full jitter: a crowd that was cut off together must not come back together. */
function backoffSeconds(failures, random) {
  return random() * Math.min(BACKOFF_CAP_SECONDS, BACKOFF_BASE_SECONDS * 2 ** failures);
}

function pause(seconds) {
  return new Promise((resolve) => setTimeout(resolve, seconds * 1000));
}

function tooLong(count) {
  const message = `A message may hold ${MOST_CHARACTERS} characters, this one has ${count}.`;
  return { error_code: "INVALID_INPUT", details: { field: "content", message } };
}

export function countPoints(text) {
  let count = 0;
  for (const _ of text) count += 1;
  return count;
}

/** Return a name that nobody else has. `crypto.randomUUID` is there on https and loopback only. */
export function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
